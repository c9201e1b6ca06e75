// The prompts of the needle task: running text of whole sentences, a needle between two of them, a
// question at the end, and as many tokens as were asked for. Knows no model.

import type { Encode } from "./evaluation-data.js";
import { CITIES } from "./needle-prose.js";

/** What a prompt hides. */
export interface Draw {
  readonly city: string;
  /** Five digits. */
  readonly number: string;
  /** Where the running text begins, from 0 to below 1 of what there is. */
  readonly start: number;
}

/** mulberry32: numbers in [0, 1) that follow from a seed. */
function numbersOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Numbers as one, none of which another could stand for. */
const mixed = (values: readonly number[]): number =>
  values.reduce((hash, value) => {
    // (Both halves of a number beyond 32 bits.)
    const low = Math.imul(hash ^ (value >>> 0), 0x9e3779b1);
    const both = Math.imul(low ^ (low >>> 16) ^ Math.floor(value / 2 ** 32), 0x85ebca77);
    return both ^ (both >>> 13);
  }, 0x2545f491);

/**
 * What the prompts of a draw hide, at whatever depth: it follows from the seed, the length and the
 * draw's number.
 */
export function drawOf(seed: number, length: number, index: number): Draw {
  const next = numbersOf(mixed([seed, length, index]));
  const city = CITIES[Math.floor(next() * CITIES.length)] ?? "";
  return { city, number: String(10_000 + Math.floor(next() * 90_000)), start: next() };
}

export const needleOf = ({ city, number }: Draw): string => ` The magic number of ${city} is ${number}.`;
export const questionOf = ({ city }: Draw): string => ` The magic number of ${city} is`;

/** Whether what was written begins with the number. */
export const isRight = (answer: string, { number }: Draw): boolean => answer.trimStart().startsWith(number);

/** A text as its sentences, each with the white space before it. */
export function sentencesOf(text: string): string[] {
  const ends = [...text.matchAll(/[.!?]["'”’)\]]*(?=\s)|[。！？][”’」』]*/g)].map(({ index, 0: { length } }) => index + length);
  return [0, ...ends].map((from, i) => text.slice(from, ends[i] ?? text.length)).filter((sentence) => sentence.trim() !== "");
}

/** What comes before the text in whatever the tokenizer makes of one. */
export function beginningOf(encode: Encode): number[] {
  const [whole, bare] = [encode("x"), encode("x", { addSpecialTokens: false })];
  for (let at = 0; at + bare.length <= whole.length; at++) if (bare.every((id, i) => id === whole[at + i])) return whole.slice(0, at);
  return [];
}

/**
 * A text's ids as they are in the middle of another: without what tokenizers put before the first
 * word.
 */
export function idsWithin(encode: Encode, text: string): number[] {
  const options = { addSpecialTokens: false };
  const [before, both] = [encode("x", options), encode(`x${text}`, options)];
  return before.every((id, i) => id === both[i]) ? both.slice(before.length) : encode(text, options);
}

/** Running text: parts of ids, between which a needle may stand. It goes on at its beginning. */
export type Parts = readonly (readonly number[] | Int32Array)[];

/** Tokens of the longest part that is left whole: longer than sentences are. */
const LONGEST = 256;

/** The sentences of a text, as many as hold so many tokens. */
export function partsOfText(encode: Encode, text: string, most: number): Parts {
  const parts: number[][] = [];
  let tokens = 0;
  for (const sentence of sentencesOf(text)) {
    if (tokens >= most) break;
    const ids = idsWithin(encode, /^\s/.test(sentence) || parts.length > 0 ? sentence : ` ${sentence}`);
    for (let at = 0; at < ids.length; at += LONGEST) parts.push(ids.slice(at, at + LONGEST));
    tokens += ids.length;
  }
  return parts;
}

/** Tokens of a part of text that comes as ids. */
const PART = 16;

/** Ids, of which no sentence is known. */
export const partsOfIds = (ids: Int32Array): Parts =>
  Array.from({ length: Math.ceil(ids.length / PART) }, (_, i) => ids.subarray(i * PART, (i + 1) * PART));

/** What a prompt is made of. */
export interface PromptParts {
  /** What every text begins with. */
  readonly beginning: readonly number[];
  readonly parts: Parts;
  readonly needle: readonly number[];
  readonly question: readonly number[];
}

/** A prompt, and which of its tokens are the needle's: from the first to before the last. */
export interface Prompt {
  readonly ids: number[];
  readonly span: readonly [number, number];
}

/**
 * Running text of exactly `room` tokens that ends with a part, and where its parts begin and end.
 */
function runningText(parts: Parts, room: number, start: number): { ids: number[]; bounds: number[] } {
  const all: number[] = [];
  const ends: number[] = [];
  for (let at = Math.floor(start * parts.length); all.length < room; at++) {
    for (const id of parts[at % parts.length] ?? []) all.push(id);
    ends.push(all.length);
  }
  const over = all.length - room;
  return { ids: all.slice(over), bounds: [0, ...ends.map((end) => end - over).filter((end) => end > 0)] };
}

/** Tokens of a prompt that is nothing but needle and question. */
export const leastOf = ({ beginning, needle, question }: PromptParts): number => beginning.length + needle.length + question.length;

/** The prompt of `length` tokens whose needle stands `depth` of the running text deep. */
export function promptOf(given: PromptParts, length: number, depth: number, start: number): Prompt {
  const { beginning, parts, needle, question } = given;
  const room = length - leastOf(given);
  const { ids, bounds } = runningText(parts, room, start);
  const wanted = depth * room;
  const at = bounds.reduce((best, bound) => (Math.abs(bound - wanted) < Math.abs(best - wanted) ? bound : best), 0);
  const first = beginning.length + at;
  return {
    ids: [...beginning, ...ids.slice(0, at), ...needle, ...ids.slice(at), ...question],
    span: [first, first + needle.length],
  };
}
