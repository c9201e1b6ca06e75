// The two forms of a written answer, whole and in pieces: of /v1/completions and of
// /v1/chat/completions. Decides nothing of what is written.

import { randomUUID } from "node:crypto";
import type { BatchToken, LanguageModel, TokenLogprob } from "../../models/types.js";

/** What a text became. */
export interface Written {
  text: string;
  tokens: BatchToken[];
  finish: string | null;
}

/** What an answer took. */
export class Usage {
  #prompts = new Map<number, readonly [tokens: number, reused: number]>();
  #generated = 0;

  /** `perPrompt`: how many texts each prompt became, of which it is counted once. */
  constructor(readonly perPrompt: number) {}

  add({ index, promptTokens, reusedTokens }: BatchToken): void {
    this.#generated++;
    const prompt = Math.floor(index / this.perPrompt);
    if (!this.#prompts.has(prompt)) this.#prompts.set(prompt, [promptTokens, reusedTokens]);
  }

  get json(): object {
    let [prompt, cached] = [0, 0];
    for (const [tokens, reused] of this.#prompts.values()) {
      prompt += tokens;
      cached += reused;
    }
    return {
      prompt_tokens: prompt,
      completion_tokens: this.#generated,
      total_tokens: prompt + this.#generated,
      prompt_tokens_details: { cached_tokens: cached },
    };
  }
}

/** What one request's answers have in common. */
export interface About {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

export const about = (prefix: string, model: string): About => ({
  id: `${prefix}-${randomUUID()}`,
  created: Math.floor(Date.now() / 1000),
  model,
});

/** A form of answers. */
export interface Form {
  readonly prefix: string;
  /** A whole answer's object, and that of its pieces. */
  readonly objects: readonly [whole: string, piece: string];
  /** Before the first piece of a text. */
  begin(index: number): object | undefined;
  piece(token: BatchToken, place: number): object;
  choice(written: Written, index: number): object;
}

/** Whether a token is told of: what ends a text and is none of it is not. */
const isTold = ({ finish }: BatchToken): boolean => finish !== "stop";

type Words = Pick<LanguageModel, "decode">;
const word = (model: Words, id: number): string => model.decode([id], { skipSpecialTokens: false });

export function completionForm(model: Words, logprobs: number | undefined): Form {
  const probable = (tokens: readonly BatchToken[], offset: number): object | null => {
    if (logprobs === undefined) return null;
    const told = tokens.filter(isTold);
    let at = offset;
    return {
      tokens: told.map(({ id }) => word(model, id)),
      token_logprobs: told.map(({ logprob }) => logprob ?? null),
      top_logprobs: told.map(({ topLogprobs }) => Object.fromEntries((topLogprobs ?? []).map((one) => [word(model, one.id), one.logprob]))),
      text_offset: told.map(({ text }) => {
        const place = at;
        at += text.length;
        return place;
      }),
    };
  };
  return {
    prefix: "cmpl",
    objects: ["text_completion", "text_completion"],
    begin: () => undefined,
    piece: (token, place) => ({ index: token.index, text: token.text, logprobs: probable([token], place), finish_reason: token.finish }),
    choice: ({ text, tokens, finish }, index) => ({ index, text, logprobs: probable(tokens, 0), finish_reason: finish }),
  };
}

export function chatForm(model: Words, logprobs: number | undefined): Form {
  const bytes = (text: string): number[] | null => (text.includes("\ufffd") ? null : [...new TextEncoder().encode(text)]);
  const of = ({ id, logprob }: TokenLogprob): object => {
    const token = word(model, id);
    return { token, logprob, bytes: bytes(token) };
  };
  const probable = (tokens: readonly BatchToken[]): object | null => {
    if (logprobs === undefined) return null;
    const told = tokens.filter(isTold);
    const content = told.map(({ id, logprob = 0, topLogprobs = [] }) => ({ ...of({ id, logprob }), top_logprobs: topLogprobs.map(of) }));
    return { content, refusal: null };
  };
  return {
    prefix: "chatcmpl",
    objects: ["chat.completion", "chat.completion.chunk"],
    begin: (index) => ({ index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null }),
    piece: (token) => ({
      index: token.index,
      delta: token.text === "" ? {} : { content: token.text },
      logprobs: probable([token]),
      finish_reason: token.finish,
    }),
    choice: ({ text, tokens, finish }, index) => ({
      index,
      message: { role: "assistant", content: text, refusal: null },
      logprobs: probable(tokens),
      finish_reason: finish,
    }),
  };
}

/** The whole answer. */
export async function whole(form: Form, tokens: AsyncIterable<BatchToken>, { model, texts, usage }: Answering): Promise<object> {
  const written = Array.from({ length: texts }, (): Written => ({ text: "", tokens: [], finish: null }));
  for await (const token of tokens) {
    usage.add(token);
    const one = written[token.index];
    if (!one) continue;
    one.text += token.text;
    one.tokens.push(token);
    one.finish = token.finish;
  }
  const { id, created } = about(form.prefix, model);
  return { id, object: form.objects[0], created, model, choices: written.map((one, index) => form.choice(one, index)), usage: usage.json };
}

export interface Answering {
  readonly model: string;
  readonly texts: number;
  readonly usage: Usage;
  readonly includeUsage: boolean;
}

/** An answer piece by piece, with its usage at the end where that is wanted. */
export async function* pieces(
  form: Form,
  tokens: AsyncIterable<BatchToken>,
  { model, usage, includeUsage }: Answering,
): AsyncGenerator<object, void, undefined> {
  const { id, created } = about(form.prefix, model);
  const chunk = (choices: readonly object[], more?: object): object => ({
    id,
    object: form.objects[1],
    created,
    model,
    choices,
    ...(includeUsage && { usage: null }),
    ...more,
  });
  const places = new Map<number, number>();
  for await (const token of tokens) {
    usage.add(token);
    const place = places.get(token.index);
    const first = place === undefined ? form.begin(token.index) : undefined;
    if (first) yield chunk([first]);
    places.set(token.index, (place ?? 0) + token.text.length);
    // What says nothing yet is held back with its text.
    if (token.text !== "" || token.finish || token.logprob !== undefined) yield chunk([form.piece(token, place ?? 0)]);
  }
  if (includeUsage) yield chunk([], { usage: usage.json });
}
