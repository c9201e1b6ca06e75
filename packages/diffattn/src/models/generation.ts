// A generation under way: texts that grow token by token, the rows that the backend gives of a
// step, and the generator that makes them. Knows no model.

import type { Handle, Output, Request } from "../backend.js";
import { isAbsent, show } from "../check.js";
import type { ValuesOf } from "../encode.js";
import { fail } from "../errors.js";
import { Owned, resourceOf } from "../owned.js";
import { create, drop } from "./backend.js";
import { Detokenizer } from "./detokenize.js";
import { int32Of, tensorOf } from "./outputs.js";
import type * as requests from "./requests.generated.js";
import { type StopPatterns, Stops } from "./stops.js";
import type * as types from "./types.js";

/** How many texts one prompt can become. */
const MOST = 128;
/** New tokens, where the caller says nothing. */
const MAX_NEW_TOKENS = 256;

/** A text as a request of a generator takes it. */
export type TextRequest = ValuesOf<typeof requests.createGenerator.operands>["texts"][number];

/** What a step chose for a text. */
export interface Chosen {
  readonly index: number;
  readonly id: number;
  readonly finish: types.GeneratedToken["finish"];
  /** Whether there is no id, as its logits were no numbers. */
  readonly isFailed: boolean;
  /** Ids of its prompt that were not computed, as a cache held them. */
  readonly reused: number;
  /** How probable it was, where that was asked for. */
  readonly probable: Pick<types.GeneratedToken, "logprob" | "topLogprobs">;
}

const FINISH = [null, "stop", "length"] as const;
const FAILED = 3;
/** Numbers of a row before the ids of the most probable tokens. */
const TOLD = 4;

/**
 * The rows of a step: a text, an id, how it ends, and how much of its prompt was there; the most
 * probable ids, and how probable.
 */
export function chosen([tokens, logprobs]: readonly Output[]): Chosen[] {
  const [width = TOLD] = tokens?.shape.slice(1) ?? [];
  const ids = int32Of(tokens);
  const probable = logprobs && tensorOf(logprobs).data;
  return Array.from({ length: ids.length / width }, (_, row) => {
    const [index = 0, id = 0, finish = 0, reused = 0, ...best] = ids.subarray(row * width, (row + 1) * width);
    const made = { index, id, finish: FINISH[finish] ?? null, isFailed: finish === FAILED, reused, probable: {} };
    if (!probable) return made;
    const numbers = width - TOLD + 1;
    const [logprob = 0, ...of] = probable.subarray(row * numbers, (row + 1) * numbers);
    return { ...made, probable: { logprob, topLogprobs: best.map((id, at) => ({ id, logprob: of[at] ?? 0 })) } };
  });
}

/** One text that is being generated. */
export class Text {
  readonly #detokenizer: Detokenizer | undefined;
  readonly #stops: Stops | undefined;
  /** How many ids the caller was given. */
  told = 0;
  ended = false;

  constructor(prompt: Int32Array, tokenizer: types.Tokenizer | undefined, stops: StopPatterns | undefined) {
    if (tokenizer) this.#detokenizer = new Detokenizer(tokenizer, prompt);
    if (stops) this.#stops = new Stops(stops);
  }

  /** What an id adds to the text. */
  push({ id, index, finish, probable }: Chosen): types.GeneratedToken {
    const ends = this.#stops?.needsEnds;
    const before = ends ? this.#detokenizer?.peek() : "";
    let text = this.#detokenizer?.push(id) ?? "";
    if (finish) text += this.#detokenizer?.end() ?? "";
    const after = ends && !finish ? this.#detokenizer?.peek() : "";
    let stopped = false;
    if (this.#stops) ({ text, stopped } = this.#stops.push({ id, text, before, after }));
    if (finish && !stopped) text += this.#stops?.end() ?? "";
    const why = stopped ? "stop" : finish;
    this.told++;
    this.ended = why !== null;
    return { id, text, index, finish: why, ...probable };
  }
}

interface Generation {
  generator: Handle | undefined;
  /** Gives the caches back. */
  readonly home: () => Promise<void>;
  ended: Promise<void> | undefined;
}

const endGeneration = (generation: Generation): void => {
  if (generation.generator) drop(generation.generator);
  generation.ended = generation.home();
};

/** A generator in the backend; one whose loop was forgotten ends with the garbage collection. */
export class Running extends Owned<Generation> {
  constructor(home: () => Promise<void>) {
    const generation: Generation = { generator: undefined, home, ended: undefined };
    super("generator", generation, () => endGeneration(generation), true);
  }

  async start(request: Request): Promise<Handle> {
    return (resourceOf<Generation>(this).generator = await create("generator", request));
  }

  /** When the caches are back. */
  async end(): Promise<void> {
    const generation = resourceOf<Generation>(this);
    this.dispose();
    await generation.ended;
  }
}

/** How many texts each prompt becomes. */
export function countOf(n: unknown): number {
  if (isAbsent(n)) return 1;
  const is = typeof n === "number" && Number.isInteger(n) && n >= 1 && n <= MOST;
  return is ? n : fail("OPTION", "n", `a whole number from 1 to ${MOST}`, show(n));
}

/** How each of the texts that one prompt becomes is chosen, as the request takes it. */
export function samplingOf(given: types.GenerateOptions): (text: number) => Omit<TextRequest, "prompt"> {
  const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, logprobs, stopIds, maxNewTokens, seed } =
    given;
  const all = { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, logprobs, stopIds };
  const logitBias = biasOf(given.logitBias);
  return (text: number) => ({
    ...all,
    maxNewTokens: maxNewTokens ?? MAX_NEW_TOKENS,
    logitBias,
    // (What is no number is refused as it is.)
    seed: text === 0 ? seed : (seed ?? 0) + text,
  });
}

/** Biases of ids, as the request takes them. */
function biasOf(given: unknown): { id: number; bias: number }[] | undefined {
  if (isAbsent(given)) return undefined;
  if (typeof given !== "object" || Array.isArray(given))
    return fail("OPTION", "logitBias", "an object of numbers by token id", show(given));
  return Object.entries(given as Record<string, unknown>).map(([name, bias]) => {
    if (!/^(0|[1-9]\d{0,9})$/.test(name)) fail("OPTION", "logitBias", "token ids as names", show(name));
    return typeof bias === "number" ? { id: Number(name), bias } : fail("OPTION", `logitBias[${name}]`, "a number", show(bias));
  });
}
