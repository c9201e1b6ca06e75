// What says which backend runs, and how: the values that options of init and, in Node, variables of
// the environment may have. Chooses nothing.

import { isAbsent, oneOf, show } from "./check.js";
import { fail } from "./errors.js";
import { BUILDS } from "./port.js";

export const BACKENDS = ["native", "wasm"] as const;
export const ISAS = ["scalar", "avx2", "avx512", "neon", ...BUILDS] as const;

/** One of the names; undefined where nothing was given. */
export function choice<T extends string>(name: string, given: unknown, names: readonly T[]): T | undefined {
  if (isAbsent(given)) return undefined;
  return names.includes(given as T) ? (given as T) : fail("OPTION", name, oneOf(names), show(given));
}

/** A count of threads; undefined where nothing was given. */
export function threadCount(name: string, given: unknown): number | undefined {
  if (isAbsent(given)) return undefined;
  return Number.isInteger(given) && (given as number) > 0
    ? (given as number)
    : fail("OPTION", name, "an integer of 1 or more", show(given));
}
