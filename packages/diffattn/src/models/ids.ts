// Token ids as callers give them, as the requests take them. Whether an id is of the vocabulary is
// checked in Rust.

import { arrayType, elementsOf, has, isArray, show, unreadable } from "../check.js";
import { fail } from "../errors.js";

/** Ids `[B, L]`. */
export interface Ids {
  readonly data: Int32Array;
  readonly shape: readonly [number, number];
}

const LOWEST = -(2 ** 31);

/** A copy of one text's ids: what the caller changes later is not seen. */
export function idsOf(name: string, given: unknown): Int32Array {
  if (arrayType(given) === "Int32Array") return Int32Array.from(given as Int32Array);
  if (!isArray(given)) return fail("DTYPE", name, "token ids (an array, an Int32Array or { data, shape })", show(given));
  // (Not by `forEach`, which skips what is missing: an array of nothing may have any length.)
  for (let index = 0; index < given.length; index++) {
    const id: unknown = given[index];
    if (!Number.isInteger(id) || (id as number) < LOWEST || (id as number) >= -LOWEST)
      fail("OPTION", `${name}[${index}]`, "a token id", show(id));
  }
  return Int32Array.from(given as number[]);
}

/** The first place of an array that holds nothing: such an array may say any length. */
function holeOf(given: readonly unknown[]): number | undefined {
  for (let index = 0; index < given.length; index++) if (!(index in given)) return index;
  return undefined;
}

/** A prompt whose ids are copies. Checks nothing: what is no prompt is given back as it is. */
export function promptOf(given: unknown): unknown {
  const copy = (x: unknown): unknown => {
    if (arrayType(x) === "Int32Array") return Int32Array.from(x as Int32Array);
    return isArray(x) && holeOf(x) === undefined ? x.slice() : x;
  };
  try {
    if (isArray(given)) return holeOf(given) === undefined ? given.map(copy) : given;
    return has(given, "data")
      ? { ...given, data: copy(given.data), ...(has(given, "shape") && { shape: copy(given.shape) }) }
      : copy(given);
  } catch {
    return given;
  }
}

/**
 * Refuses an array with a hole: the rest of what it says to be long is walked index by index,
 * though it takes no memory.
 */
export function checkDense(name: string, given: unknown): void {
  const hole = isArray(given) ? holeOf(given) : undefined;
  if (hole !== undefined) fail("OPTION", `${name}[${hole}]`, "a token id or a text", "nothing");
}

/** Ids of one text, or `{ data, shape: [B, L] }`. */
export function tensorOfIds(name: string, given: unknown): Ids {
  if (!has(given, "data")) {
    const data = idsOf(name, given);
    return { data, shape: [1, data.length] };
  }
  try {
    return readIds(name, given);
  } catch (thrown) {
    return unreadable("DTYPE", name, thrown);
  }
}

function readIds(name: string, given: object): Ids {
  const { data, shape, dims = shape } = given as { data: unknown; shape?: unknown; dims?: unknown };
  if (arrayType(data) !== "Int32Array") fail("DTYPE", name, "ids in an Int32Array", show(data));
  const count = (x: unknown): x is number => Number.isInteger(x) && (x as number) >= 0;
  if (!isArray(dims) || dims.length !== 2 || !dims.every(count)) return fail("SHAPE", name, "a shape [B, L]", show(dims));
  const [B = 0, L = 0] = dims;
  const copy = Int32Array.from(elementsOf(name, given, [B, L], data as Int32Array));
  if (copy.length !== B * L) fail("SHAPE", name, `${B * L} ids for [${B}, ${L}]`, String(copy.length));
  return { data: copy, shape: [B, L] };
}
