// What a model is measured over: a text, ids, or a file of tokens, window by window. Runs no model.

import { arrayType, has, isArray, show, unreadable } from "../check.js";
import { fail } from "../errors.js";
import { accessOf } from "./access.js";
import type { Reading } from "./byte-source.js";
import { folderOf, openFile } from "./folder.js";
import { checkDense, idsOf } from "./ids.js";
import { DocumentStarts, TokenFile } from "./token-file.js";
import type * as types from "./types.js";

/** Ids in their order, and where within them documents begin. */
export interface TokenData {
  readonly length: number;
  /** Ids from `first` to `end`, at most `length`. */
  ids(first: number, end: number): Promise<Int32Array>;
  /** Tokens before `end` that begin a document and were not given yet. */
  starts(end: number): Promise<readonly number[]>;
  close(): void;
}

/** What makes ids of a text. */
export type Encode = (text: string, options?: types.EncodeOptions) => number[];

/** Characters of a text per token that is wanted, at first: most tokens are shorter. */
const CHARACTERS = 16;
/** Tokens at the end of a part of a text that may be others in the whole. */
const UNCERTAIN = 64;

/** So many ids of a text's beginning, or all: no more of the text is split than that takes. */
export function firstIds(encode: Encode, text: string, most: number): Int32Array {
  for (let length = CHARACTERS * (most + UNCERTAIN); ; length *= 4) {
    const isAll = !(length < text.length);
    const ids = encode(isAll ? text : text.slice(0, length));
    if (isAll || ids.length >= most + UNCERTAIN) return Int32Array.from(ids.slice(0, Math.min(most, ids.length)));
  }
}

/** One document in memory. */
const inMemory = (ids: Int32Array): TokenData => ({
  length: ids.length,
  ids: (first, end) => Promise.resolve(ids.subarray(first, end)),
  starts: () => Promise.resolve([]),
  close: () => undefined,
});

/** A file of tokens, which is closed once it is of no more use. */
async function ofFile(given: types.FileSource, most: number, reading: Reading): Promise<TokenData> {
  const { signal } = reading;
  const folder = await folderOf(given, accessOf({ signal }), "data.tokens");
  const name = folder.only ?? fail("OPTION", "data.tokens", "a file of tokens, an address of one, a Blob or bytes", show(given));
  const source = await openFile(folder, name, { signal });
  try {
    const file = await TokenFile.open(source, reading);
    const documents = new DocumentStarts(file);
    return {
      length: Math.min(file.tokens, most),
      ids: (first, end) => file.ids(first, end, reading),
      starts: (end) => documents.before(end, reading),
      close: () => source.close(),
    };
  } catch (error) {
    source.close();
    throw error;
  }
}

/** The file that a caller's object names. */
function tokensOf(given: Record<"tokens", unknown>): types.FileSource {
  try {
    return given.tokens as types.FileSource;
  } catch (thrown) {
    return unreadable("DTYPE", "data", thrown);
  }
}

/** The first `most` tokens of what a caller gave. */
export async function openData(given: unknown, encode: Encode, most: number, signal: AbortSignal | undefined): Promise<TokenData> {
  if (typeof given === "string") return inMemory(firstIds(encode, given, most));
  if (isArray(given) || arrayType(given) === "Int32Array") {
    checkDense("data", given);
    return inMemory(idsOf("data", given).subarray(0, Math.min(most, (given as { length: number }).length)));
  }
  if (has(given, "tokens")) return ofFile(tokensOf(given), most, { signal });
  return fail("DTYPE", "data", "a text, token ids (an array or an Int32Array), or { tokens }, a file of tokens", show(given));
}

/**
 * Windows of `context` tokens, one behind the other, cut where documents begin: texts of two tokens
 * or more, of which each token but the first has something before it. `onRead` is told how many
 * tokens were read.
 */
export async function* stretchesOf(
  data: TokenData,
  context: number,
  onRead: (tokens: number) => void,
): AsyncGenerator<Int32Array, void, undefined> {
  for (let first = 0; first < data.length; first += context) {
    const end = Math.min(first + context, data.length);
    const ids = await data.ids(first, end);
    const starts = (await data.starts(end)).map((start) => start - first).filter((start) => start > 0);
    let from = 0;
    for (const to of [...starts, end - first]) {
      if (to - from >= 2) yield ids.subarray(from, to);
      from = to;
    }
    onRead(end);
  }
}
