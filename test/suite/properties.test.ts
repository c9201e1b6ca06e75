// Random calls: this backend against float64 loops, its async form and the deterministic bits of
// native scalar.

import * as fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, isas } from "./backends.js";
import { largest, sameBits, values, within } from "./compare.js";
import { normal, qkv, uniform } from "./random.js";
import { attentionFloat64 } from "./reference.js";

/** Around the edges of every tile, and in between. */
const width = fc.oneof(fc.constantFrom(1, 3, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65, 111, 128, 130), fc.integer({ min: 1, max: 130 }));
const length = fc.oneof(
  fc.constantFrom(1, 2, 7, 8, 9, 11, 12, 13, 16, 17, 47, 48, 49, 96, 97, 255, 256, 257),
  fc.integer({ min: 1, max: 150 }),
);
const maybe = <T>(x: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(x, { nil: undefined });

const call = fc.record({
  seed: fc.nat(1e6),
  B: fc.integer({ min: 1, max: 2 }),
  G: fc.integer({ min: 1, max: 2 }),
  rep: fc.integer({ min: 1, max: 2 }),
  Lq: length,
  Lk: length,
  d: width,
  dv: width,
  isCausal: fc.boolean(),
  window: maybe(fc.tuple(fc.option(fc.nat(80)), fc.option(fc.nat(80)))),
  queryOffset: maybe(fc.integer({ min: -20, max: 80 })),
  softcap: maybe(fc.double({ min: 0.5, max: 30, noNaN: true })),
  lengths: fc.boolean(),
  masked: fc.boolean(),
  biased: fc.boolean(),
  tokens: fc.boolean(),
  bshd: fc.boolean(),
});

/** `[B, heads, L, width]` as `[B, L, heads, width]`, and back. */
function swapped({ data, shape }: { data: Float32Array; shape: readonly number[] }): { data: Float32Array<ArrayBuffer>; shape: number[] } {
  const [B = 0, X = 0, Y = 0, width = 0] = shape;
  const out = new Float32Array(data.length);
  for (let b = 0; b < B; b++)
    for (let x = 0; x < X; x++)
      for (let y = 0; y < Y; y++)
        out.set(data.subarray(((b * X + x) * Y + y) * width, ((b * X + x) * Y + y + 1) * width), ((b * Y + y) * X + x) * width);
  return { data: out, shape: [B, Y, X, width] };
}

afterAll(() => api.dispose());

test("attention", { timeout: 300_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(call, async ({ seed, B, G, rep, Lq, Lk, d, dv, lengths, masked, biased, tokens, bshd, ...plain }) => {
      const H = G * rep;
      const inputs = qkv(seed, { B, H, G, Lq, Lk, d, dv });
      const next = uniform(seed);
      const options: types.DiffAttentionOptions = {
        ...plain,
        lambda: tokens ? { data: normal(seed, B, Lq, H).data, shape: [B, Lq, H] } : 0.4,
        keyLengths: lengths ? Array.from({ length: B }, () => Math.floor(next() * (Lk + 1))) : undefined,
        attnMask: masked ? { data: Uint8Array.from({ length: Lq * Lk }, () => (next() < 0.7 ? 1 : 0)), shape: [1, 1, Lq, Lk] } : undefined,
        attnBias: biased ? normal(seed + 9, 1, H, 1, Lk) : undefined,
      };
      const expected = attentionFloat64(...inputs, options);
      await api.init({ backend: "native", isa: "scalar" });
      const scalar = api.diffAttentionSync(...inputs, { ...options, deterministic: true });
      for (const isa of isas) {
        await api.init({ backend, isa });
        const sync = api.diffAttentionSync(...inputs, options);
        // Scores of these sizes carry a few roundings; v is near 1.
        within(values(sync), expected, () => 3e-6 * Math.max(1, largest(inputs[2].data)));
        sameBits(await api.diffAttention(...inputs, options), sync);
        sameBits(api.diffAttentionSync(...inputs, { ...options, deterministic: true }), scalar);
        if (bshd) {
          const [q, k, v] = inputs.map(swapped) as unknown as [types.TensorLike, types.TensorLike, types.TensorLike];
          const other = api.diffAttentionSync(q, k, v, { ...options, layout: "bshd" }) as types.Tensor;
          expect(other.shape).toEqual([B, Lq, H, dv]);
          sameBits({ data: swapped(other).data, dtype: "float32" }, sync);
        }
      }
    }),
    { numRuns: 15 },
  );
});

test("norms and positions", { timeout: 300_000 }, async () => {
  const shape = fc.record({
    seed: fc.nat(1e6),
    N: fc.integer({ min: 1, max: 3 }),
    groups: fc.integer({ min: 1, max: 5 }),
    per: fc.integer({ min: 1, max: 9 }),
    inner: length,
  });
  await fc.assert(
    fc.asyncProperty(shape, async ({ seed, N, groups, per, inner }) => {
      const C = groups * per;
      const x = normal(seed, N, C, inner);
      const expected = new Float64Array(x.data.length);
      const size = per * inner;
      for (let at = 0; at < expected.length; at += size) {
        const group = Float64Array.from(x.data.subarray(at, at + size));
        const mean = group.reduce((a, b) => a + b, 0) / size;
        const variance = group.reduce((a, b) => a + (b - mean) ** 2, 0) / size;
        group.forEach((value, i) => (expected[at + i] = (value - mean) / Math.sqrt(variance + 1e-5)));
      }
      const turned = normal(seed, 1, N, inner, 2 * per);
      await api.init({ backend: "native", isa: "scalar" });
      const scalar = [
        api.groupNormSync(x, { numGroups: groups }),
        api.rmsNormSync(x),
        api.applyRopeSync(turned),
        api.sequenceDifferenceSync(turned),
      ] as const;
      for (const isa of isas) {
        await api.init({ backend, isa });
        const y = api.groupNormSync(x, { numGroups: groups });
        within(values(y), expected, (want) => 5e-7 * Math.max(1, Math.abs(want)));
        // Norms do not fuse: one set of bits everywhere.
        sameBits(y, scalar[0]);
        sameBits(await api.groupNorm(x, { numGroups: groups }), y);
        sameBits(await api.rmsNorm(x), scalar[1]);
        within(values(await api.applyRope(turned)), values(scalar[2]), () => 1e-6 * largest(turned.data));
        sameBits(await api.sequenceDifference(turned), scalar[3]);
      }
    }),
    { numRuns: 15 },
  );
});
