// Continuous batching: texts that come and go between the steps of one generator, and share what
// their prompts have in common. Knows no model: a request makes the generator.

import type { Handle, Output, Request } from "../backend.js";
import { encode } from "../encode.js";
import { aborted, disposed, fail } from "../errors.js";
import { Owned, resourceOf } from "../owned.js";
import { create, drop, run } from "./backend.js";
import { type Chosen, chosen, type Text, type TextRequest } from "./generation.js";
import { int32Of } from "./outputs.js";
import { throughProxies } from "./proxies.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

/**
 * Steps that are asked for at once, as in a call of `generate`: the second is computed while the
 * first is told.
 */
const STEPS_AHEAD = 2;

/** A text that is to be continued. */
export interface Asked {
  readonly text: Text;
  readonly request: TextRequest & { readonly prompt: Int32Array };
}

/** Checks a call, and makes its texts. */
export type Ask = (prompt: unknown, options: types.BatchGenerateOptions | undefined) => Promise<Asked[]>;

/** What one call waits for. */
class Sink {
  readonly tokens: types.BatchToken[] = [];
  error: { readonly thrown: unknown } | undefined;
  #wake: (() => void) | undefined;

  changed(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  fail(thrown: unknown): void {
    this.error ??= { thrown };
    this.changed();
  }

  wait(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve));
  }
}

/** A text of a call, in the queue or in the generator. */
class Place {
  /** Its number in the generator, once it has one. */
  number: number | undefined;
  isGone = false;

  constructor(
    readonly asked: Asked,
    /** Which of its call's texts it is. */
    readonly index: number,
    readonly sink: Sink,
  ) {}

  /** What a step chose for it; whether it ended. */
  take(row: Chosen): boolean {
    const { text, request } = this.asked;
    if (row.isFailed) {
      this.sink.fail(nonNumbers());
      return true;
    }
    const { logprob, topLogprobs } = row.probable;
    // (A step tells as much of every text as one of them asks for.)
    const asks = request.logprobs;
    const probable = typeof asks === "number" && logprob !== undefined ? { logprob, topLogprobs: topLogprobs?.slice(0, asks) ?? [] } : {};
    const token = text.push({ ...row, index: this.index, probable });
    this.sink.tokens.push({ ...token, promptTokens: request.prompt.length, reusedTokens: row.reused });
    this.sink.changed();
    return token.finish !== null;
  }
}

function nonNumbers(): unknown {
  try {
    return fail("OPTION", "logits", "numbers, one of them above −∞", "others");
  } catch (error) {
    return error;
  }
}

/** One generator with the texts in it. */
class Session {
  readonly #generator: Promise<Handle>;
  /** By their numbers. */
  readonly #places = new Map<number, Place>();
  /** Numbers of texts that are being removed: steps that were under way still tell of them. */
  readonly #leaving = new Set<number>();
  /** What came of texts whose numbers are not known yet. */
  readonly #early = new Map<number, Chosen[]>();
  #adding = 0;
  #steps = 0;
  /** What ended it. */
  #error: { readonly thrown: unknown } | undefined;

  constructor(
    request: Request,
    /** Is told of a place that is free, and of the end of everything. */
    readonly owner: { freed(): void; failed(session: Session): void },
  ) {
    this.#generator = create("generator", request);
    this.#generator.catch((error: unknown) => this.fail(error));
  }

  /** Places that are taken. */
  get size(): number {
    return this.#adding + this.#places.size;
  }

  /** Adds a text. */
  add(place: Place): void {
    this.#adding++;
    this.#add(place).then(
      (number) => {
        this.#adding--;
        this.#added(place, number);
      },
      (error: unknown) => {
        this.#adding--;
        place.isGone = true;
        place.sink.fail(error);
        this.owner.freed();
      },
    );
  }

  /** Its number. What it fails at is the text's own fault, or the end of everything. */
  async #add(place: Place): Promise<number> {
    const generator = await this.#generator;
    const added = run(encode(requests.addText, { generator, text: place.asked.request }));
    this.#step(generator);
    const number = int32Of((await added)[0])[0] ?? 0;
    if (this.#error) throw this.#error.thrown;
    return number;
  }

  #added(place: Place, number: number): void {
    const early = this.#early.get(number) ?? [];
    this.#early.delete(number);
    place.number = number;
    if (place.isGone) {
      this.#remove(number, 0);
      this.owner.freed();
      return;
    }
    this.#places.set(number, place);
    for (const row of early) this.#take(row);
    this.#generator.then((generator) => this.#step(generator)).catch(() => {});
  }

  /** Keeps as many steps under way as are to be, while there are texts. */
  #step(generator: Handle): void {
    while (!this.#error && this.size > 0 && this.#steps < STEPS_AHEAD) {
      this.#steps++;
      run(encode(requests.generatorStep, { generator })).then(
        (outputs) => this.#told(generator, outputs),
        (error: unknown) => this.fail(error),
      );
    }
  }

  #told(generator: Handle, outputs: Output[]): void {
    this.#steps--;
    for (const row of chosen(outputs)) this.#take(row);
    this.#step(generator);
  }

  #take(row: Chosen): void {
    const place = this.#places.get(row.index);
    if (place) {
      let isOver: boolean;
      try {
        isOver = place.take(row);
      } catch (error) {
        // (A tokenizer of the caller's own.)
        place.sink.fail(error);
        isOver = true;
      }
      if (isOver) this.leave(place);
    } else if (!this.#leaving.has(row.index) && this.#adding > 0) {
      this.#early.set(row.index, [...(this.#early.get(row.index) ?? []), row]);
    }
  }

  /** Ends a text, whose place is free at once. */
  leave(place: Place): void {
    if (place.isGone) return;
    place.isGone = true;
    // (One that is being added leaves when it is there.)
    if (place.number === undefined || !this.#places.delete(place.number)) return;
    this.#remove(place.number, place.asked.text.told);
    this.owner.freed();
  }

  #remove(text: number, kept: number): void {
    if (this.#error) return;
    this.#leaving.add(text);
    const removed = this.#generator.then((generator) => run(encode(requests.removeText, { generator, text, kept })));
    removed.then(
      () => this.#leaving.delete(text),
      (error: unknown) => this.fail(error),
    );
  }

  /** Ends everything, as the backend did. */
  fail(error: unknown): void {
    if (this.#error) return;
    this.#error = { thrown: error };
    for (const place of this.#places.values()) {
      place.isGone = true;
      place.sink.fail(error);
    }
    this.#places.clear();
    this.#generator.then(drop, () => {});
    this.owner.failed(this);
  }
}

/** The texts of a batch: those that wait, and the generator that has the others. */
class Queue {
  readonly #waiting: Place[] = [];
  #session: Session | undefined;
  isOver = false;

  constructor(
    readonly size: number,
    readonly request: () => Request,
    readonly ask: Ask,
  ) {}

  get running(): number {
    return this.#session?.size ?? 0;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  enter(places: readonly Place[]): void {
    if (this.isOver) throw disposed("batch");
    this.#waiting.push(...places);
    this.freed();
  }

  leave(places: readonly Place[]): void {
    for (const place of places) {
      const at = this.#waiting.indexOf(place);
      if (at >= 0) this.#waiting.splice(at, 1);
      this.#session?.leave(place);
    }
  }

  /** Fills places that are free. */
  freed(): void {
    while (!this.isOver && this.running < this.size) {
      const place = this.#waiting.shift();
      if (!place) return;
      this.#session ??= new Session(this.request(), this);
      this.#session.add(place);
    }
  }

  /** A generator that failed is followed by another. */
  failed(session: Session): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    this.freed();
  }

  end(): void {
    this.isOver = true;
    for (const { sink } of this.#waiting.splice(0)) sink.fail(disposed("batch"));
    this.#session?.fail(disposed("batch"));
  }
}

export class GenerationBatch extends Owned<Queue> {
  /** Use `createBatch` of a model. `request` makes its generator. */
  constructor(size: number, request: () => Request, ask: Ask) {
    const queue = new Queue(size, request, ask);
    super("batch", queue, () => queue.end(), true);
    throughProxies(GenerationBatch);
  }

  get running(): number {
    return resourceOf<Queue>(this).running;
  }

  get waiting(): number {
    return resourceOf<Queue>(this).waiting;
  }

  generate(prompt: unknown, options?: types.BatchGenerateOptions): AsyncGenerator<types.BatchToken, void, undefined> {
    return tokens(resourceOf<Queue>(this), prompt, options);
  }
}

async function* tokens(
  queue: Queue,
  prompt: unknown,
  options: types.BatchGenerateOptions | undefined,
): AsyncGenerator<types.BatchToken, void, undefined> {
  const asked = await queue.ask(prompt, options);
  const signal = options?.signal;
  const sink = new Sink();
  // (A text of no new token has ended before it began.)
  const places = asked.flatMap((one, index) => (one.request.maxNewTokens === 0 ? [] : [new Place(one, index, sink)]));
  if (places.length === 0) return;
  const abort = (): void => sink.fail(aborted(signal?.reason));
  signal?.addEventListener("abort", abort);
  try {
    if (signal?.aborted) abort();
    else queue.enter(places);
    let ended = 0;
    for (;;) {
      // What was told before an error comes before it.
      const token = signal?.aborted ? undefined : sink.tokens.shift();
      if (token) {
        if (token.finish) ended++;
        yield token;
        if (ended === places.length) return;
      } else if (sink.error) throw sink.error.thrown;
      else await sink.wait();
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    queue.leave(places);
  }
}
