// Which instruction sets share their bits (the table "Bits" of the numeric contract), of any set of
// calls. Knows no operator.

import { afterAll, describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, isas, isNative } from "./backends.js";
import { hash } from "./compare.js";

/** Tests that the results of a fixed set of calls have the bits that they should. */
export function bitsBetweenIsas(fixedSet: (deterministic: boolean) => types.Tensor[]): void {
  /** Its hash on another backend; the one under test runs again afterwards. */
  async function hashOn(other: types.InitOptions, deterministic: boolean): Promise<string> {
    await api.init(other);
    return hash(fixedSet(deterministic));
  }

  describe("between instruction sets", () => {
    afterAll(() => api.dispose());
    // On the thread that calls, a build without threads runs: the same code as the one in the worker.
    test.each(isas)("%s: deterministic has the bits of native scalar", async (isa) => {
      const expected = await hashOn({ backend: "native", isa: "scalar" }, true);
      expect(await hashOn({ backend, isa }, true)).toBe(expected);
      expect(await hashOn({ backend: "wasm", isa: "simd128" }, true)).toBe(expected);
    });
    test("scalar and simd128 are unfused anyway", async () => {
      const expected = await hashOn({ backend: "native", isa: "scalar" }, true);
      expect(await hashOn({ backend: "native", isa: "scalar" }, false)).toBe(expected);
      expect(await hashOn({ backend: "wasm", isa: "simd128" }, false)).toBe(expected);
    });
    test("those that fuse agree", async () => {
      const fusing = isas.filter((isa) => isa !== "scalar" && isa !== "simd128");
      const hashes = new Set<string>();
      if (!isNative && fusing.length > 0) hashes.add(await hashOn({ backend: "native", isa: "avx2" }, false));
      for (const isa of fusing) hashes.add(await hashOn({ backend, isa }, false));
      expect(hashes.size).toBeLessThanOrEqual(1);
    });
  });
}
