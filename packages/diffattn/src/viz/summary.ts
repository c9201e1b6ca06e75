// Noise over many heads, layers or texts: means with their spread. Draws nothing.

import type { AttentionNoise } from "./noise.js";
import { checkNoise, refuse, wrong } from "./options.js";

/** A mean over heads, and how far heads lie from it. */
export interface Spread {
  readonly mean: number;
  /** Standard deviation over the heads. */
  readonly sd: number;
}

/** What {@link summarizeNoise} gives; shares from 0 to 1. */
export interface NoiseSummary {
  /** How many heads there are. */
  readonly count: number;
  /** Of each term's map; the first is the signal. */
  readonly terms: readonly Spread[];
  readonly diff: Spread;
  /**
   * Of the difference, less that of the first map of the same head: below 0 where the subtraction
   * takes noise away.
   */
  readonly change: Spread;
  /** In how many heads the difference has less than the first map. */
  readonly lower: number;
}

const meanOf = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

function spreadOf(values: readonly number[]): Spread {
  const mean = meanOf(values);
  return { mean, sd: Math.sqrt(meanOf(values.map((value) => (value - mean) ** 2))) };
}

/**
 * Sums up the noise of many heads, of all layers say, or of many texts: each counts once, by the
 * mean over its rows.
 *
 * A change whose mean is smaller than its spread is none that one can rely on.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @param noises One per head, as {@link attentionNoise} gives them, all with the same number of
 *   terms.
 * @throws {DiffAttnError} OPTION without any, for one without rows, and for what `attentionNoise`
 *   did not give. (It is a `RangeError`
 * too.)
 */
export function summarizeNoise(noises: readonly AttentionNoise[]): NoiseSummary {
  if (!Array.isArray(noises)) wrong("noises", "the noise of heads, in an array", noises);
  if (noises.length === 0) refuse("OPTION", "noises", "the noise of one head or more", "none");
  for (const noise of noises) {
    checkNoise(noise);
    if (noise.diff.length === 0) refuse("OPTION", "noises", "one row or more in each", "none");
    const count = noises[0]?.terms.length ?? 0;
    if (noise.terms.length !== count) refuse("OPTION", "noises", `${count} terms in each, as in the first`, String(noise.terms.length));
  }
  const diffs = noises.map(({ diff }) => meanOf(diff));
  const terms = Array.from({ length: noises[0]?.terms.length ?? 0 }, (_, t) => noises.map((noise) => meanOf(noise.terms[t] ?? [])));
  const changes = diffs.map((diff, i) => diff - (terms[0]?.[i] ?? 0));
  return {
    count: noises.length,
    terms: terms.map(spreadOf),
    diff: spreadOf(diffs),
    change: spreadOf(changes),
    lower: changes.filter((change) => change < 0).length,
  };
}
