// The model behind the server: who may have a place, and what a request is counted as. Knows no
// form of an answer.

import { ApiError } from "./api-error.js";
import { Metrics } from "./metrics.js";
import type { BatchGenerateOptions, BatchToken, ChatMessage, GenerationBatch, LanguageModel } from "../../models/types.js";

export interface Limits {
  /** Texts that are written at once. */
  readonly parallel: number;
  /** Texts that may wait for a place. */
  readonly queue: number;
}

/** Ids that are read as one text go no further than positions were trained; others have no end. */
const contextOf = ({ config }: LanguageModel): number => {
  const told = config["max_position_embeddings"] ?? config["max_seq_len"];
  return typeof told === "number" && told >= 1 ? told : Infinity;
};

/** Ids where nothing says how many there may be. */
const MOST = 4096;

export class Engine {
  readonly metrics = new Metrics();
  readonly context: number;
  /** When it was loaded, in seconds. */
  readonly created = Math.floor(Date.now() / 1000);
  /** Texts of requests that have not ended. */
  #texts = 0;
  isStopping = false;

  constructor(
    readonly name: string,
    readonly model: LanguageModel,
    readonly batch: GenerationBatch,
    readonly limits: Limits,
  ) {
    this.context = contextOf(model);
  }

  /** Refuses another model's name. */
  check(model: string | undefined): void {
    if (model !== undefined && model !== this.name)
      throw new ApiError(404, `there is no model "${model.slice(0, 100)}": this server has "${this.name}"`, "model", "model_not_found");
  }

  /** How many texts one request can have. */
  get most(): number {
    return this.limits.parallel + this.limits.queue;
  }

  get load(): { running: number; waiting: number } {
    // (Of those that are not computed in the batch, embeddings, too.)
    const { running } = this.batch;
    return { running, waiting: Math.max(0, this.#texts - running) };
  }

  /** Takes places for texts; gives them back when called. Refuses where the queue is full. */
  enter(texts: number): () => void {
    if (this.isStopping) throw new ApiError(503, "the server is stopping", null, "stopping");
    if (texts > this.most) throw new ApiError(400, `a request has at most ${this.most} texts here, this one has ${texts}`, "n");
    if (this.#texts + texts > this.most) throw new ApiError(429, "the queue is full: try again later", null, "queue_full");
    this.#texts += texts;
    let isIn = true;
    return () => {
      if (isIn) this.#texts -= texts;
      isIn = false;
    };
  }

  /** New tokens of a text whose prompt has so many, where so many were asked for. */
  room(promptTokens: number, asked: number | undefined, otherwise: number | undefined, param: string): number {
    const left = this.context - promptTokens;
    if (left < 1) {
      const message = `the prompt has ${promptTokens} tokens, and the model reads ${this.context}, the answer's among them`;
      throw new ApiError(400, message, param, "context_length_exceeded");
    }
    return Math.min(asked ?? otherwise ?? MOST, left);
  }

  /** Writes; what it took is counted. */
  async *write(
    prompt: readonly ChatMessage[] | readonly (readonly number[])[],
    options: BatchGenerateOptions,
  ): AsyncGenerator<BatchToken, void, undefined> {
    const { metrics } = this;
    const begin = performance.now();
    const begun = new Set<number>();
    for await (const token of this.batch.generate(prompt, options)) {
      if (!begun.has(token.index)) {
        begun.add(token.index);
        metrics.firstToken.add((performance.now() - begin) / 1000);
        metrics.promptTokens += token.promptTokens;
        metrics.reusedTokens += token.reusedTokens;
      }
      metrics.generatedTokens++;
      yield token;
    }
  }
}
