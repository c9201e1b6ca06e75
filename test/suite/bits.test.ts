// The table "Bits" of the numeric contract: what must not change a bit, and which instruction sets
// share their bits.

import { afterAll, describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, isas, isNative, onEachIsa } from "./backends.js";
import { sameBits } from "./compare.js";
import { bitsBetweenIsas } from "./isa-bits.js";
import { normal, part, qkv } from "./random.js";

/** A fixed set of calls that meets every operator. */
function fixedSet(deterministic: boolean): types.Tensor[] {
  const results: types.Tensor[] = [];
  for (const [seed, sizes] of [
    [100, { B: 2, H: 4, G: 2, Lq: 70, Lk: 300, d: 33 }],
    [200, { Lq: 300, d: 64 }],
    [300, { Lq: 1, Lk: 520, d: 64 }],
    [400, { Lq: 50, d: 7, dv: 3 }],
  ] as const) {
    const [q, k, v] = qkv(seed, sizes);
    const options = { lambda: 0.35, isCausal: true, deterministic };
    const y = api.diffAttentionSync(q, k, v, { ...options, returnLse: true });
    results.push(y, y.lse);
    results.push(api.diffAttentionSync(q, k, v, { ...options, norm: {}, softcap: 3, window: [40, 0] }));
    const maps = api.diffAttentionMapsSync(q, k, options);
    results.push(maps.diff);
  }
  const x = normal(7, 2, 12, 11, 5);
  results.push(
    api.groupNormSync(x, { numGroups: 4, activation: "silu" }),
    api.rmsNormSync(x),
    api.applyRopeSync(normal(8, 1, 2, 40, 32), { firstPosition: 1000 }),
  );
  results.push(api.sequenceDifferenceSync(x, { order: 3 }));
  return results;
}

bitsBetweenIsas(fixedSet);

describe("between instruction sets", () => {
  afterAll(() => api.dispose());
  test("async calls too: deterministic has the bits of native scalar", async () => {
    const [q, k, v] = qkv(500, { H: 4, Lq: 300, d: 48 });
    const options = { lambda: 0.2, isCausal: true, deterministic: true };
    await api.init({ backend: "native", isa: "scalar" });
    const expected = api.diffAttentionSync(q, k, v, options);
    for (const isa of isas) {
      await api.init({ backend, isa });
      sameBits(await api.diffAttention(q, k, v, options), expected);
    }
  });
});

onEachIsa((isa) => {
  const options = { lambda: 0.35, isCausal: true };

  test("thread count: 1, 2, 3, 7, 16", async () => {
    const [q, k, v] = qkv(1, { B: 2, H: 3, Lq: 150, Lk: 700, d: 40 });
    const [q1, k1, v1] = qkv(2, { H: 1, Lq: 1, Lk: 3000, d: 64 });
    const x = normal(3, 2, 32, 40, 40);
    const expected = [
      api.diffAttentionSync(q, k, v, options),
      api.diffAttentionSync(q1, k1, v1, options),
      api.groupNormSync(x, { numGroups: 8 }),
    ] as const;
    for (const threads of [1, 2, 3, 7, 16]) {
      await api.init({ backend, isa, threads });
      if (isNative || isa === "relaxed-simd+threads") expect(api.info().threads).toBe(threads);
      sameBits(await api.diffAttention(q, k, v, options), expected[0]);
      sameBits(await api.diffAttention(q1, k1, v1, options), expected[1]);
      sameBits(await api.groupNorm(x, { numGroups: 8 }), expected[2]);
      sameBits(api.diffAttentionSync(q, k, v, options), expected[0]);
    }
    await api.init({ backend, isa, threads: 2 });
  });

  test("batch: an entry alone has the bits it has among others", () => {
    const [q, k, v] = qkv(4, { B: 3, Lq: 55, Lk: 300 });
    const all = api.diffAttentionSync(q, k, v, options);
    const size = all.data.length / 3;
    for (let b = 0; b < 3; b++) {
      const [qb, kb, vb] = [q, k, v].map((x) => part(x, [b, b + 1], [0, x.shape[2] ?? 0])) as [typeof q, typeof q, typeof q];
      sameBits(api.diffAttentionSync(qb, kb, vb, options), { data: all.data.slice(b * size, (b + 1) * size), dtype: "float32" });
    }
  });

  test("queries: any number at once gives the same rows", () => {
    const [q, k, v] = qkv(5, { H: 1, Lq: 60, Lk: 600, d: 64 });
    const all = api.diffAttentionSync(q, k, v, options);
    for (const [from, to] of [
      [0, 1],
      [3, 9],
      [10, 27],
      [12, 60],
      [59, 60],
    ] as const) {
      const some = api.diffAttentionSync(part(q, [0, 1], [from, to]), k, v, { ...options, queryOffset: 540 + from });
      sameBits(some, { data: all.data.slice(from * 128, to * 128), dtype: "float32" });
      const maps = api.diffAttentionMapsSync(q, k, { ...options, rows: [from, to] });
      const whole = api.diffAttentionMapsSync(q, k, options);
      sameBits(maps.diff, { data: whole.diff.data.slice(from * 600, to * 600), dtype: "float32" });
    }
  });

  test("masked keys: more of them change nothing", () => {
    const [q, k, v] = qkv(6, { H: 1, Lq: 30, Lk: 400 });
    const short = api.diffAttentionSync(q, part(k, [0, 1], [0, 310]), part(v, [0, 1], [0, 310]), { lambda: 0.3 });
    sameBits(api.diffAttentionSync(q, k, v, { lambda: 0.3, keyLengths: [310] }), short);
  });

  test("packed sequences equal each sequence alone", () => {
    const lengths = [5, 300, 0, 61, 1];
    const cu = Int32Array.from([0, ...lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b, 0))]);
    const [q, k, v] = qkv(7, { Lq: 367 });
    const packed = api.diffAttentionSync(q, k, v, { ...options, cuSeqlensQ: cu, cuSeqlensK: cu });
    lengths.forEach((_, n) => {
      const rows: [number, number] = [cu[n] ?? 0, cu[n + 1] ?? 0];
      const [qn, kn, vn] = [q, k, v].map((x) => part(x, [0, 1], rows)) as [typeof q, typeof q, typeof q];
      sameBits(api.diffAttentionSync(qn, kn, vn, options), { data: part(packed as never, [0, 1], rows).data, dtype: "float32" });
    });
  });

  test("decoding token by token from a cache equals the prefill", async () => {
    const L = 330;
    const [q, k, v] = qkv(8, { H: 4, G: 2, Lq: L, d: 32 });
    const prefill = api.diffAttentionSync(q, k, v, options);
    const rowsOf = (from: number, to: number): { data: Float32Array; dtype: "float32" } => ({
      data: part(prefill as never, [0, 1], [from, to]).data,
      dtype: "float32",
    });
    const cache = new api.KvCache({ groups: 2, headDim: 32, valueDim: 64 });
    for (const [from, to] of [
      [0, 290],
      [290, 291],
      [291, 292],
      [292, 300],
      [300, 301],
      [301, 330],
    ] as const) {
      cache.append(part(k, [0, 1], [from, to]), part(v, [0, 1], [from, to]));
      expect(cache.length).toBe(to);
      sameBits(api.diffAttentionSync(part(q, [0, 1], [from, to]), cache, null, options), rowsOf(from, to));
    }
    cache.rewind(300);
    cache.append(part(k, [0, 1], [300, 302]), part(v, [0, 1], [300, 302]));
    sameBits(await api.diffAttention(part(q, [0, 1], [300, 302]), cache, null, options), rowsOf(300, 302));
    cache.append(part(k, [0, 1], [302, 330]), part(v, [0, 1], [302, 330]));
    expect(cache.length).toBe(330);
    sameBits(await api.diffAttention(part(q, [0, 1], [329, 330]), cache, null, options), rowsOf(329, 330));
    cache.dispose();
  });

  test("a result in caller's or backend's memory has the same bits", async () => {
    const [q, k, v] = qkv(9);
    const expected = api.diffAttentionSync(q, k, v, options);
    const held = [q, k, v].map((x) => {
      const tensor = api.createTensor(x.shape);
      tensor.data.set(x.data);
      return tensor;
    }) as [types.BackendTensor<Float32Array>, types.BackendTensor<Float32Array>, types.BackendTensor<Float32Array>];
    const result = api.createTensor(expected.shape);
    sameBits(api.diffAttentionSync(...held, { ...options, out: result.data }), expected);
    sameBits(result, expected);
    result.data.fill(0);
    sameBits(await api.diffAttention(...held, { ...options, out: result.data }), expected);
    sameBits(result, expected);
    for (const tensor of [...held, result]) tensor.dispose();
  });
});
