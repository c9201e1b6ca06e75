// Typed arrays that say they are others, or that their bytes lie elsewhere: what they are counts,
// in both forms, on every backend.

import { expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, onEachIsa, refused } from "./backends.js";
import { sameBits } from "./compare.js";

/** A value with a property that its class has a getter for. */
const lying = <T extends object>(value: T, key: PropertyKey, lie: unknown): T => Object.defineProperty(value, key, { value: lie });

const bytes = new ArrayBuffer(64);
class Float32ArrayInName extends Uint8Array {}
Object.defineProperty(Float32ArrayInName.prototype, Symbol.toStringTag, { value: "Float32Array" });

/** Not one of them is float32. */
const LIES: Record<string, unknown> = {
  "bytes at an odd place": lying(new Uint8Array(bytes, 1, 16), Symbol.toStringTag, "Float32Array"),
  "bytes of a class of that name": new Float32ArrayInName(bytes, 3, 16),
  "whole numbers of 16 bits": lying(new Int16Array(bytes, 2, 8), Symbol.toStringTag, "Float32Array"),
  "a view": lying(new DataView(bytes, 1, 16), Symbol.toStringTag, "Float32Array"),
  "what is no view": { [Symbol.toStringTag]: "Float32Array", buffer: bytes, byteOffset: 1, byteLength: 16, length: 4 },
  "an array behind a proxy": new Proxy(new Float32Array(bytes, 4, 4), {}),
};

onEachIsa(() => {
  test.each(Object.entries(LIES).map(([name, data]) => ({ name, data })))("$name", async ({ data }) => {
    const x = { data, shape: [1, 1, 1, 4] } as unknown as types.TensorLike;
    const q = { data: new Float32Array(8), shape: [1, 2, 1, 4] };
    for (const call of [
      () => api.rmsNormSync(x),
      () => api.rmsNorm(x),
      () => api.applyRopeSync(x),
      () => api.groupNorm(x, { numGroups: 1 }),
      () => api.diffAttentionSync(q, q, x, { lambda: 0.5 }),
      () => api.diffAttention(q, q, x, { lambda: 0.5 }),
      () => api.rmsNormSync({ data: new Float32Array(4), shape: [4] }, { out: data as Float32Array }),
    ])
      expect((await refused(call)).code).toBe("DTYPE");
  });

  test("half precision at an odd place", async () => {
    const data = lying(new Uint8Array(bytes, 1, 8), Symbol.toStringTag, "Uint16Array");
    const x = { data, shape: [4], dtype: "float16" } as unknown as types.TensorLike;
    for (const call of [() => api.rmsNormSync(x), () => api.rmsNorm(x)]) expect((await refused(call)).code).toBe("DTYPE");
  });

  test("where an array's bytes lie is not what it says of itself", async () => {
    const honest = Float32Array.of(0, 1, 2, 3, 4, 5);
    const view = (): Float32Array => honest.subarray(1, 5);
    const y = api.rmsNormSync({ data: view(), shape: [4] });
    for (const [key, lie] of [
      ["byteOffset", 1],
      ["byteLength", 2 ** 30],
      ["buffer", new ArrayBuffer(3)],
      [Symbol.toStringTag, "Uint16Array"],
    ] as const) {
      const x = { data: lying(view(), key, lie), shape: [4] };
      sameBits(api.rmsNormSync(x), y);
      sameBits(await api.rmsNorm(x), y);
    }
  });
});
