// Texts through a model, and what they cost: several at a time, or piece by piece where their
// logits would not fit. Knows no data and no options.

import { fail } from "../errors.js";
import type { Tensor } from "../types.js";
import { summedLoss } from "./loss.js";
import type * as types from "./types.js";

/** What goes through a model at once. */
export interface Limits {
  /** Tokens, of texts side by side. */
  readonly tokens: number;
  /** Logits, of whatever comes. */
  readonly logits: number;
}

/**
 * As many tokens as a block of the pass has, and 64 MiB of logits. (`diffattn evaluate
 * examples/model --context 16` reads 1.5 times as many tokens a second as with 64, and no fewer
 * than with 1024.)
 */
const LIMITS: Limits = { tokens: 256, logits: 2 ** 24 };

/** Something with the time that it took, in milliseconds. */
async function timed<T>(body: Promise<T>): Promise<[T, number]> {
  const begin = performance.now();
  const made = await body;
  return [made, performance.now() - begin];
}

/** Reads texts with a model; sums what they cost. */
export class Scores {
  loss = 0;
  counted = 0;
  milliseconds = 0;

  constructor(
    readonly model: Pick<types.LanguageModel, "forward" | "createCache">,
    readonly vocab: number,
    readonly signal: AbortSignal | undefined,
    readonly limits: Limits = LIMITS,
  ) {}

  /** Whether texts of so many tokens may go through the model at once. */
  fits(texts: number, length: number): boolean {
    const tokens = texts * (length - 1);
    return tokens * this.vocab <= this.limits.logits && (texts === 1 || tokens <= this.limits.tokens);
  }

  /** Of texts that fit: the shorter ones are filled up, which nothing before it sees. */
  async add(texts: readonly Int32Array[]): Promise<void> {
    for (const ids of texts) this.#check(ids);
    const longest = Math.max(...texts.map(({ length }) => length));
    const [first] = texts;
    if (first && !this.fits(texts.length, longest)) return this.#byPieces(first);
    const width = longest - 1;
    const data = new Int32Array(texts.length * width);
    for (const [row, ids] of texts.entries()) data.set(ids.subarray(0, ids.length - 1), row * width);
    const logits = await this.#forward(this.model.forward({ data, shape: [texts.length, width] }, { signal: this.signal }));
    for (const [row, ids] of texts.entries()) {
      const size = width * this.vocab;
      this.loss += summedLoss(ids, logits.subarray(row * size, (row + 1) * size), this.vocab);
      this.counted += ids.length - 1;
    }
  }

  /** A text whose logits are too many. */
  async #byPieces(ids: Int32Array): Promise<void> {
    const cache = await this.model.createCache({ capacity: ids.length, dtype: "float32" });
    const piece = Math.max(1, Math.floor(this.limits.logits / this.vocab));
    try {
      for (let at = 0; at < ids.length - 1; at += piece) {
        const some = ids.subarray(at, Math.min(at + piece, ids.length - 1));
        const logits = await this.#forward(this.model.forward(some, { cache, signal: this.signal }));
        this.loss += summedLoss(ids, logits, this.vocab, at);
      }
    } finally {
      cache.dispose();
    }
    this.counted += ids.length - 1;
  }

  async #forward(call: Promise<Tensor>): Promise<Float32Array> {
    const [{ data }, milliseconds] = await timed(call);
    this.milliseconds += milliseconds;
    return data;
  }

  /** The last id of a text is a label alone, so the model does not look at it. */
  #check(ids: Int32Array): void {
    for (const id of ids) if (!(id >= 0 && id < this.vocab)) fail("OPTION", "data", `ids from 0 to ${this.vocab - 1}`, String(id));
  }
}
