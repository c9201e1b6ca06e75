// Which part of a map is meant, and its numbers. Draws nothing.

import { arrayType, show } from "../check.js";
import type { AttentionMaps, Tensor } from "../types.js";
import { index, positive, range, refuse } from "./options.js";

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

/** The extents of a map that is one: of four axes, with as many numbers as they say. */
function extentsOf(name: string, map: unknown): readonly [number, number, number, number] {
  if (typeof map !== "object" || map === null) return refuse("SHAPE", name, "a tensor [B, H, rows, Lk]", show(map));
  const { shape, data } = map as { shape?: unknown; data?: unknown };
  const axes = Array.isArray(shape) && shape.length === 4 && shape.every((n) => Number.isInteger(n) && n >= 0);
  if (!axes) return refuse("SHAPE", name, "a shape [B, H, rows, Lk]", show(shape));
  const [batches, heads, rows, columns] = shape as [number, number, number, number];
  if (arrayType(data) !== "Float32Array") return refuse("DTYPE", name, "data in a Float32Array", show(data));
  const { length } = data as Float32Array;
  if (length !== batches * heads * rows * columns) {
    refuse("SHAPE", name, `${batches * heads * rows * columns} elements, for ${show(shape)}`, String(length));
  }
  return [batches, heads, rows, columns];
}

export function part(map: Tensor, options: PartOptions): Part {
  const [batches, heads, queries, keys] = extentsOf("map", map);
  const [top, bottom] = range("rows", options.rows, queries);
  const [left, right] = range("columns", options.columns, keys);
  const start = (index("batch", options.batch, batches) * heads + index("head", options.head, heads)) * queries * keys;
  const value = (row: number, column: number): number => map.data[start + row * keys + column] ?? 0;
  let lowest = 0;
  let highest = 0;
  // NaN fails both, so one of them leaves the others their scale.
  for (let row = top; row < bottom; row += 1)
    for (let column = left; column < right; column += 1) {
      const here = value(row, column);
      if (here < lowest) lowest = here;
      if (here > highest) highest = here;
    }
  return { queries, keys, top, bottom, left, right, value, lowest, highest };
}

/**
 * The maps of the terms, in their order; the first is the signal. They are as large as their
 * difference.
 */
export function termsOf(maps: AttentionMaps): Tensor[] {
  const given: unknown = maps;
  if (typeof given !== "object" || given === null || !("diff" in given))
    return refuse("SHAPE", "maps", "{ map1, map2, diff }", show(given));
  const extents = extentsOf("diff", maps.diff);
  const terms: unknown = maps.maps ?? [maps.map1, maps.map2].filter((map) => map !== undefined);
  if (!Array.isArray(terms)) return refuse("SHAPE", "maps", "a list of maps", show(terms));
  terms.forEach((map, i) => {
    const name = `map${i + 1}`;
    if (extentsOf(name, map).some((extent, axis) => extent !== extents[axis])) {
      refuse("SHAPE", name, `the shape of diff, ${show([...extents])}`, show([...(map as Tensor).shape]));
    }
  });
  return terms as Tensor[];
}

/** Headings of the maps and of their difference. */
export const headingsOf = (terms: number): string[] => [...Array.from({ length: terms }, (_, i) => `map ${i + 1}`), "difference"];

/** The largest absolute value, for a scale; 1 where all are zero. */
export function scaleOf(parts: readonly { readonly lowest: number; readonly highest: number }[], given: number | undefined): number {
  if (given !== undefined) return positive("max", given);
  return Math.max(...parts.map(({ lowest, highest }) => Math.max(highest, -lowest))) || 1;
}
