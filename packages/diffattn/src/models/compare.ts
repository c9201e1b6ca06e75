// Two language models beside each other: how far their logits are apart, and whether they write the
// same. What is compared is Rust's (request 79).

import { checkOptions, isAbsent, isOf, show } from "../check.js";
import { encode } from "../encode.js";
import { fail } from "../errors.js";
import { checkSignal } from "../run.js";
import { run } from "./backend.js";
import { tensorOfIds } from "./ids.js";
import { LanguageModel } from "./language-model.js";
import { jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

const OPTIONS = ["text", "ids", "tokens", "signal"];
/** Tokens whose logits are held at once. */
const PIECE = 64;
/** Tokens that are written, where nothing is said. */
const TOKENS = 64;
/** Ids that are compared, where nothing is said. */
const IDS = 64;
/** What spreads them: a prime number, so that none comes twice in most vocabularies. */
const STEP = 7919;

/** What is read: a text of the model's tokenizer, or ids. */
export interface TextOrIds {
  text?: string | null | undefined;
  ids?: types.TokenIds | null | undefined;
}

/** A text as ids; ids as they are; without either some of the whole vocabulary. */
export function idsOfText(model: types.LanguageModel, { text, ids }: TextOrIds): { data: Int32Array; shape: readonly [number, number] } {
  if (!isAbsent(text) && !isAbsent(ids)) fail("OPTION", "ids", "a text or ids", "both");
  if (!isAbsent(ids)) return tensorOfIds("ids", ids);
  if (!isAbsent(text)) return tensorOfIds("text", model.encode(text));
  const size = Number(model.config["vocab_size"]);
  return tensorOfIds(
    "ids",
    Array.from({ length: IDS }, (_, i) => ((i + 1) * STEP) % size),
  );
}

interface Distance {
  readonly difference: number | null;
  readonly largest: number;
}

/** Reads the ids with both, piece by piece. */
async function distanceOf(
  [a, b]: readonly [types.LanguageModel, types.LanguageModel],
  ids: readonly number[],
  signal: AbortSignal | undefined,
): Promise<{ difference: number; largest: number }> {
  const [first, second] = [await a.createCache(), await b.createCache()];
  const most = { difference: 0, largest: 0 };
  try {
    for (let at = 0; at < ids.length; at += PIECE) {
      const piece = ids.slice(at, at + PIECE);
      const [x, y] = [await a.forward(piece, { cache: first, signal }), await b.forward(piece, { cache: second, signal })];
      const [output] = await run(encode(requests.compareLogits, { a: x, b: y }), { signal });
      const { difference, largest } = jsonOf(output) as Distance;
      most.difference = Math.max(most.difference, difference ?? NaN);
      most.largest = Math.max(most.largest, largest);
    }
  } finally {
    first.dispose();
    second.dispose();
  }
  return most;
}

/** What a model writes after the ids, choosing the likeliest. */
async function written(model: types.LanguageModel, prompt: readonly number[], maxNewTokens: number, signal: AbortSignal | undefined) {
  const ids: number[] = [];
  for await (const { id } of model.generate(prompt, { maxNewTokens, stopIds: [], signal })) ids.push(id);
  return ids;
}

export async function compareModels(
  a: types.LanguageModel | types.CheckpointSource,
  b: types.LanguageModel | types.CheckpointSource,
  options?: types.CompareOptions,
): Promise<types.Comparison> {
  const { text, ids, tokens, signal } = checkOptions("options", options, OPTIONS);
  checkSignal(signal);
  const count = tokens ?? TOKENS;
  if (!(Number.isSafeInteger(count) && count >= 0)) fail("OPTION", "tokens", "an integer of 0 or more", show(tokens));
  const loaded: LanguageModel[] = [];
  const modelOf = async (given: types.LanguageModel | types.CheckpointSource): Promise<types.LanguageModel> => {
    if (isOf(given, LanguageModel)) return given as unknown as types.LanguageModel;
    const model = await LanguageModel.load(given as types.CheckpointSource, { signal });
    loaded.push(model);
    return model as unknown as types.LanguageModel;
  };
  try {
    const models = [await modelOf(a), await modelOf(b)] as const;
    const { data, shape } = idsOfText(models[0], { text, ids });
    const [B, L] = shape;
    if (B * L === 0) fail("OPTION", isAbsent(text) ? "ids" : "text", "1 token or more", "none");
    const most = { difference: 0, largest: 0 };
    let sameTokens = true;
    for (let row = 0; row < B; row++) {
      const one = Array.from(data.subarray(row * L, (row + 1) * L));
      const { difference, largest } = await distanceOf(models, one, signal);
      most.difference = Math.max(most.difference, difference);
      most.largest = Math.max(most.largest, largest);
      const [first, second] = [await written(models[0], one, count, signal), await written(models[1], one, count, signal)];
      sameTokens &&= first.length === second.length && first.every((id, i) => id === second[i]);
    }
    return { largest: most.difference, relative: most.difference === 0 ? 0 : most.difference / most.largest, sameTokens };
  } finally {
    for (const model of loaded) model.dispose();
  }
}
