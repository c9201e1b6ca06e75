// Text from ids that come one after the other: whole characters only, and nothing of a stop string. Knows no model.

import type { Tokenizer } from "./types.js";

/** Ids before the text that decide how its first one is written: whether a space belongs to it, whether a character goes on. */
const CONTEXT = 6;
/** What stands for bytes that are no whole character yet. */
const INCOMPLETE = "\uFFFD";

/** The length of what two texts begin with in common. */
function commonLength(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length;
}

/**
 * Decodes ids as they come. What is given is what the text gains: decoding a window's ids with and without the new ones, because
 * how an id is written depends on those before it.
 */
export class Detokenizer {
  readonly #decode: (ids: number[]) => string;
  /** Ids of the window: some whose text was given, then those whose text was not. */
  #ids: number[];
  #given: number;

  constructor({ decode }: Pick<Tokenizer, "decode">, prompt: ArrayLike<number>) {
    this.#decode = (ids) => (ids.length > 0 ? decode(ids) : "");
    this.#ids = Array.from(prompt).slice(-CONTEXT);
    this.#given = this.#ids.length;
  }

  /** The text that an id adds, with what was held back before it. */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#pending();
    if (text.endsWith(INCOMPLETE)) return "";
    this.#take();
    return text;
  }

  /** What is left at the end, though it may be no whole character. */
  end(): string {
    const text = this.#pending();
    this.#take();
    return text;
  }

  #pending(): string {
    const before = this.#decode(this.#ids.slice(0, this.#given));
    const after = this.#decode(this.#ids);
    return after.slice(commonLength(before, after));
  }

  #take(): void {
    // Of what was just given at least one id stays, and of more than that as much as there was.
    this.#ids = this.#ids.slice(Math.max(0, Math.min(this.#given, this.#ids.length - CONTEXT)));
    this.#given = this.#ids.length;
  }
}

/** Looks for stop strings in a text that comes in pieces. Holds back what may become one. */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** What of the text so far can be given, and whether a stop string follows it. */
  push(piece: string): { text: string; stopped: boolean } {
    const all = this.#held + piece;
    let at = Infinity;
    for (const stop of this.#stops) {
      const found = all.indexOf(stop);
      if (found >= 0) at = Math.min(at, found);
    }
    if (at < Infinity) {
      this.#held = "";
      return { text: all.slice(0, at), stopped: true };
    }
    const held = this.#longestBeginning(all);
    this.#held = all.slice(all.length - held);
    return { text: all.slice(0, all.length - held), stopped: false };
  }

  /** What was held back: the text ends, so it becomes no stop string. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** How many of the last characters begin a stop string. */
  #longestBeginning(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
