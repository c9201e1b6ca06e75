// The table "Errors" of the numeric contract: each code with its exact sentence, in both forms, and
// the next call works. The same sentences stand for every backend, because this file runs on each.

import { describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, isas, onEachIsa, refused } from "./backends.js";
import { sameBits } from "./compare.js";
import { normal, qkv } from "./random.js";

type Anything = Record<string, unknown>;

const [q, k, v] = qkv(1, { Lq: 12 });
const good = { lambda: 0.3 };

/**
 * A refused call: its code, its sentence (or how it begins and ends), and the call in both forms.
 */
interface Refusal {
  code: types.ErrorCode;
  sentence: string | RegExp;
  attention?: [unknown, unknown, unknown, Anything];
  groupNorm?: [unknown, Anything];
  rope?: [unknown, Anything];
}

const detached = { data: q.data.slice(), shape: q.shape };
structuredClone(detached.data, { transfer: [detached.data.buffer] });

const refusals: Record<string, Refusal> = {
  "shape and dims disagree": {
    code: "SHAPE",
    sentence: "q: expected shape and dims that agree, got [1, 4, 12, 16] and [1, 4, 16, 12]",
    attention: [{ ...q, dims: [1, 4, 16, 12] }, k, v, good],
  },
  "a length that is not the shape's": {
    code: "SHAPE",
    sentence: /^k: expected .*, got .*/,
    attention: [q, { ...k, shape: [1, 4, 13, 16] }, v, good],
  },
  "a rank": { code: "SHAPE", sentence: /^q: expected .*, got .*/, attention: [{ ...q, shape: [4, 12, 16] }, k, v, good] },
  "widths that differ": { code: "SHAPE", sentence: /^k: expected .*16.*, got .*8.*/, attention: [q, normal(1, 1, 4, 12, 8), v, good] },
  "head counts": { code: "SHAPE", sentence: /expected .*, got .*/, attention: [q, normal(1, 1, 3, 12, 16), v, good] },
  "a size that overflows": {
    code: "SHAPE",
    sentence: /^q: expected .*, got .*/,
    attention: [{ data: new Float32Array(0), shape: [2 ** 31, 2 ** 31, 2 ** 31, 16] }, k, v, good],
  },
  "a fraction as a size": {
    code: "SHAPE",
    sentence: /^q: expected .*, got .*/,
    attention: [{ ...q, shape: [1, 4, 11.5, 16] }, k, v, good],
  },
  "a detached buffer": { code: "SHAPE", sentence: /^q: expected .*, got .*detached.*/, attention: [detached, k, v, good] },
  "key lengths past Lk": {
    code: "SHAPE",
    sentence: /^keyLengths.*: expected .*12.*, got .*13.*/,
    attention: [q, k, v, { ...good, keyLengths: [13] }],
  },
  "key lengths below 0": {
    code: "SHAPE",
    sentence: /^keyLengths.*: expected .*, got .*-1.*/,
    attention: [q, k, v, { ...good, keyLengths: [-1] }],
  },
  "types that differ": {
    code: "DTYPE",
    sentence: /^k: expected .*float32.*, got .*float16.*/,
    attention: [q, { data: new Uint16Array(k.data.length), shape: k.shape, dtype: "float16" }, v, good],
  },
  "a Float64Array": {
    code: "DTYPE",
    sentence: "q: expected data in a Float32Array, a Float16Array, or a Uint16Array with a dtype, got a Float64Array",
    attention: [{ data: Float64Array.from(q.data), shape: q.shape }, k, v, good],
  },
  "no tensor": { code: "DTYPE", sentence: "v: expected a tensor { data, shape }, got 5", attention: [q, k, 5, good] },
  "a Uint16Array without its type": {
    code: "DTYPE",
    sentence: 'q: expected a dtype of "float16" or "bfloat16" with a Uint16Array, got none',
    attention: [{ data: new Uint16Array(q.data.length), shape: q.shape }, k, v, good],
  },
  "an unknown option": {
    code: "OPTION",
    sentence: /^options: expected only .*, got "lamda" \(did you mean lambda\?\)$/,
    attention: [q, k, v, { lamda: 0.3 }],
  },
  "lambda and coefficients": { code: "OPTION", sentence: /lambda.*coefficients/, attention: [q, k, v, { ...good, coefficients: [1, -1] }] },
  "neither of them": { code: "OPTION", sentence: /lambda.*coefficients/, attention: [q, k, v, {}] },
  "a ratio where there is none": { code: "OPTION", sentence: /^ratio: expected .*, got .*/, attention: [q, k, v, { ...good, ratio: 2 }] },
  "kvRepeat where there is none": {
    code: "OPTION",
    sentence: /^kvRepeat: expected .*, got .*/,
    attention: [q, k, v, { ...good, pairing: "halves", kvRepeat: "flat" }],
  },
  "softcap 0": { code: "OPTION", sentence: /^softcap: expected .*, got 0$/, attention: [q, k, v, { ...good, softcap: 0 }] },
  "softcap below 0": { code: "OPTION", sentence: /^softcap: expected .*, got -1$/, attention: [q, k, v, { ...good, softcap: -1 }] },
  "a negative window": {
    code: "OPTION",
    sentence: /^window.*: expected .*, got .*-1.*/,
    attention: [q, k, v, { ...good, window: [-1, 0] }],
  },
  "an unknown pairing": {
    code: "OPTION",
    sentence: 'pairing: expected "interleaved", "halves", "grouped" or "shared", got "thirds"',
    attention: [q, k, v, { ...good, pairing: "thirds" }],
  },
  "a wrong signal": { code: "OPTION", sentence: "signal: expected an AbortSignal, got 3", attention: [q, k, v, { ...good, signal: 3 }] },
  "a plan with three terms and no coefficients": {
    code: "OPTION",
    sentence: /coefficients.*: expected .*, got .*/,
    attention: [q, k, v, { heads: [{ q: [0, 1, 2], k: [0, 1, 2], v: [0] }] }],
  },
  "groups that do not divide": { code: "SHAPE", sentence: /expected .*, got .*/, groupNorm: [normal(1, 1, 4, 3), { numGroups: 3 }] },
  "a rotaryDim that is odd": { code: "SHAPE", sentence: /^rotaryDim: expected .*, got 7$/, rope: [q, { rotaryDim: 7 }] },
  "an unknown rope_type": { code: "OPTION", sentence: /rope_type: expected .*, got "ntk"$/, rope: [q, { scaling: { rope_type: "ntk" } }] },
};

/** The sentences of the first backend that ran in this process: the others must say the same. */
const sentences = new Map<string, string>();

const runs = ({ attention, groupNorm, rope }: Refusal): [() => Promise<unknown>, () => unknown] => {
  if (attention) {
    const [q, k, v, options] = attention as unknown as [types.TensorLike, types.TensorLike, types.TensorLike, types.DiffAttentionOptions];
    return [() => api.diffAttention(q, k, v, options), () => api.diffAttentionSync(q, k, v, options)];
  }
  if (groupNorm) {
    const [x, options] = groupNorm as unknown as [types.TensorLike, types.GroupNormOptions];
    return [() => api.groupNorm(x, options), () => api.groupNormSync(x, options)];
  }
  const [x, options] = rope as unknown as [types.TensorLike, types.RopeOptions];
  return [() => api.applyRope(x, options), () => api.applyRopeSync(x, options)];
};

const matches = (error: types.DiffAttnError, { code, sentence }: Refusal): void => {
  expect(error.code).toBe(code);
  expect(error.name).toBe("DiffAttnError");
  if (typeof sentence === "string") expect(error.message).toBe(sentence);
  else expect(error.message).toMatch(sentence);
};

const works = async (): Promise<void> => {
  sameBits(await api.diffAttention(q, k, v, good), api.diffAttentionSync(q, k, v, good));
};

onEachIsa(() => {
  test.each(Object.entries(refusals))("%s", async (name, refusal) => {
    const [run, runSync] = runs(refusal);
    const sync = await refused(runSync);
    matches(sync, refusal);
    const error = await refused(run);
    matches(error, refusal);
    expect(error.message).toBe(sync.message);
    expect(error.message).toBe(sentences.get(name) ?? error.message);
    sentences.set(name, error.message);
    await works();
  });

  test("OPTION: onProgress in a sync form", async () => {
    const error = await refused(() => api.diffAttentionSync(q, k, v, { ...good, onProgress: () => {} }));
    expect(error).toMatchObject({ code: "OPTION", message: "onProgress: expected none in a sync form, got a function" });
    await works();
  });

  test("OPTION: threads below 1", async () => {
    const sentence = { code: "OPTION", message: "threads: expected an integer of 1 or more, got 0" };
    expect(await refused(() => api.setThreads(0))).toMatchObject(sentence);
    expect(await refused(() => api.init({ threads: 0 }))).toMatchObject(sentence);
    await works();
  });

  test("more threads than there are units of work: calls use fewer, and what was asked for is told", async () => {
    const before = api.getThreads();
    api.setThreads(2 ** 53);
    await works();
    // (A WASM pool grows only by init.)
    expect(api.getThreads()).toBeGreaterThanOrEqual(backend === "native" ? 2 ** 53 : 1);
    api.setThreads(before);
  });

  test("OUT_OF_MEMORY names the bytes, and the instance stays usable", async () => {
    // More than a 32-bit memory and more than a machine has.
    const error = await refused(() => api.createTensor([2 ** 46]));
    expect(error).toMatchObject({ code: "OUT_OF_MEMORY", message: `memory: expected ${2 ** 48} more bytes, got a refusal` });
    await works();
  });

  test("SHAPE: a cache that is rewound past its length", async () => {
    const cache = new api.KvCache({ groups: 2, headDim: 16, valueDim: 32 });
    cache.append(k, v);
    const sentence = { code: "SHAPE", message: "length: expected at most 12, the tokens held, got 13" };
    expect(await refused(() => cache.rewind(13))).toMatchObject(sentence);
    sameBits(await api.diffAttention(q, cache, null, good), api.diffAttentionSync(q, k, v, good));
    // The worker of WASM holds it now: the same sentence.
    expect(await refused(() => cache.rewind(13))).toMatchObject(sentence);
    expect((await refused(() => cache.append(normal(1, 1, 4, 3, 8), v))).code).toBe("SHAPE");
    expect(cache.length).toBe(12);
    cache.dispose();
    await works();
  });
});

describe("UNAVAILABLE", () => {
  test("an instruction set that is not to be had", async () => {
    const missing = process.arch === "arm64" ? "avx2" : "neon";
    const error = await refused(() => api.init({ backend: "native", isa: missing }));
    expect(error.code).toBe("UNAVAILABLE");
    expect(error.message).toMatch(new RegExp(`^isa: expected .*, got .*${missing}`));
    expect((await refused(() => api.init({ backend: "wasm", isa: "avx2" }))).code).toBe("UNAVAILABLE");
    expect((await refused(() => api.init({ backend: "wasm", isa: "simd128", wasm: new TextEncoder().encode("<html>") }))).message).toBe(
      "wasm: expected a WebAssembly file, got an HTML page from the bytes given",
    );
    // Files: none, and what is no regular one (where there is such), which must not be waited for.
    for (const [path, why] of [
      ["/nowhere/at/all.wasm", "ENOENT.*"],
      ["/dev/null", "no regular file|ENOENT.*"],
    ] as const) {
      const wasm = new URL(`file://${path}`);
      const refusal = await refused(() => api.init({ backend: "wasm", isa: "simd128", wasm }));
      expect(refusal.code).toBe("UNAVAILABLE");
      expect(refusal.message).toMatch(new RegExp(`^wasm: expected a WebAssembly file, got (${why}) from ${wasm.href}$`));
    }
    await api.init({ backend, isa: isas[0] });
    await works();
  });
  test("objects of a backend that ended", async () => {
    const cache = new api.KvCache({ groups: 2, headDim: 16, valueDim: 32 });
    api.dispose();
    const error = await refused(() => cache.append(k, v));
    expect(error).toMatchObject({
      code: "UNAVAILABLE",
      message: "cache: expected an object of a live instance, got one of an instance that ended",
    });
    await works();
    api.dispose();
  });
});

describe("the same sentence on native and WASM", () => {
  test.each(Object.entries(refusals))("%s", async (_, refusal) => {
    const [, runSync] = runs(refusal);
    await api.init({ backend: "native", isa: "scalar" });
    const native = await refused(runSync);
    await api.init({ backend: "wasm", isa: "simd128" });
    const wasm = await refused(runSync);
    expect([wasm.code, wasm.message]).toEqual([native.code, native.message]);
    api.dispose();
  });
});
