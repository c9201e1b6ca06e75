// The operators as plain float64 loops over single rows: what `diffattn bench` checks answers with.
// Slow on purpose; knows no layout but its own: heads outside, interleaved.

export interface AttentionCase {
  heads: number;
  length: number;
  queries: number;
  width: number;
  lambda: number;
}

/**
 * One row of one head: softmax(q1 k1ᵀ) v − λ softmax(q2 k2ᵀ) v over the keys that a causal mask
 * leaves.
 */
export function attentionRow(
  { length, queries, width, lambda }: AttentionCase,
  { q, k, v }: { q: Float32Array; k: Float32Array; v: Float32Array },
  head: number,
  row: number,
): Float64Array {
  const out = new Float64Array(2 * width);
  const seen = row + length - queries + 1;
  for (let term = 0; term < 2; term += 1) {
    const map = 2 * head + term;
    const scores = Array.from({ length: seen }, (_, key) => {
      let dot = 0;
      for (let c = 0; c < width; c += 1) dot += (q[(map * queries + row) * width + c] ?? 0) * (k[(map * length + key) * width + c] ?? 0);
      return dot / Math.sqrt(width);
    });
    const highest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const weights = scores.map((score) => Math.exp(score - highest));
    const sum = weights.reduce((a, b) => a + b, 0);
    const factor = (term === 0 ? 1 : -lambda) / sum;
    weights.forEach((weight, key) => {
      for (let c = 0; c < 2 * width; c += 1) out[c] = (out[c] ?? 0) + factor * weight * (v[(head * length + key) * 2 * width + c] ?? 0);
    });
  }
  return out;
}

/** `values` normalised by their mean and variance, or by their mean square alone. */
export function normalised(values: Float32Array, eps: number, centred: boolean): Float64Array {
  const mean = centred ? values.reduce((sum, x) => sum + x, 0) / values.length : 0;
  const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
  return Float64Array.from(values, (x) => (x - mean) / Math.sqrt(variance + eps));
}

/** The largest difference, in units of the largest magnitude expected; NaN where there is one. */
export function relativeError(actual: ArrayLike<number>, expected: Float64Array): number {
  let largest = 0;
  let worst = 0;
  expected.forEach((value, i) => {
    const error = Math.abs((actual[i] ?? NaN) - value);
    worst = Number.isNaN(error) || Number.isNaN(worst) ? NaN : Math.max(worst, error);
    largest = Math.max(largest, Math.abs(value));
  });
  return worst / largest;
}
