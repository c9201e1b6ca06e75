// What a caller may ask of a picture: checked here, once for all of them. Draws nothing.

import { checkOptions, show } from "../check.js";
import { DiffAttnError, MARK } from "../errors.js";
import type { ErrorCode } from "../types.js";

/**
 * What this entry throws: by its name, its code and `instanceof` a DiffAttnError. It is a
 * RangeError besides, as all of this entry's errors once were and programs may ask.
 */
class VizError extends RangeError {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.name = "DiffAttnError";
  }

  get [MARK](): true {
    return true;
  }
}

/** Throws `argument: expected …, got …`. */
export function refuse(code: ErrorCode, argument: string, expected: string, got: string, cause?: unknown): never {
  throw new VizError(code, `${argument}: expected ${expected}, got ${got}`, cause);
}

/** Throws what a caller gave for an option. */
export const wrong = (name: string, expected: string, given: unknown): never => refuse("OPTION", name, expected, show(given));

/** Options as an object whose names are all known. */
export function optionsOf<T extends object>(options: T | null | undefined, names: readonly (keyof T & string)[]): T {
  try {
    return checkOptions("options", options, names) as T;
  } catch (error) {
    if (!(error instanceof DiffAttnError)) throw error;
    throw new VizError(error.code, error.message);
  }
}

export const PART = ["batch", "head", "rows", "columns"] as const;
export const LOOK = ["theme", "styled"] as const;

/**
 * Pixels of a picture's side, and of a cell's. A larger one is a mistake, and no program shows it.
 */
export const LARGEST_SIDE = 1_000_000;
const LARGEST_PLOT = 100_000;
const LARGEST_CELL = 1000;

function within(name: string, given: unknown, least: number, most: number): number {
  if (typeof given === "number" && given >= least && given <= most) return given;
  return wrong(name, `${least} to ${most} pixels`, given);
}

export const cellOf = (given: unknown): number => within("cell", given, 1, LARGEST_CELL);

/** Pixels across or down that are asked for. */
export const extentOf = (name: string, given: unknown, least: number): number => within(name, given, least, LARGEST_PLOT);

/** A number above 0. */
export const positive = (name: string, given: unknown): number =>
  typeof given === "number" && given > 0 && given < Infinity ? given : wrong(name, "a finite number above 0", given);

/** A whole number, at least `least` and below `end`. */
export const integer = (name: string, given: unknown, least: number, end: number, expected: string): number =>
  Number.isInteger(given) && (given as number) >= least && (given as number) < end ? (given as number) : wrong(name, expected, given);

export const index = (name: string, given: unknown, extent: number): number =>
  integer(name, given ?? 0, 0, extent, `an index below ${extent}`);

/** `[first, end)` within a length; all of it by default. */
export function range(name: string, given: unknown, length: number): readonly [number, number] {
  if (given === undefined) return [0, length];
  const [first, end] = Array.isArray(given) && given.length === 2 ? (given as unknown[]) : [];
  const fits = Number.isInteger(first) && Number.isInteger(end) && (first as number) >= 0 && (end as number) <= length;
  if (!fits || (first as number) > (end as number)) wrong(name, `[first, end) within 0 … ${length}`, given);
  return [first as number, end as number];
}

export function checkText(name: string, given: unknown): void {
  if (given !== undefined && typeof given !== "string") wrong(name, "a text", given);
}

export function checkFlag(name: string, given: unknown): void {
  if (given !== undefined && typeof given !== "boolean") wrong(name, "true or false", given);
}

/** Texts, as many as there are. */
export function checkTexts(name: string, given: unknown): void {
  if (given === undefined) return;
  if (!Array.isArray(given)) wrong(name, "texts in an array", given);
  const at = (given as unknown[]).findIndex((text) => typeof text !== "string");
  if (at >= 0) wrong(`${name}[${at}]`, "a text", (given as unknown[])[at]);
}

/** Texts, one per token of the whole map. */
export function checkTokens(name: string, given: unknown, count: number, what: string): void {
  if (given === undefined) return;
  checkTexts(name, given);
  const { length } = given as readonly unknown[];
  if (length !== count) refuse("OPTION", name, `${count}, one per ${what}`, String(length));
}

/** What `attentionNoise` gives: a list of numbers per map, one per query. */
export function checkNoise(noise: unknown): void {
  const { rows, terms, diff, relevant } = (typeof noise === "object" && noise !== null ? noise : {}) as Record<string, unknown>;
  const [first, end] = range("noise.rows", rows ?? null, Number.MAX_SAFE_INTEGER);
  const lists = Array.isArray(terms) ? [...(terms as unknown[]), diff] : [undefined];
  const fits = lists.every((list) => Array.isArray(list) && list.length === end - first && list.every((n) => typeof n === "number"));
  if (!fits) wrong("noise", "what attentionNoise gives, a number per query and map", noise);
  if (typeof relevant !== "object" || relevant === null) wrong("noise.relevant", "keys, or how many were kept", relevant);
}
