// How probable tokens were, by the logits before them: in float64. Runs no model.

/**
 * −ln softmax of `label` among logits: the log of a sum of exponentials, less the label's logit.
 */
export function lossOf(logits: Float32Array, label: number): number {
  let highest = -Infinity;
  // (By index: an iterator takes twice as long.)
  for (let i = 0; i < logits.length; i++) highest = Math.max(highest, logits[i] ?? NaN);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] ?? NaN) - highest);
  return highest + Math.log(sum) - (logits[label] ?? NaN);
}

/**
 * The summed loss of a text, each token but the first by the row of logits before it. `rows` are
 * those of the tokens from `first` on, `vocab` logits each.
 */
export function summedLoss(ids: Int32Array, rows: Float32Array, vocab: number, first = 0): number {
  let sum = 0;
  const count = Math.min(ids.length - 1 - first, rows.length / vocab);
  for (let i = 0; i < count; i++) sum += lossOf(rows.subarray(i * vocab, (i + 1) * vocab), ids[first + i + 1] ?? NaN);
  return sum;
}
