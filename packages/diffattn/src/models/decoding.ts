// The text of tokens that come one after the other, as the decoder of a tokenizer.json and its clean-up make it: what is certain at
// once, what a later token can still change when it no longer can. So nothing is decoded twice, and the pieces are the text whatever
// the tokens are. What a decoder does with one token is asked of @huggingface/tokenizers; only what reaches across tokens is kept
// here. Knows no ids.

type Library = typeof import("@huggingface/tokenizers");

/** A part of a token's text, and whether it is its first. */
type Piece = readonly [text: string, starts: boolean];

/** A step of decoding. It gives what is certain and holds the rest. */
interface Step {
  push(pieces: readonly Piece[]): Piece[];
  /** What it holds: no more comes. */
  end(): Piece[];
  copy(): Step;
}

/** A text that grows. */
export interface Growing<T> {
  /** What is certain after more of it. */
  push(more: readonly T[]): string;
  /** What `end` would give. */
  peek(): string;
  /** What was held back. Nothing may come after it. */
  end(): string;
}

const none: Piece[] = [];

/** A decoder of the library that looks at one token alone, and at whether it is the first (`placed`). */
class Tokens implements Step {
  constructor(
    readonly decode: (tokens: string[]) => string[],
    readonly placed: boolean,
    private begun = false,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    if (pieces.length === 0) return none;
    const tokens = pieces.map(([text]) => text);
    const texts = this.placed && this.begun ? this.decode(["", ...tokens]).slice(1) : this.decode(tokens);
    this.begun = true;
    return texts.map((text) => [text, true]);
  }

  end(): Piece[] {
    return none;
  }

  copy(): Tokens {
    return new Tokens(this.decode, this.placed, this.begun);
  }
}

/** A decoder that writes the last token otherwise: one is held. */
class LastToken implements Step {
  constructor(
    readonly decode: (tokens: string[]) => string[],
    private held?: string,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    const tokens = pieces.map(([text]) => text);
    if (this.held !== undefined) tokens.unshift(this.held);
    this.held = tokens.pop();
    return this.decode([...tokens, ""])
      .slice(0, -1)
      .map((text) => [text, true]);
  }

  end(): Piece[] {
    return this.held === undefined ? none : this.decode([this.held]).map((text) => [text, true]);
  }

  copy(): LastToken {
    return new LastToken(this.decode, this.held);
  }
}

/** How many of the last bytes begin a character of UTF-8 that more bytes can complete. */
function incomplete(bytes: readonly number[]): number {
  for (let length = 1; length <= Math.min(3, bytes.length); length++) {
    const first = bytes[bytes.length - length] ?? 0;
    if (first >= 0x80 && first < 0xc0) continue;
    const needed = first < 0xc2 || first > 0xf4 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length >= needed) return 0;
    // The second byte of some has a narrower range: no overlong forms, no surrogates, nothing past U+10FFFF.
    const second = bytes[bytes.length - length + 1] ?? 0xa0;
    const [low, high] = { 0xe0: [0xa0, 0xbf], 0xed: [0x80, 0x9f], 0xf0: [0x90, 0xbf], 0xf4: [0x80, 0x8f] }[first] ?? [0x80, 0xbf];
    return length === 1 || (second >= (low ?? 0) && second <= (high ?? 0)) ? length : 0;
  }
  return 0;
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const BYTE_ORDER_MARK = "\uFEFF";

/** Bytes to characters: tokens that are bytes, one after the other, are one text. At most three bytes are held. */
class Bytes implements Step {
  /** Bytes of the run that are no whole character yet; undefined between two runs. */
  private run: number[] | undefined;
  /** Whether the run has no character yet. */
  private fresh = true;

  /** `bytesOf` a token: undefined where it is none of bytes. `marks`: whether a byte order mark that begins a run is kept. */
  constructor(
    readonly bytesOf: (token: string) => number[] | undefined,
    readonly marks: boolean,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    const out: Piece[] = [];
    let starts = false;
    for (const [token] of pieces) {
      const bytes = this.bytesOf(token);
      if (bytes) {
        if (!this.run) [this.run, this.fresh, starts] = [[], true, true];
        for (const byte of bytes) this.run.push(byte);
      } else {
        if (this.run) out.push([this.characters(this.run), starts]);
        this.run = undefined;
        starts = false;
        out.push([token, true]);
      }
    }
    if (this.run) {
      const whole = this.run.length - incomplete(this.run);
      out.push([this.characters(this.run.slice(0, whole)), starts]);
      this.run = this.run.slice(whole);
    }
    return out;
  }

  end(): Piece[] {
    return this.run && this.run.length > 0 ? [[this.characters(this.run), false]] : none;
  }

  copy(): Bytes {
    const copy = new Bytes(this.bytesOf, this.marks);
    [copy.run, copy.fresh] = [this.run, this.fresh];
    return copy;
  }

  private characters(bytes: readonly number[]): string {
    const text = utf8.decode(Uint8Array.from(bytes));
    const marked = this.fresh && !this.marks && text.startsWith(BYTE_ORDER_MARK);
    if (text !== "") this.fresh = false;
    return marked ? text.slice(1) : text;
  }
}

/** All tokens become one. */
class Fuse implements Step {
  constructor(private begun = false) {}

  push(pieces: readonly Piece[]): Piece[] {
    return pieces.map(([text]) => {
      const starts = !this.begun;
      this.begun = true;
      return [text, starts];
    });
  }

  end(): Piece[] {
    return none;
  }

  copy(): Fuse {
    return new Fuse(this.begun);
  }
}

/** Spaces for the mark that stands for them; the first token loses one. Of tokens in parts. */
class Spaces implements Step {
  private tokens = 0;
  /** Whether nothing of the first token was met. */
  private fresh = true;

  constructor(readonly mark: string) {}

  push(pieces: readonly Piece[]): Piece[] {
    return pieces.map(([piece, starts]) => {
      if (starts) this.tokens++;
      const text = piece.replaceAll(this.mark, " ");
      const first = this.fresh && this.tokens === 1 && text !== "";
      if (first) this.fresh = false;
      return [first && text.startsWith(" ") ? text.slice(1) : text, starts];
    });
  }

  end(): Piece[] {
    return none;
  }

  copy(): Spaces {
    return Object.assign(new Spaces(this.mark), { tokens: this.tokens, fresh: this.fresh });
  }
}

/** How many of a text's last characters begin another one, which it does not hold. */
function beginning(text: string, other: string): number {
  for (let length = Math.min(other.length - 1, text.length); length > 0; length--) if (text.endsWith(other.slice(0, length))) return length;
  return 0;
}

/** `text.replaceAll(find, put)` of a text that grows. What may begin `find` is held. */
class Replacement {
  constructor(
    readonly find: string,
    readonly put: string,
    private held = "",
  ) {}

  push(more: string): string {
    const parts = (this.held + more).split(this.find);
    const rest = parts.pop() ?? "";
    const held = beginning(rest, this.find);
    this.held = rest.slice(rest.length - held);
    return [...parts, rest.slice(0, rest.length - held)].join(this.put);
  }

  end(): string {
    const { held } = this;
    this.held = "";
    return held;
  }

  copy(): Replacement {
    return new Replacement(this.find, this.put, this.held);
  }
}

/** Replaces a text within tokens that come in parts. */
class ReplaceParts implements Step {
  constructor(readonly replacement: Replacement) {}

  push(pieces: readonly Piece[]): Piece[] {
    const out: Piece[] = [];
    for (const [text, starts] of pieces) {
      if (starts) out.push(...this.end());
      out.push([this.replacement.push(text), starts]);
    }
    return out;
  }

  end(): Piece[] {
    const rest = this.replacement.end();
    return rest === "" ? none : [[rest, false]];
  }

  copy(): ReplaceParts {
    return new ReplaceParts(this.replacement.copy());
  }
}

/** Takes a character off both ends of each token, at most so often. Of tokens in parts. */
class StripParts implements Step {
  private left = 0;
  private held = "";

  constructor(
    readonly character: string,
    readonly first: number,
    readonly last: number,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    return pieces.map(([piece, starts]) => {
      if (starts) [this.left, this.held] = [this.first, ""];
      let text = piece;
      while (this.left > 0 && text.startsWith(this.character)) [this.left, text] = [this.left - 1, text.slice(1)];
      if (text !== "") this.left = 0;
      text = this.held + text;
      let at = text.length;
      while (at > 0 && text.length - at < this.last && text[at - 1] === this.character) at--;
      this.held = text.slice(at);
      return [text.slice(0, at), starts];
    });
  }

  /** What was held is what is taken off. */
  end(): Piece[] {
    return none;
  }

  copy(): StripParts {
    return Object.assign(new StripParts(this.character, this.first, this.last), { left: this.left, held: this.held });
  }
}

/** Without white space at both ends. All of it at the end is held. */
class Trim {
  constructor(
    private begun = false,
    private held = "",
  ) {}

  push(more: string): string {
    const text = this.begun ? this.held + more : more.trimStart();
    if (text === "") return "";
    this.begun = true;
    const whole = text.trimEnd();
    this.held = text.slice(whole.length);
    return whole;
  }

  end(): string {
    return "";
  }

  copy(): Trim {
    return new Trim(this.begun, this.held);
  }
}

/** What `clean_up_tokenization_spaces` replaces, in this order. */
const CLEAN_UP = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
] as const;

/** A text without the spaces that clean-up takes away. */
export const cleanedUp = (text: string): string => CLEAN_UP.reduce((text, [find, put]) => text.replaceAll(find, put), text);

/** Characters that clean-up holds back at most: of each text that it looks for all but the last one. */
export const CLEAN_UP_HOLDS = CLEAN_UP.reduce((sum, [find]) => sum + find.length - 1, 0);

type TextStep = Replacement | Trim;

class Decoded implements Growing<string> {
  constructor(
    readonly steps: readonly Step[],
    readonly ends: readonly TextStep[],
  ) {}

  push(tokens: readonly string[]): string {
    let pieces: Piece[] = tokens.map((token) => [token, true]);
    for (const step of this.steps) pieces = step.push(pieces);
    return this.ends.reduce((text, step) => step.push(text), textOf(pieces));
  }

  peek(): string {
    return new Decoded(
      this.steps.map((step) => step.copy()),
      this.ends.map((step) => step.copy()),
    ).end();
  }

  end(): string {
    let pieces: Piece[] = none;
    for (const step of this.steps) pieces = [...step.push(pieces), ...step.end()];
    return this.ends.reduce((text, step) => step.push(text) + step.end(), textOf(pieces));
  }
}

const textOf = (pieces: readonly Piece[]): string => (pieces.length === 1 ? (pieces[0]?.[0] ?? "") : pieces.map(([text]) => text).join(""));

/** What a decoder's configuration may say; nothing of it is certain. */
interface Config {
  readonly type?: unknown;
  readonly decoders?: unknown;
  readonly pattern?: { readonly String?: unknown; readonly Regex?: unknown } | null;
  readonly content?: unknown;
  readonly start?: unknown;
  readonly stop?: unknown;
  readonly replacement?: unknown;
}

/** The bytes that characters of a byte-level vocabulary stand for. */
const BYTE_OF = ((): ReadonlyMap<string, number> => {
  const map = new Map<string, number>();
  let others = 0;
  for (let byte = 0; byte < 256; byte++) {
    const printed = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    map.set(String.fromCharCode(printed ? byte : 256 + others++), byte);
  }
  return map;
})();

/** What is no byte is a zero, as the library has it. */
const byteLevel = (token: string): number[] => Array.from(token, (character) => BYTE_OF.get(character) ?? 0);

function byteFallback(token: string): number[] | undefined {
  if (token.length !== 6 || !token.startsWith("<0x") || !token.endsWith(">")) return undefined;
  const byte = parseInt(token.slice(3, 5), 16);
  return Number.isNaN(byte) ? undefined : [byte & 255];
}

/** The decoders of a sequence, one after the other. */
function flat(config: Config): Config[] {
  if (config.type !== "Sequence") return [config];
  return (Array.isArray(config.decoders) ? (config.decoders as Config[]) : []).flatMap(flat);
}

const isCharacter = (x: unknown): x is string => typeof x === "string" && x.length === 1;
/** A text that is found as well by its code units as by its characters. */
const isPlain = (x: unknown): x is string => typeof x === "string" && x !== "" && !/\p{Cs}/u.test(x);

/** A decoder as a step; undefined where it is none of the known ones. `whole`: whether tokens come whole. */
function stepOf(library: Library, config: Config, whole: boolean, added: ReadonlySet<string>): Step | undefined {
  const given = config as never;
  const tokens = (decoder: { decode_chain(tokens: string[]): string[] }, placed: boolean): Step =>
    new Tokens((tokens) => decoder.decode_chain(tokens), placed);
  if (config.type === "Fuse") return new Fuse();
  if (whole) {
    switch (config.type) {
      case "Replace":
        return tokens(new library.ReplaceDecoder(given), false);
      case "Strip":
        return tokens(new library.StripDecoder(given), false);
      case "Metaspace":
        return tokens(new library.MetaspaceDecoder(given), true);
      case "WordPiece":
        return tokens(new library.WordPieceDecoder(given), true);
      case "ByteFallback":
        return new Bytes(byteFallback, false);
      case "ByteLevel":
        return new Bytes((token) => (added.has(token) ? undefined : byteLevel(token)), true);
      case "BPEDecoder": {
        const decoder = new library.BPEDecoder(given);
        return new LastToken((tokens) => decoder.decode_chain(tokens));
      }
    }
    return undefined;
  }
  const { content = "", start = 0, stop = 0, replacement = "\u2581", pattern } = config;
  if (config.type === "Metaspace" && isCharacter(replacement)) return new Spaces(replacement);
  if (config.type === "Strip" && isCharacter(content) && typeof start === "number" && typeof stop === "number")
    return new StripParts(content, start, stop);
  // (A "$" in what is put means something to the library.)
  if (
    config.type === "Replace" &&
    pattern?.Regex === undefined &&
    isPlain(pattern?.String) &&
    typeof content === "string" &&
    !content.includes("$")
  )
    return new ReplaceParts(new Replacement(pattern.String, content));
  return undefined;
}

export interface Decoding {
  /** The `decoder` of tokenizer.json; null: tokens stand apart. */
  readonly decoder: unknown;
  /** What added tokens are written as. */
  readonly added: ReadonlySet<string>;
  /** What ends a word in the vocabulary, where something does. */
  readonly suffix: string | null | undefined;
}

/**
 * What makes growing texts of tokens (`trims`: special tokens are left out; `cleansUp`: spaces before marks go); undefined where the
 * decoder has a step that looks across tokens in a way of its own. Held back are at most three bytes, what clean-up holds, as many
 * characters as a step takes off or looks for at the end of a text, and of a BPEDecoder one token. (Where words have a suffix, all white
 * space at the end: `decode` trims it.)
 */
export function decoding(
  library: Library,
  { decoder, added, suffix }: Decoding,
): ((options: { trims: boolean; cleansUp: boolean }) => Growing<string>) | undefined {
  const steps: Step[] = [];
  if (decoder === null || decoder === undefined)
    steps.push(new Tokens((tokens) => tokens.map((token, at) => (at > 0 ? ` ${token}` : token)), true));
  else {
    let whole = true;
    // Within a sequence the library tells a decoder of no added tokens.
    const known = (decoder as Config).type === "Sequence" ? new Set<string>() : added;
    for (const config of flat(decoder)) {
      const step = stepOf(library, config, whole, known);
      if (!step) return undefined;
      steps.push(step);
      whole &&= !(step instanceof Bytes || step instanceof Fuse);
    }
  }
  const ends: TextStep[] = [];
  const words = decoder !== null && decoder !== undefined && typeof suffix === "string" && suffix !== "";
  if (words) ends.push(new Replacement(suffix, " "));
  return ({ trims, cleansUp }) =>
    new Decoded(
      steps.map((step) => step.copy()),
      [
        ...ends.map((step) => step.copy()),
        ...(words && trims ? [new Trim()] : []),
        ...(cleansUp ? CLEAN_UP.map(([find, put]) => new Replacement(find, put)) : []),
      ],
    );
}
