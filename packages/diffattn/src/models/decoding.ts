// The text of tokens that come one after the other, as the decoder of a tokenizer.json and its
// clean-up make it: what is certain at once, what a later token can still change when it no longer
// can. So nothing is decoded twice, and the pieces are the text whatever the tokens are. What a
// decoder does with one token is asked of @huggingface/tokenizers; only what reaches across tokens
// is kept here. Knows no ids.

import {
  Bytes,
  Fuse,
  LastToken,
  none,
  type Piece,
  Replacement,
  ReplaceParts,
  Spaces,
  type Step,
  StripParts,
  Tokens,
  Trim,
} from "./decoding-steps.js";

type Library = typeof import("@huggingface/tokenizers");

/** A text that grows. */
export interface Growing<T> {
  /** What is certain after more of it. */
  push(more: readonly T[]): string;
  /** What `end` would give. */
  peek(): string;
  /** What was held back. Nothing may come after it. */
  end(): string;
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

/**
 * Characters that clean-up holds back at most: of each text that it looks for all but the last one.
 */
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

/**
 * A decoder as a step; undefined where it is none of the known ones. `whole`: whether tokens come
 * whole.
 */
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
 * What makes growing texts of tokens (`trims`: special tokens are left out; `cleansUp`: spaces
 * before marks go); undefined where the decoder has a step that looks across tokens in a way of its
 * own. Held back are at most three bytes, what clean-up holds, as many characters as a step takes
 * off or looks for at the end of a text, and of a BPEDecoder one token. (Where words have a suffix,
 * all white space at the end: `decode` trims it.)
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
