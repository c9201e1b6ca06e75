// Text from ids that come one after the other: what they add to a prompt's text, in pieces that no
// later id changes. Knows no model and no stop string.

import { show } from "../check.js";
import { fail } from "../errors.js";
import type { Growing } from "./decoding.js";
import { textGrowing } from "./tokenizer.js";
import type { Tokenizer } from "./types.js";

/**
 * Characters at the end of a text that a decode of the caller's own may still change: what is held
 * back of them at most.
 */
export const HELD = 24;
/**
 * Ids of a window, before its text is looked at for a shorter one that says the same; and at most.
 */
const [WINDOW, WIDEST] = [64, 1024];
/** Characters at the end of two windows' texts that say that the ids before do not matter. */
const AGREED = 32;
/**
 * Characters of what was given that are looked through for their place in a text that was
 * rewritten.
 */
const REWRITTEN = 256;

/** The length of what two texts begin with in common; no character is cut in two. */
export function commonLength(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length > 0 && length < Math.max(a.length, b.length) && /[\uD800-\uDBFF]/.test(a[length - 1] ?? "") ? length - 1 : length;
}

function commonEnd(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[a.length - 1 - length] === b[b.length - 1 - length]) length++;
  return length;
}

/**
 * How far into `text` the end of `given` lies, where `text` says the same in other words: of all
 * beginnings of `text` the one that fewest characters taken out and put in make of `given`; of
 * several the shortest, so that nothing is lost.
 */
function placeOf(given: string, text: string): number {
  const common = commonLength(given, text);
  if (common === given.length) return common;
  // Of a long one its end, and what lies about as far in the other.
  const long = given.length - common > REWRITTEN;
  const from = given.slice(long ? -REWRITTEN : common);
  const start = long ? Math.max(common, given.length - 2 * REWRITTEN) : common;
  const to = text.slice(start, given.length + REWRITTEN);
  let before = Array.from({ length: to.length + 1 }, (_, at) => (long ? 0 : at));
  for (let row = 1; row <= from.length; row++) {
    const now = [row];
    for (let at = 1; at <= to.length; at++) {
      const same = from[row - 1] === to[at - 1] ? (before[at - 1] ?? 0) : Infinity;
      now.push(Math.min(same, (before[at] ?? 0) + 1, (now[at - 1] ?? 0) + 1));
    }
    before = now;
  }
  return start + before.indexOf(Math.min(...before));
}

/**
 * How many of a text's last characters are held: an incomplete one, and what a clean-up of spaces
 * may change.
 */
function heldOf(text: string): number {
  const end = text.slice(-HELD);
  const characters = /\uFFFD+$/.exec(end) ?? /[ '][ 'nvr]*$/.exec(end);
  return characters ? characters[0].length : 0;
}

/**
 * The text of a `decode` of which nothing is known but what it gives: it is asked for the text of a
 * window of the last ids. Where the text that was given is rewritten, what follows its place in the
 * new one comes next.
 */
class Window implements Growing<number> {
  readonly #decode: (ids: number[]) => string;
  #ids: number[] = [];
  /** The window's text, and what of it was given: as it was when it was given. */
  #text = "";
  #given = "";
  #limit = WINDOW;

  constructor(decode: (ids: number[]) => string) {
    this.#decode = (ids) => {
      const text: unknown = ids.length > 0 ? decode(ids) : "";
      return typeof text === "string" ? text : fail("OPTION", "tokenizer.decode", "a text", show(text));
    };
  }

  push(ids: readonly number[]): string {
    for (const id of ids) this.#ids.push(id);
    // (A prompt comes whole, each later id alone.)
    if (this.#given === "" && this.#ids.length > WIDEST) this.#ids = this.#ids.slice(-WIDEST);
    this.#text = this.#decode(this.#ids);
    const text = this.#give(this.#text.slice(0, this.#text.length - heldOf(this.#text)));
    this.#shorten();
    return text;
  }

  peek(): string {
    return this.#text.slice(placeOf(this.#given, this.#text));
  }

  end(): string {
    return this.#give(this.#text);
  }

  /** What of a text was not given. */
  #give(text: string): string {
    // What was given stands while it may come back.
    if (this.#given.startsWith(text)) return "";
    const next = text.slice(placeOf(this.#given, text));
    this.#given = text;
    return next;
  }

  /** Leaves ids out that no longer matter: two windows' texts that end alike go on alike. */
  #shorten(): void {
    if (this.#ids.length < this.#limit) return;
    const held = this.#text.length - placeOf(this.#given, this.#text);
    for (let count = WINDOW / 2; count <= this.#ids.length / 2; count *= 2) {
      const ids = this.#ids.slice(-count);
      const text = this.#decode(ids);
      if (commonEnd(text, this.#text) < Math.max(AGREED, held + 1) && count < WIDEST / 2) continue;
      this.#ids = ids;
      this.#text = text;
      this.#given = text.slice(0, Math.max(0, text.length - held));
      this.#limit = Math.max(WINDOW, 2 * count);
      return;
    }
    this.#limit = Math.min(2 * this.#ids.length, WIDEST);
  }
}

/** Decodes ids as they come: what they add to the text of a prompt. */
export class Detokenizer {
  readonly #text: Growing<number>;
  /**
   * How the prompt's text ends, as far as an id can still change it: what of it stays is no part of
   * what is added.
   */
  #prompt: string;

  constructor(tokenizer: Pick<Tokenizer, "decode">, prompt: ArrayLike<number>) {
    this.#text = textGrowing(tokenizer) ?? new Window((ids) => tokenizer.decode(ids));
    this.#text.push(Array.from(prompt));
    this.#prompt = this.#text.peek();
  }

  /** The text that an id adds, with what was held back before it. */
  push(id: number): string {
    const text = this.#text.push([id]);
    const common = commonLength(this.#prompt, text);
    this.#prompt = common < text.length ? "" : this.#prompt.slice(common);
    return text.slice(common);
  }

  /** What `end` would give. */
  peek(): string {
    const text = this.#text.peek();
    return text.slice(commonLength(this.#prompt, text));
  }

  /** What is left at the end, though it may be no whole character. */
  end(): string {
    const text = this.#text.end();
    return text.slice(commonLength(this.#prompt, text));
  }
}
