// How much of a token's attention falls on a stretch of others: by each map of a head, and by their
// difference; and what heads and layers have of it on average. Pure.

import type { AttentionMaps, Tensor } from "../types.js";
import type * as types from "./types.js";

/** The tokens of a stretch: from the first to before the last. */
export type Span = readonly [number, number];

/**
 * What falls on a stretch, by size: Σ|w| there ÷ Σ|w| of all keys; 0 where there is none at all.
 */
export function massOf(weights: ArrayLike<number>, [first, end]: Span): number {
  let [within, all] = [0, 0];
  for (let key = 0; key < weights.length; key++) {
    const weight = Math.abs(weights[key] ?? 0);
    all += weight;
    if (key >= first && key < end) within += weight;
  }
  return all === 0 ? 0 : within / all;
}

/** What the last query of a head of maps `[1, H, queries, keys]` has. */
function lastRow({ data, shape }: Tensor, head: number): Float32Array {
  const [, , queries = 0, keys = 0] = shape;
  return data.subarray(((head + 1) * queries - 1) * keys, (head + 1) * queries * keys);
}

/** What a head has of a stretch: of each of its maps, and of their difference. */
export interface HeadMass {
  readonly terms: readonly number[];
  readonly diff: number;
}

/**
 * The heads of a layer. Of one with a single map beside others with two, the second is all zeros.
 */
export function headMasses({ map1, map2, maps, diff }: AttentionMaps, span: Span): HeadMass[] {
  const terms = maps ?? [map1, map2].filter((map) => map !== undefined);
  const [, heads = 0] = diff.shape;
  return Array.from({ length: heads }, (_, head) => {
    const rows = terms.map((map) => lastRow(map, head));
    const own = rows.filter((row, term) => term === 0 || row.some((weight) => weight !== 0));
    return { terms: own.map((row) => massOf(row, span)), diff: massOf(lastRow(diff, head), span) };
  });
}

const meanOf = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length;

/** null without values. */
export function spreadOf(values: readonly number[]): types.MassSpread | null {
  if (values.length === 0) return null;
  const mean = meanOf(values);
  return { mean, sd: Math.sqrt(meanOf(values.map((value) => (value - mean) ** 2))), heads: values.length };
}

/** The masses of all heads of a model, over several prompts. */
export class Masses {
  #prompts = 0;
  /** What would fall on the stretches if every token had as much. */
  #even = 0;
  /** By layer and head, the sums of each map and of the difference. */
  readonly #heads: { terms: number[]; diff: number }[] = [];

  /** Of one prompt of `length` tokens, the heads of all layers in their order. */
  add(heads: readonly HeadMass[], [first, end]: Span, length: number): void {
    this.#prompts++;
    this.#even += (end - first) / length;
    for (const [i, { terms, diff }] of heads.entries()) {
      const sums = (this.#heads[i] ??= { terms: terms.map(() => 0), diff: 0 });
      for (const [term, mass] of terms.entries()) sums.terms[term] = (sums.terms[term] ?? 0) + mass;
      sums.diff += diff;
    }
  }

  /** Mean and spread over heads, each of which counts by its mean over the prompts. */
  summary(): types.NeedleAttention | null {
    const prompts = this.#prompts;
    if (prompts === 0) return null;
    const plain = this.#heads.filter(({ terms }) => terms.length === 1);
    const differential = this.#heads.filter(({ terms }) => terms.length > 1);
    const most = Math.max(0, ...differential.map(({ terms }) => terms.length));
    const spreads = Array.from({ length: most }, (_, term) => spreadOf(differential.map(({ terms }) => (terms[term] ?? 0) / prompts)));
    return {
      prompts,
      even: this.#even / prompts,
      plain: spreadOf(plain.map(({ diff }) => diff / prompts)),
      terms: spreads.filter((spread) => spread !== null),
      difference: spreadOf(differential.map(({ diff }) => diff / prompts)),
    };
  }
}
