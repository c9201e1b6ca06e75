// How well a language model expects a text: mean loss, perplexity, and how fast it reads. Checks
// what was asked for, and takes the windows of the data to the model.

import { checkOptions, isAbsent, isOf, show } from "../check.js";
import { fail } from "../errors.js";
import { checkSignal } from "../run.js";
import { openData, stretchesOf } from "./evaluation-data.js";
import { LanguageModel } from "./language-model.js";
import { Scores } from "./scores.js";
import type * as types from "./types.js";

const OPTIONS = ["context", "limit", "signal", "onProgress"];
/** Tokens of a window, where nothing is said. */
const CONTEXT = 256;

/** A caller's model. */
export const modelOf = (given: unknown): LanguageModel =>
  isOf(given, LanguageModel) ? given : fail("OPTION", "model", "a LanguageModel", show(given));

/** A whole number from `least` on. */
export function wholeOf(name: string, given: unknown, least: number, otherwise: number): number {
  const value = given ?? otherwise;
  if (Number.isSafeInteger(value) && (value as number) >= least) return value as number;
  return fail("OPTION", name, `a whole number from ${least}`, show(given));
}

/** Tokens of the longest text that a model was made for. */
export const longestOf = ({ config }: LanguageModel): number => Number(config["max_position_embeddings"] ?? Infinity);

/** Refuses texts longer than a model was made for. */
export function checkLength(name: string, length: number, model: LanguageModel): void {
  const longest = longestOf(model);
  if (length > longest) fail("OPTION", name, `at most ${longest} tokens (max_position_embeddings of the model)`, String(length));
}

export function checkProgress(onProgress: unknown): void {
  if (!isAbsent(onProgress) && typeof onProgress !== "function") fail("OPTION", "onProgress", "a function", show(onProgress));
}

export async function evaluateText(
  given: types.LanguageModel,
  data: types.EvaluationData,
  options?: types.EvaluateTextOptions,
): Promise<types.TextEvaluation> {
  const { context, limit, signal, onProgress } = checkOptions("options", options, OPTIONS);
  checkSignal(signal);
  checkProgress(onProgress);
  const model = modelOf(given);
  const length = wholeOf("context", context, 2, Math.max(2, Math.min(CONTEXT, longestOf(model))));
  checkLength("context", length, model);
  const most = isAbsent(limit) ? Infinity : wholeOf("limit", limit, 2, 2);
  const opened = await openData(data, (text) => model.encode(text), most, signal);
  try {
    const scores = new Scores(model, Number(model.config["vocab_size"]), signal);
    let read = 0;
    let waiting: Int32Array[] = [];
    const flush = async (): Promise<void> => {
      if (waiting.length > 0) await scores.add(waiting);
      waiting = [];
      onProgress?.({ done: read, total: opened.length });
    };
    for await (const ids of stretchesOf(opened, length, (tokens) => (read = tokens))) {
      const longest = Math.max(ids.length, ...waiting.map((one) => one.length));
      if (waiting.length > 0 && !scores.fits(waiting.length + 1, longest)) await flush();
      waiting.push(ids);
    }
    await flush();
    const { loss, counted, milliseconds } = scores;
    if (counted === 0) fail("OPTION", "data", "a text of 2 tokens or more", `${opened.length} tokens`);
    const mean = loss / counted;
    return {
      loss: mean,
      perplexity: Math.exp(mean),
      counted,
      tokens: opened.length,
      context: length,
      seconds: milliseconds / 1000,
      tokensPerSecond: (counted * 1000) / milliseconds,
    };
  } finally {
    opened.close();
  }
}
