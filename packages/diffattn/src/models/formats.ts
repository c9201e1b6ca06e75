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

/** How many inputs of a row share a scale in what is quantised, where it is said. */
export function groupSizeOf(given: unknown, formats: readonly (string | undefined)[]): 32 | 64 | undefined {
  if (isAbsent(given)) return undefined;
  if (given !== 32 && given !== 64) return fail("OPTION", "groupSize", "32 or 64", show(given));
  if (!formats.some((format) => format === "q8" || format === "q4")) fail("OPTION", "groupSize", 'none but with "q8" or "q4"', show(given));
  return given;
}

/** Element types by the names that formats of weights have. */
const FLOAT_NAMES: Readonly<Partial<Record<string, "F32" | "F16" | "BF16">>> = { float32: "F32", float16: "F16", bfloat16: "BF16" };

type FileType = "F32" | "F16" | "BF16" | "q8" | "q4";

/** An element type in either spelling as files have it. */
export const fileType = (dtype: FileType | WeightFormat): FileType => FLOAT_NAMES[dtype] ?? (dtype as FileType);
