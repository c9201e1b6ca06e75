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

/** Element types by the names that formats of weights have. */
const FLOAT_NAMES: Readonly<Partial<Record<string, "F32" | "F16" | "BF16">>> = { float32: "F32", float16: "F16", bfloat16: "BF16" };

type FileType = "F32" | "F16" | "BF16" | "q8" | "q4";

/** An element type in either spelling as files have it. */
export const fileType = (dtype: FileType | WeightFormat): FileType => FLOAT_NAMES[dtype] ?? (dtype as FileType);
