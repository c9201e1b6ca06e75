// As what weights are held or written: the names. Knows no file.

import { isAbsent, oneOf, show } from "../check.js";
import { fail } from "../errors.js";
import type { WeightFormat } from "./types.js";

export const FORMATS = ["float32", "float16", "bfloat16", "q8", "q4"] as const satisfies readonly WeightFormat[];

/** A format, where one is given. */
export function formatOf(name: string, given: unknown): WeightFormat | undefined {
  if (isAbsent(given)) return undefined;
  return FORMATS.includes(given as WeightFormat) ? (given as WeightFormat) : fail("OPTION", name, oneOf(FORMATS), show(given));
}
