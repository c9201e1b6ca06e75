// How a request wants its texts written: the parameters that completions and chat share, as options
// of the package.

import { randomInt } from "node:crypto";
import { invalid } from "./api-error.js";
import type { Fields } from "./fields.js";
import type { BatchGenerateOptions } from "../../models/types.js";

/** Texts before which one ends. */
const STOPS = 16;
const STOP_LENGTH = 1000;
/** How far seeds go either way. */
const SEEDS = 2 ** 52;
/** Ids that a request may bias. */
const BIASES = 1024;

export interface Streaming {
  readonly isStream: boolean;
  readonly includeUsage: boolean;
}

/** Whether the answer comes in pieces. */
export function streaming(fields: Fields): Streaming {
  const isStream = fields.flag("stream");
  const options = fields.record("stream_options");
  const usage = options?.["include_usage"] ?? false;
  if (options && !isStream) throw invalid("stream_options", "only with stream");
  if (typeof usage !== "boolean") throw invalid("stream_options.include_usage", "expected true or false");
  return { isStream, includeUsage: usage };
}

/** The options of all texts of a request but for their lengths. */
export function sampling(fields: Fields, texts: number): BatchGenerateOptions {
  const seed = fields.integer("seed", -SEEDS, SEEDS);
  return {
    temperature: fields.number("temperature", 0, 2) ?? 1,
    topP: atLeastAbove0("top_p", fields.number("top_p", 0, 1)),
    topK: fields.integer("top_k", 1),
    minP: fields.number("min_p", 0, 1),
    repetitionPenalty: atLeastAbove0("repetition_penalty", fields.number("repetition_penalty", 0, 10)),
    presencePenalty: fields.number("presence_penalty", -2, 2),
    frequencyPenalty: fields.number("frequency_penalty", -2, 2),
    logitBias: bias(fields.record("logit_bias")),
    // (One that is negative is another, as long as it is there.)
    seed: seed === undefined ? randomInt(2 ** 47) : seed < 0 ? 2 * SEEDS - 1024 + seed : seed,
    stop: stops(fields.any("stop")),
    n: fields.integer("n", 1, texts) ?? 1,
  };
}

function atLeastAbove0(name: string, value: number | undefined): number | undefined {
  if (value === 0) throw invalid(name, "expected a number above 0, got 0");
  return value;
}

function stops(given: unknown): string[] | undefined {
  if (given === undefined) return undefined;
  const list: unknown[] = Array.isArray(given) ? given : [given];
  const is = (x: unknown): x is string => typeof x === "string" && x !== "" && x.length <= STOP_LENGTH;
  if (list.length <= STOPS && list.every(is)) return list.length > 0 ? list : undefined;
  throw invalid("stop", `expected a text that is not empty, or up to ${STOPS} of them, each of at most ${STOP_LENGTH} characters`);
}

function bias(given: Readonly<Record<string, unknown>> | undefined): Record<string, number> | undefined {
  if (given === undefined) return undefined;
  const entries = Object.entries(given);
  const is = ([name, value]: [string, unknown]): boolean =>
    /^(0|[1-9]\d{0,9})$/.test(name) && typeof value === "number" && Math.abs(value) <= 100;
  if (entries.length > BIASES || !entries.every(is))
    throw invalid("logit_bias", `expected numbers from -100 to 100 by token ids, at most ${BIASES} of them`);
  return Object.fromEntries(entries) as Record<string, number>;
}
