// Which part of a map is meant, and its numbers. Draws nothing.

import type { AttentionMaps, Tensor } from "../types.js";

/** Which part of a map is meant. */
export interface PartOptions {
  /** Batch entry; 0 by default. */
  batch?: number | undefined;
  /** Head; 0 by default. */
  head?: number | undefined;
  /** Half-open range `[first, end)` of the map's rows (queries); all by default. */
  rows?: readonly [number, number] | undefined;
  /** Half-open range `[first, end)` of the map's columns (keys); all by default. */
  columns?: readonly [number, number] | undefined;
}

function range(name: string, given: readonly [number, number] | undefined, length: number): readonly [number, number] {
  const [first, end] = given ?? [0, length];
  if (!Number.isInteger(first) || !Number.isInteger(end) || first < 0 || end < first || end > length)
    throw new RangeError(`${name}: expected [first, end) within 0 … ${length}, got [${first}, ${end}]`);
  return [first, end];
}

export function index(name: string, given: number | undefined, extent: number): number {
  const value = given ?? 0;
  if (!Number.isInteger(value) || value < 0 || value >= extent)
    throw new RangeError(`${name}: expected an index below ${extent}, got ${value}`);
  return value;
}

/** The part of a map that is meant, and the range of its values and zero. */
export interface Part {
  /** Rows and columns of the whole map. */
  readonly queries: number;
  readonly keys: number;
  readonly top: number;
  readonly bottom: number;
  readonly left: number;
  readonly right: number;
  /** By the whole map's row and column. */
  readonly value: (row: number, column: number) => number;
  readonly lowest: number;
  readonly highest: number;
}

export function part(map: Tensor, options: PartOptions): Part {
  const [batches, heads, queries, keys] = map.shape;
  if (batches === undefined || heads === undefined || queries === undefined || keys === undefined || map.shape.length !== 4)
    throw new RangeError(`map: expected a shape [B, H, rows, Lk], got [${map.shape.join(", ")}]`);
  const [top, bottom] = range("rows", options.rows, queries);
  const [left, right] = range("columns", options.columns, keys);
  const start = (index("batch", options.batch, batches) * heads + index("head", options.head, heads)) * queries * keys;
  const value = (row: number, column: number): number => map.data[start + row * keys + column] ?? 0;
  let lowest = 0;
  let highest = 0;
  for (let row = top; row < bottom; row += 1)
    for (let column = left; column < right; column += 1) {
      lowest = Math.min(lowest, value(row, column));
      highest = Math.max(highest, value(row, column));
    }
  return { queries, keys, top, bottom, left, right, value, lowest, highest };
}

/** The maps of the terms, in their order; the first is the signal. */
export const termsOf = (maps: AttentionMaps): Tensor[] => maps.maps ?? [maps.map1, maps.map2].filter((map) => map !== undefined);

/** Headings of the maps and of their difference. */
export const headingsOf = (terms: number): string[] => [...Array.from({ length: terms }, (_, i) => `map ${i + 1}`), "difference"];

/** Texts, one per token of the whole map. */
export function checkTokens(name: string, tokens: readonly string[] | undefined, count: number, what: string): void {
  if (tokens && tokens.length !== count) throw new RangeError(`${name}: expected ${count}, one per ${what}, got ${tokens.length}`);
}

/** The largest absolute value, for a scale; 1 where all are zero. */
export function scaleOf(parts: readonly { readonly lowest: number; readonly highest: number }[], given: number | undefined): number {
  const max = given ?? (Math.max(...parts.map(({ lowest, highest }) => Math.max(highest, -lowest))) || 1);
  if (!(max > 0)) throw new RangeError(`max: expected a number above 0, got ${max}`);
  return max;
}
