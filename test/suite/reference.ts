// Attention in float64 with plain loops, pairing "interleaved" and layout "bhsd", written from the
// formulas alone: the oracle of property tests in JavaScript. No speed, no checks, none of the
// package's code.

import type * as types from "../../packages/diffattn/src/types.js";

type Options = Omit<types.DiffAttentionOptions, "window"> & { window?: readonly (number | null)[] | null | undefined };

/** A broadcast element of `[B|1, H|1, Lq|1, Lk]`. */
function at(
  x: types.MaskLike | types.TensorLike<Float32Array> | undefined,
  b: number,
  h: number,
  i: number,
  j: number,
  otherwise: number,
): number {
  if (!x) return otherwise;
  const [B = 1, H = 1, Lq = 1, Lk = 1] = x.shape ?? [];
  return x.data[(((B === 1 ? 0 : b) * H + (H === 1 ? 0 : h)) * Lq + (Lq === 1 ? 0 : i)) * Lk + j] ?? NaN;
}

/** λ of an output row. */
function lambdaAt(lambda: Options["lambda"], b: number, h: number, i: number): number {
  if (typeof lambda === "number") return Math.fround(lambda);
  if (lambda instanceof Float32Array) return lambda[h] ?? NaN;
  if (!lambda) return 1;
  const shape = lambda.shape ?? [];
  if (shape.length === 1) return lambda.data[h] ?? NaN;
  const [B = 1, L = 1, H = 1] = shape;
  return lambda.data[((B === 1 ? 0 : b) * L + (L === 1 ? 0 : i)) * H + h] ?? NaN;
}

/** The logit of nothing of a head's term; −Infinity where there is none. */
function sinkAt(sinks: Options["sinks"], h: number, t: number, T: number): number {
  if (!sinks) return -Infinity;
  const [data, rank] = sinks instanceof Float32Array ? [sinks, 1] : [sinks.data, sinks.shape?.length];
  return data[rank === 2 ? h * T + t : h] ?? NaN;
}

/** Queries, and keys, of a block of a block mask. */
const BLOCK = 64;

/**
 * `Σ_t c_t softmax(q_t k_tᵀ) v` of every head, `[B, H, Lq, dv]`; the norm follows where it is asked
 * for.
 */
export function attentionFloat64(q: types.TensorLike, k: types.TensorLike, v: types.TensorLike, options: Options): Float64Array {
  const [B = 0, nq = 0, Lq = 0, d = 0] = q.shape ?? [];
  const [, nk = 0, Lk = 0] = k.shape ?? [];
  const [, G = 0, , dv = 0] = v.shape ?? [];
  const T = options.coefficients?.length ?? 2;
  const H = nq / T;
  if (nk !== T * G) throw new Error("the reference knows the interleaved pairing only");
  const scale = options.scale ?? 1 / Math.sqrt(d);
  const out = new Float64Array(B * H * Lq * dv);
  for (let b = 0; b < B; b++) {
    const { queryOffset = Lk - Lq, keyLengths } = options;
    const offset = typeof queryOffset === "number" ? queryOffset : (queryOffset[b] ?? queryOffset[0] ?? NaN);
    const length = keyLengths?.[b] ?? Lk;
    for (let h = 0; h < H; h++) {
      const g = Math.floor(h / (H / G));
      for (let i = 0; i < Lq; i++) {
        const row = out.subarray(((b * H + h) * Lq + i) * dv, ((b * H + h) * Lq + i + 1) * dv);
        const p = i + offset;
        const [left, right] = options.window ?? [null, null];
        const sees = (j: number): boolean =>
          j < length &&
          !(options.isCausal && j > p) &&
          !(typeof left === "number" && j < p - left) &&
          !(typeof right === "number" && j > p + right) &&
          at(options.attnMask, b, h, i, j, 1) !== 0 &&
          at(options.blockMask, b, h, Math.floor(i / BLOCK), Math.floor(j / BLOCK), 1) !== 0;
        for (let t = 0; t < T; t++) {
          const scores = new Float64Array(Lk).fill(-Infinity);
          for (let j = 0; j < Lk; j++) {
            if (!sees(j)) continue;
            let s = 0;
            for (let c = 0; c < d; c++) {
              s += (q.data[((b * nq + T * h + t) * Lq + i) * d + c] ?? NaN) * (k.data[((b * nk + T * g + t) * Lk + j) * d + c] ?? NaN);
            }
            s *= scale;
            if (options.softcap) s = options.softcap * Math.tanh(s / options.softcap);
            scores[j] = s + at(options.attnBias, b, h, i, j, 0);
          }
          const highest = scores.reduce((a, x) => Math.max(a, x), -Infinity);
          if (highest === -Infinity) continue;
          const sink = sinkAt(options.sinks, h, t, T);
          const max = Math.max(highest, sink);
          const weights = scores.map((s) => Math.exp(s - max));
          const sum = weights.reduce((a, x) => a + x, Math.exp(sink - max));
          const coefficient = options.coefficients?.[t] ?? (t === 0 ? 1 : -lambdaAt(options.lambda, b, h, i));
          for (let j = 0; j < Lk; j++) {
            const weight = (coefficient * (weights[j] ?? NaN)) / sum;
            if (scores[j] === -Infinity) continue;
            for (let c = 0; c < dv; c++) row[c] = (row[c] ?? NaN) + weight * (v.data[((b * G + g) * Lk + j) * dv + c] ?? NaN);
          }
        }
        const { norm } = options;
        if (norm) {
          const square = row.reduce((a, x) => a + x * x, 0) / dv;
          const factor = square === 0 ? 0 : (norm.scale ?? 1) / Math.sqrt(square + (norm.eps ?? 1e-5));
          const weight = norm.weight instanceof Float32Array ? norm.weight : undefined;
          for (let c = 0; c < dv; c++) row[c] = (row[c] ?? NaN) * factor * (weight?.[c] ?? 1);
        }
      }
    }
  }
  return out;
}
