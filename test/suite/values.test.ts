// The table "Values" of the numeric contract, row by row, on every instruction set.

import { describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, onEachIsa } from "./backends.js";
import { sameBits, values, within } from "./compare.js";
import { normal, qkv } from "./random.js";
import { attentionFloat64 } from "./reference.js";

type Options = types.DiffAttentionOptions;

const copy = <T extends { data: Float32Array<ArrayBuffer>; shape: number[] }>(x: T): T => ({ ...x, data: x.data.slice() });
/** Element ranges of one row of a result `[B, H, L, width]`. */
const row = (y: types.Tensor, head: number, i: number): Float32Array => {
  const [, , L = 0, width = 0] = y.shape;
  return y.data.subarray((head * L + i) * width, (head * L + i + 1) * width);
};
const zeros = (x: Float32Array): boolean => x.every((value) => value === 0);
const nan = (x: Float32Array): boolean => x.every(Number.isNaN);
const finite = (x: Float32Array): boolean => x.every(Number.isFinite);

onEachIsa(() => {
  describe("which keys a row sees", () => {
    const close = (q: types.TensorLike, k: types.TensorLike, v: types.TensorLike, options: Options): void => {
      const expected = attentionFloat64(q, k, v, options);
      within(values(api.diffAttentionSync(q, k, v, options)), expected, () => 4e-6);
    };
    for (const [Lq, Lk] of [
      [40, 40],
      [7, 45],
      [45, 7],
    ] as const) {
      const [q, k, v] = qkv(1, { Lq, Lk });
      test(`causal is bottom-right by default, ${Lq} queries and ${Lk} keys`, () => close(q, k, v, { lambda: 0.3, isCausal: true }));
      for (const queryOffset of [0, 3, -4, -100, 100]) {
        test(`offset ${queryOffset}, ${Lq} queries and ${Lk} keys`, () => close(q, k, v, { lambda: 0.3, isCausal: true, queryOffset }));
      }
      test(`windows, ${Lq} queries and ${Lk} keys`, () => {
        for (const window of [
          [3, 2],
          [0, 0],
          [null, 1],
          [1, null],
          [null, null],
        ] as const)
          close(q, k, v, { lambda: 0.3, window });
        close(q, k, v, { lambda: 0.3, window: [5, 0], isCausal: true, queryOffset: -2 });
      });
    }
    test("the default offset counts padded keys, never a key length", () => {
      const [q, k, v] = qkv(2, { Lq: 5, Lk: 20 });
      const options = { lambda: 0.3, isCausal: true, keyLengths: [9] };
      close(q, k, v, options);
      sameBits(api.diffAttentionSync(q, k, v, { ...options, queryOffset: 15 }), api.diffAttentionSync(q, k, v, options));
    });
  });

  describe("a row that sees no key is zeros, also where its λ is NaN", () => {
    const [q, k, v] = qkv(3, { Lq: 9, Lk: 9 });
    const nothing: [string, Options][] = [
      ["mask", { attnMask: { data: new Uint8Array(81).map((_, i) => (i < 9 ? 0 : 1)), shape: [1, 1, 9, 9] } }],
      ["window", { window: [0, 0], queryOffset: -1 }],
      ["offset", { isCausal: true, queryOffset: -1 }],
      ["bias", { attnBias: { data: new Float32Array(81).map((_, i) => (i < 9 ? -Infinity : 0)), shape: [1, 1, 9, 9] } }],
    ];
    const lambda = { data: new Float32Array(18).fill(0.3), shape: [1, 9, 2] };
    lambda.data[0] = lambda.data[1] = NaN;
    for (const norm of [undefined, { eps: 0 }, { weight: new Float32Array(32).fill(2), scale: 0.5 }]) {
      test.each(nothing)(`by %s, norm ${JSON.stringify(norm)}`, (_, options) => {
        const y = api.diffAttentionSync(q, k, v, { lambda, norm, ...options });
        for (const head of [0, 1]) {
          expect(zeros(row(y, head, 0))).toBe(true);
          expect(zeros(row(y, head, 1))).toBe(false);
          expect(finite(row(y, head, 1))).toBe(true);
        }
      });
    }
    test.each(nothing)("its maps, by %s", (_, options) => {
      const maps = api.diffAttentionMapsSync(q, k, { lambda, ...options });
      for (const map of [maps.map1, maps.map2, maps.diff]) {
        expect(map && zeros(row(map, 0, 0))).toBe(true);
        expect(map && zeros(row(map, 1, 1))).toBe(false);
      }
    });
    test("its log-sum-exp is −Infinity", () => {
      const { lse } = api.diffAttentionSync(q, k, v, { lambda: 0.3, isCausal: true, queryOffset: -1, returnLse: true });
      expect(lse.shape).toEqual([1, 2, 2, 9]);
      for (let i = 0; i < 36; i++) expect(lse.data[i] === -Infinity).toBe(i % 9 === 0);
    });
    test("key length 0", () => {
      expect(zeros(api.diffAttentionSync(q, k, v, { lambda: 0.3, keyLengths: [0] }).data)).toBe(true);
    });
    test("no keys at all", () => {
      const [, k0, v0] = qkv(3, { Lq: 9, Lk: 0 });
      const y = api.diffAttentionSync(q, k0, v0, { lambda: 0.3, norm: {} });
      expect(y.shape).toEqual([1, 2, 9, 32]);
      expect(zeros(y.data)).toBe(true);
    });
  });

  test("no queries or no batch entries give an empty result", async () => {
    for (const sizes of [{ Lq: 0, Lk: 5 }, { B: 0 }, { B: 0, Lq: 0, Lk: 0 }]) {
      const [q, k, v] = qkv(4, sizes);
      for (const y of [api.diffAttentionSync(q, k, v, { lambda: 0.3 }), await api.diffAttention(q, k, v, { lambda: 0.3 })]) {
        expect(y.data.length).toBe(0);
        expect(y.shape).toEqual([q.shape[0], 2, q.shape[2], 32]);
      }
    }
    expect(api.groupNormSync(normal(1, 0, 4, 3), { numGroups: 2 }).shape).toEqual([0, 4, 3]);
    expect(api.rmsNormSync(normal(1, 0, 4)).shape).toEqual([0, 4]);
    expect(api.applyRopeSync(normal(1, 1, 2, 0, 4)).shape).toEqual([1, 2, 0, 4]);
    expect(api.sequenceDifferenceSync(normal(1, 1, 2, 0, 4)).shape).toEqual([1, 2, 0, 4]);
  });

  describe("NaN and infinity", () => {
    const sizes = { Lq: 60, Lk: 60 };
    test("scores that are NaN or +Infinity: NaN in exactly the rows that see them", () => {
      for (const poison of [NaN, Infinity]) {
        const [q, k, v] = qkv(5, sizes);
        const clean = api.diffAttentionSync(q, k, v, { lambda: 0.3, isCausal: true });
        const bias = { data: new Float32Array(3600), shape: [1, 1, 60, 60] };
        bias.data[20 * 60 + 7] = poison;
        const y = api.diffAttentionSync(q, k, v, { lambda: 0.3, isCausal: true, attnBias: bias });
        const noBias = api.diffAttentionSync(q, k, v, {
          lambda: 0.3,
          isCausal: true,
          attnBias: { data: new Float32Array(3600), shape: bias.shape },
        });
        for (const head of [0, 1]) {
          for (let i = 0; i < 60; i++) {
            if (i === 20) expect(nan(row(y, head, i))).toBe(true);
            else expect(row(y, head, i)).toEqual(row(noBias, head, i));
          }
        }
        const bad = copy(k);
        bad.data[30 * 16] = NaN;
        const z = api.diffAttentionSync(q, bad, v, { lambda: 0.3, isCausal: true });
        for (let i = 0; i < 60; i++) {
          if (i >= 30) expect(nan(row(z, 0, i))).toBe(true);
          else expect(row(z, 0, i)).toEqual(row(clean, 0, i));
          expect(row(z, 1, i)).toEqual(row(clean, 1, i));
        }
        const badQ = copy(q);
        badQ.data[11 * 16 + 3] = NaN;
        const w = api.diffAttentionSync(badQ, k, v, { lambda: 0.3, isCausal: true });
        for (let i = 0; i < 60; i++) expect(nan(row(w, 0, i))).toBe(i === 11);
      }
    });
    test("a visible v: that channel of the rows that see it, all channels after a norm", () => {
      for (const poison of [NaN, Infinity, -Infinity]) {
        const [q, k, v] = qkv(6, sizes);
        v.data[25 * 32 + 5] = poison;
        const y = api.diffAttentionSync(q, k, v, { lambda: 0.3, isCausal: true });
        const normed = api.diffAttentionSync(q, k, v, { lambda: 0.3, isCausal: true, norm: {} });
        for (let i = 0; i < 60; i++) {
          row(y, 0, i).forEach((value, c) => expect(Number.isFinite(value)).toBe(i < 25 || c !== 5));
          expect(row(normed, 0, i).every((value) => !Number.isFinite(value) || (value === 0 && !Number.isNaN(poison)))).toBe(i >= 25);
        }
      }
    });
    test("hidden k and v: the bits of zeros in their places", () => {
      for (const hidden of [
        { keyLengths: [41] },
        { isCausal: true, queryOffset: -19 },
        { window: [5, 3] as const, queryOffset: -25 },
      ] satisfies Options[]) {
        const [q, k, v] = qkv(7, sizes);
        const from = "keyLengths" in hidden ? 41 : "isCausal" in hidden ? 41 : 38;
        const [zeroK, zeroV, badK, badV] = [copy(k), copy(v), copy(k), copy(v)];
        for (let head = 0; head < 4; head++) {
          zeroK.data.fill(0, (head * 60 + from) * 16, (head + 1) * 60 * 16);
          badK.data.fill(NaN, (head * 60 + from) * 16, (head + 1) * 60 * 16);
        }
        for (let head = 0; head < 2; head++) {
          zeroV.data.fill(0, (head * 60 + from) * 32, (head + 1) * 60 * 32);
          badV.data.fill(Infinity, (head * 60 + from) * 32, (head + 1) * 60 * 32);
        }
        const options = { lambda: 0.3, ...hidden, returnLse: true as const };
        const [clean, bad] = [api.diffAttentionSync(q, zeroK, zeroV, options), api.diffAttentionSync(q, badK, badV, options)];
        sameBits(bad, clean);
        sameBits(bad.lse, clean.lse);
        expect(finite(bad.data)).toBe(true);
      }
    });
    test("k and v hidden by a mask inside a tile", () => {
      const [q, k, v] = qkv(8, { Lq: 20, Lk: 20 });
      const attnMask = { data: new Uint8Array(400).map((_, i) => (i % 20 === 6 ? 0 : 255)), shape: [1, 1, 20, 20] };
      const [zeroK, zeroV] = [copy(k), copy(v)];
      for (let head = 0; head < 4; head++) k.data.fill(Infinity, (head * 20 + 6) * 16, (head * 20 + 7) * 16);
      for (let head = 0; head < 4; head++) zeroK.data.fill(0, (head * 20 + 6) * 16, (head * 20 + 7) * 16);
      for (let head = 0; head < 2; head++) v.data.fill(NaN, (head * 20 + 6) * 32, (head * 20 + 7) * 32);
      for (let head = 0; head < 2; head++) zeroV.data.fill(0, (head * 20 + 6) * 32, (head * 20 + 7) * 32);
      sameBits(
        api.diffAttentionSync(q, k, v, { lambda: 0.3, attnMask }),
        api.diffAttentionSync(q, zeroK, zeroV, { lambda: 0.3, attnMask }),
      );
    });
  });

  describe("scores", () => {
    test("only −Infinity masks: a row of the lowest float is uniform", () => {
      const [q, k, v] = qkv(9, { Lq: 4, Lk: 50 });
      const attnBias = { data: new Float32Array(200).fill(-3.4028234663852886e38), shape: [1, 1, 4, 50] };
      // One term, because two uniform maps cancel.
      const plan = [{ q: [0], k: [0], v: [0] }];
      const y = api.diffAttentionSync(q, k, v, { heads: plan, attnBias });
      for (let c = 0; c < 32; c++) {
        let mean = 0;
        for (let j = 0; j < 50; j++) mean += (v.data[j * 32 + c] ?? NaN) / 50;
        for (let i = 0; i < 4; i++) expect(row(y, 0, i)[c]).toBeCloseTo(mean, 5);
      }
    });
    test("scores whose exponential overflows are exact", () => {
      const [q, k, v] = qkv(10, { Lq: 30 });
      const options = { lambda: 0.3, scale: 200 };
      const y = api.diffAttentionSync(q, k, v, options);
      expect(finite(y.data)).toBe(true);
      // Scores near 1e4 carry a rounding of 1e4·2⁻²⁴.
      within(values(y), attentionFloat64(q, k, v, options), () => 2e-2);
    });
    test("softcap comes before bias and mask", () => {
      const [q, k, v] = qkv(11, { Lq: 30 });
      const attnBias = normal(12, 1, 2, 30, 30);
      attnBias.data.forEach((value, i) => (attnBias.data[i] = 8 * value));
      const attnMask = { data: new Uint8Array(900).map((_, i) => (i * 7) % 3), shape: [1, 1, 30, 30] };
      const options = { lambda: 0.3, softcap: 1.5, attnBias, attnMask };
      within(values(api.diffAttentionSync(q, k, v, options)), attentionFloat64(q, k, v, options), () => 4e-6);
    });
    test("any non-zero byte of a mask takes part", () => {
      const [q, k, v] = qkv(13, { Lq: 20 });
      const one = { data: new Uint8Array(400).map((_, i) => (i % 3 ? 1 : 0)), shape: [1, 1, 20, 20] };
      const any = { data: one.data.map((x, i) => x * (1 + (i % 255))), shape: one.shape };
      sameBits(
        api.diffAttentionSync(q, k, v, { lambda: 0.3, attnMask: any }),
        api.diffAttentionSync(q, k, v, { lambda: 0.3, attnMask: one }),
      );
    });
  });

  test("a zero row through a norm with eps 0 is zeros", () => {
    const [q, k] = qkv(14);
    const v = { data: new Float32Array(2 * 40 * 32), shape: [1, 2, 40, 32] };
    expect(zeros(api.diffAttentionSync(q, k, v, { lambda: 0.3, norm: { eps: 0 } }).data)).toBe(true);
    expect(zeros(api.rmsNormSync({ data: new Float32Array(24), shape: [3, 8] }, { eps: 0 }).data)).toBe(true);
    expect(zeros(api.groupNormSync({ data: new Float32Array(24), shape: [1, 4, 6] }, { numGroups: 2, eps: 0 }).data)).toBe(true);
  });

  test("inputs are never written", async () => {
    const [q, k, v] = qkv(15);
    const before = [q, k, v].map(copy);
    const options = { lambda: 0.3, isCausal: true, norm: {} };
    api.diffAttentionSync(q, k, v, options);
    await api.diffAttention(q, k, v, options);
    await api.diffAttentionMaps(q, k, { lambda: 0.3 });
    api.applyRopeSync(q);
    api.sequenceDifferenceSync(q);
    api.groupNormSync(q, { numGroups: 2 });
    api.rmsNormSync(q);
    expect([q, k, v]).toEqual(before);
  });

  test("the floating-point state of the thread is unchanged: subnormals and rounding", () => {
    const probe = (): number[] => [5e-324 * 1, Math.fround(2 ** -149), 1 + 2 ** -53, 2 ** -1022 / 2, Math.fround(1 + 2 ** -25)];
    const before = probe();
    const [q, k, v] = qkv(16);
    api.diffAttentionSync(q, k, v, { lambda: 0.3 });
    api.groupNormSync(q, { numGroups: 2 });
    expect(probe()).toEqual(before);
    // The same of ours: subnormal results are kept.
    const tiny = { data: new Float32Array(8).fill(2 ** -140), shape: [1, 1, 8, 1] };
    expect(api.sequenceDifferenceSync(tiny).data[0]).toBe(2 ** -140);
  });
});
