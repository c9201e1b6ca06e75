// Stop strings: looked for in a text that comes in pieces and, where they hold added tokens, among
// the ids. Holds back what may become one. Knows no model.

import { commonLength } from "./detokenize.js";
import { type AddedToken, addedTokens } from "./tokenizer.js";
import type { Tokenizer } from "./types.js";

/**
 * Where a text is cut: so many characters of what was told, and `more`, which was not certain
 * there.
 */
interface Cut {
  readonly at: number;
  readonly more: string;
}

/** Stop strings in three readings, each a list of numbers. */
export interface StopPatterns {
  /** Their characters (UTF-16 code units). */
  readonly text: readonly (readonly number[])[];
  /** Of those with special tokens, which the text lacks: their characters, and a token as one. */
  readonly marked: readonly (readonly number[])[];
  /** Of those with added tokens: their ids. */
  readonly ids: readonly (readonly number[])[];
  /** All special tokens. */
  readonly special: ReadonlySet<number>;
}

/** A special token among characters. */
const mark = (id: number): number => 0x10000 + id;

const unitsOf = (text: string): number[] => Array.from({ length: text.length }, (_, at) => text.charCodeAt(at));

/**
 * A text's characters with the special tokens in it as one each, the longest first; undefined where
 * it holds none.
 */
function markedOf(text: string, special: readonly AddedToken[]): number[] | undefined {
  const held = special
    .filter(({ content }) => content !== "" && text.includes(content))
    .sort((a, b) => b.content.length - a.content.length);
  if (held.length === 0) return undefined;
  const units: number[] = [];
  for (let at = 0; at < text.length;) {
    const token = held.find(({ content }) => text.startsWith(content, at));
    units.push(token ? mark(token.id) : text.charCodeAt(at));
    at += token ? token.content.length : 1;
  }
  return units;
}

const withoutSpaces = (text: string): string => text.replaceAll(/\s/g, "");

/** What is looked for. Of a tokenizer of the caller's own no added tokens are known. */
export function stopPatterns(stops: readonly string[], tokenizer: Tokenizer): StopPatterns {
  const added = addedTokens(tokenizer).filter(({ content }) => content !== "");
  const special = added.filter(({ isSpecial }) => isSpecial);
  const contents = new Map(added.map(({ id, content }) => [id, content]));
  const idsOf = (stop: string): number[] => {
    if (!added.some(({ content }) => stop.includes(content))) return [];
    const ids = tokenizer.encode(stop, { addSpecialTokens: false });
    if (!ids.some((id) => contents.has(id))) return [];
    // What the vocabulary lacks is not among the ids: they would be those of another text. (Spaces
    // come and go with a tokenizer's rules.)
    const texts = [ids.map((id) => contents.get(id)).join(""), tokenizer.decode(ids, { skipSpecialTokens: false })];
    return texts.some((text) => withoutSpaces(text) === withoutSpaces(stop)) ? ids : [];
  };
  return {
    text: stops.map(unitsOf),
    marked: stops.map((stop) => markedOf(stop, special)).filter((units) => units !== undefined),
    ids: stops.map(idsOf).filter((ids) => ids.length > 0),
    special: new Set(special.map(({ id }) => id)),
  };
}

/** Knuth, Morris and Pratt: how much of a pattern the last numbers are. */
class Pattern {
  /** How many of the last numbers begin the pattern. */
  matched = 0;
  /** Of each length: the next shorter beginning that ends it. */
  readonly #shorter: number[] = [0, 0];

  constructor(readonly pattern: readonly number[]) {
    for (let length = 2; length <= pattern.length; length++) {
      let shorter = this.#shorter[length - 1] ?? 0;
      while (shorter > 0 && pattern[shorter] !== pattern[length - 1]) shorter = this.#shorter[shorter] ?? 0;
      this.#shorter.push(pattern[shorter] === pattern[length - 1] ? shorter + 1 : 0);
    }
  }

  /** Whether a number ends it. */
  push(x: number): boolean {
    if (this.matched === this.pattern.length) this.matched = this.#shorter[this.matched] ?? 0;
    while (this.matched > 0 && this.pattern[this.matched] !== x) this.matched = this.#shorter[this.matched] ?? 0;
    if (this.pattern[this.matched] === x) this.matched++;
    return this.matched === this.pattern.length;
  }
}

function earlier(a: Cut | undefined, b: Cut | undefined): Cut | undefined {
  if (!a || !b) return a ?? b;
  return b.at < a.at || (b.at === a.at && b.more.length < a.more.length) ? b : a;
}

/** Looks for patterns, and knows where each began. */
class Search {
  readonly #patterns: readonly Pattern[];
  /** Where the text is cut before each of the last numbers: as many as the longest pattern has. */
  readonly #cuts: Cut[] = [];
  readonly #longest: number;
  #count = 0;
  /** The earliest that was found. */
  found: Cut | undefined;

  constructor(patterns: readonly (readonly number[])[]) {
    this.#patterns = patterns.map((pattern) => new Pattern(pattern));
    this.#longest = Math.max(0, ...patterns.map(({ length }) => length));
  }

  get isEmpty(): boolean {
    return this.#longest === 0;
  }

  push(x: number, cut: Cut): void {
    this.#cuts[this.#count % this.#longest] = cut;
    this.#count++;
    for (const pattern of this.#patterns) if (pattern.push(x)) this.found = earlier(this.found, this.#before(pattern.matched));
  }

  /** Where the earliest of those begins that more may complete. */
  get open(): Cut | undefined {
    return this.#patterns.map(({ matched }) => (matched > 0 ? this.#before(matched) : undefined)).reduce(earlier, undefined);
  }

  #before(matched: number): Cut | undefined {
    return this.#cuts[(this.#count - matched) % this.#longest];
  }
}

/** What an id adds to a text. */
export interface Told {
  readonly id: number;
  readonly text: string;
  /**
   * What the text would have ended with before it and after it, beyond what was told (where
   * `needsEnds`).
   */
  readonly before?: string | undefined;
  readonly after?: string | undefined;
}

/** Looks for stop strings in a text that comes in pieces. Holds back what may become one. */
export class Stops {
  readonly #text: Search;
  readonly #marked: Search;
  readonly #ids: Search;
  readonly #special: ReadonlySet<number>;
  /** What was told and not given, and how much was given before it. */
  #held = "";
  #given = 0;
  /** What the marked search knows already of what comes next. */
  #known = "";

  constructor({ text, marked, ids, special }: StopPatterns) {
    this.#text = new Search(text);
    this.#marked = new Search(marked);
    this.#ids = new Search(ids);
    this.#special = special;
  }

  /** Whether added tokens are looked for: the text's ends are wanted then. */
  get needsEnds(): boolean {
    return !this.#marked.isEmpty || !this.#ids.isEmpty;
  }

  /** What of the text so far can be given, and whether a stop string follows it. */
  push({ id, text, before = "", after = "" }: Told): { text: string; stopped: boolean } {
    const at = this.#given + this.#held.length;
    this.#held += text;
    for (let index = 0; index < text.length; index++) this.#text.push(text.charCodeAt(index), { at: at + index, more: "" });
    if (!this.#marked.isEmpty) this.#pushMarked(id, text, at, before, after);
    if (!this.#ids.isEmpty) this.#ids.push(id, { at, more: before });

    const searches = [this.#text, this.#marked, this.#ids];
    const found = searches.map(({ found }) => found).reduce(earlier, undefined);
    if (found) return { text: this.#give(found.at) + found.more, stopped: true };
    const open = searches.map(({ open }) => open).reduce(earlier, undefined);
    return { text: this.#give(open?.at ?? this.#given + this.#held.length), stopped: false };
  }

  #pushMarked(id: number, text: string, at: number, before: string, after: string): void {
    if (this.#special.has(id)) {
      // What is not certain yet comes before the token, as if the text ended there.
      for (let index = commonLength(this.#known, before); index < before.length; index++)
        this.#marked.push(before.charCodeAt(index), { at, more: before.slice(0, index) });
      this.#marked.push(mark(id), { at, more: before });
      this.#known = after;
      return;
    }
    const known = commonLength(this.#known, text);
    for (let index = known; index < text.length; index++) this.#marked.push(text.charCodeAt(index), { at: at + index, more: "" });
    this.#known = known === text.length ? this.#known.slice(known) : "";
  }

  /** What was held back: the text ends, so it becomes no stop string. */
  end(): string {
    return this.#give(this.#given + this.#held.length);
  }

  #give(upTo: number): string {
    const text = this.#held.slice(0, upTo - this.#given);
    this.#held = this.#held.slice(text.length);
    this.#given += text.length;
    return text;
  }
}
