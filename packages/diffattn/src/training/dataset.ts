// Datasets: texts and ids as files of tokens, which are read window by window. Texts are split by
// the caller's tokenizer; how a file of tokens is laid out is Rust's (requests 165, 166). Decides
// no order.

import { checkOptions, has, isAbsent, isArray, isOf, show, tagOf } from "../check.js";
import { encode } from "../encode.js";
import { fail, reasonOf } from "../errors.js";
import { Owned, resourceOf } from "../owned.js";
import { checkSignal } from "../run.js";
import { throwIfAborted } from "../models/abort.js";
import { accessOf } from "../models/access.js";
import type { ByteSource, Reading } from "../models/byte-source.js";
import { folderOf, openFile } from "../models/folder.js";
import { idsOf } from "../models/ids.js";
import { bufferOf, jsonOf } from "../models/outputs.js";
import { MemorySource } from "../models/source.js";
import type { FileSource, Tokenizer } from "../models/types.js";
import { run } from "./backend.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

/** Bytes of a file's header. */
export const HEADER = 32;
const MAGIC = "DATK";
const OPTIONS = ["tokenizer", "context", "documents", "separator", "endId", "eval", "seed", "signal"];
const MODES = ["mask", "join"] as const;
/** How much text a tokenizer gets at once: it makes an object per token. */
const PIECE = 2 ** 16;

/** A file of tokens, and what of it stays in memory. */
export interface TokenSource {
  readonly source: ByteSource;
  readonly header: Uint8Array<ArrayBuffer>;
  readonly starts: Uint8Array<ArrayBuffer>;
  /** Which windows it has. */
  readonly windows: { context: number; documents: types.DocumentMode; eval: number; seed: number };
}

/** A whole number within bounds. */
export function wholeIn(name: string, given: unknown, least: number, otherwise: number): number {
  if (isAbsent(given)) return otherwise;
  const isRight = Number.isSafeInteger(given) && (given as number) >= least;
  return isRight ? (given as number) : fail("OPTION", name, `a whole number from ${least}`, show(given));
}

/** A finite number. */
export function numberOf(name: string, given: unknown, otherwise: number): number {
  if (isAbsent(given)) return otherwise;
  return typeof given === "number" && Number.isFinite(given) ? given : fail("OPTION", name, "a finite number", show(given));
}

class TokenDataset extends Owned<TokenSource> implements types.Dataset {
  readonly tokens: number;
  readonly documents: number;
  readonly context: number;

  constructor(of: TokenSource) {
    super("dataset", of, () => of.source.close(), true);
    const view = new DataView(of.header.buffer, of.header.byteOffset);
    this.tokens = Number(view.getBigUint64(16, true));
    this.documents = Number(view.getBigUint64(24, true));
    this.context = of.windows.context;
  }

  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    const { source } = resourceOf<TokenSource>(this);
    const bytes = await source.read(0, source.length, {});
    return source.borrowed ? bytes.slice() : bytes;
  }
}

/** The tokens of a dataset of ours. */
export const tokensOf = (dataset: types.Dataset): TokenSource =>
  isOf(dataset, TokenDataset) ? resourceOf<TokenSource>(dataset, "data") : fail("OPTION", "data", "what createDataset gave", show(dataset));

/** Whether data is a dataset already. */
export const isDataset = (data: unknown): data is types.Dataset => has(data, "bytes") && has(data, "dispose") && has(data, "documents");

/** An open file, whatever it lies in. */
async function openOne(source: FileSource, name: string, reading: Reading): Promise<ByteSource> {
  const folder = await folderOf(source, accessOf({ signal: reading.signal }), name);
  if (folder.only === undefined) return fail("OPTION", name, "a file", "a folder");
  return openFile(folder, folder.only, reading);
}

/** A file of tokens that begins so. */
async function ofFile(source: ByteSource, windows: TokenSource["windows"], reading: Reading): Promise<TokenDataset> {
  const header = (await source.read(0, Math.min(HEADER, source.length), reading)).slice();
  const [told] = await run(encode(requests.tokenFile, { file: source.name, length: source.length, header }));
  const { starts } = jsonOf(told) as { starts: [number, number] };
  const read = (await source.read(...starts, reading)).slice();
  return new TokenDataset({ source, header, starts: read, windows });
}

/** A file of tokens in memory. */
export async function tokenFile(documents: readonly (readonly number[] | Int32Array)[]): Promise<Uint8Array<ArrayBuffer>> {
  const full = documents.filter((ids) => ids.length > 0);
  const length = full.reduce((sum, ids) => sum + ids.length, 0);
  const ids = new Int32Array(length);
  const starts = new Int32Array(full.length);
  let at = 0;
  for (const [index, document] of full.entries()) {
    starts[index] = at;
    ids.set(document, at);
    at += document.length;
  }
  const tensor = (data: Int32Array): { data: Int32Array; shape: number[] } => ({ data, shape: [data.length] });
  const [file] = await run(encode(requests.writeTokens, { ids: tensor(ids), starts: tensor(starts) }));
  return new Uint8Array(bufferOf(file));
}

/** Pieces of a text that end behind a line, so that no word is cut. */
function* piecesOf(text: string): Generator<string> {
  for (let at = 0; at < text.length;) {
    let end = Math.min(at + PIECE, text.length);
    if (end < text.length) {
      const line = text.lastIndexOf("\n", end);
      if (line > at) end = line + 1;
      // (No half of a pair of surrogates.)
      else if (/[\uD800-\uDBFF]/.test(text.charAt(end - 1))) end -= 1;
    }
    yield text.slice(at, end);
    at = end;
  }
}

/** How texts become ids. */
interface Splitting {
  readonly tokenizer: Tokenizer | null | undefined;
  readonly separator: string | undefined;
  readonly endId: number | undefined;
  readonly signal: AbortSignal | null | undefined;
}

/** The documents of a text, as ids. */
async function idsOfText(text: string, { tokenizer, separator, endId, signal }: Splitting): Promise<number[][]> {
  if (!tokenizer) return fail("UNAVAILABLE", "tokenizer", "a tokenizer, to split texts with", "none");
  const documents: number[][] = [];
  for (const part of separator === undefined ? [text] : text.split(separator)) {
    const ids: number[] = [];
    for (const piece of piecesOf(part)) {
      throwIfAborted(signal ?? undefined);
      for (const id of tokenizer.encode(piece, { addSpecialTokens: false })) ids.push(id);
      // Other things of the page have their turn.
      await new Promise((resolve) => setTimeout(resolve));
    }
    if (ids.length > 0 && endId !== undefined) ids.push(endId);
    if (ids.length > 0) documents.push(ids);
  }
  return documents;
}

/** The text of a file. */
async function textOf(source: ByteSource, reading: Reading): Promise<string> {
  const bytes = await source.read(0, source.length, reading);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    return fail("FILE", source.name, "a text in UTF-8, or a file of tokens", reasonOf(cause), cause);
  }
}

const isIdList = (x: unknown): x is readonly number[] | Int32Array =>
  tagOf(x) === "Int32Array" || (isArray(x) && x.every((id) => typeof id === "number"));

/** The documents that a source names, but for one file. */
async function documentsOf(source: object, how: Splitting): Promise<(readonly number[] | Int32Array)[]> {
  if ("ids" in source) {
    const { ids } = source;
    if (isIdList(ids)) return [idsOf("ids", ids)];
    if (isArray(ids)) return ids.map((one, index) => idsOf(`ids[${index}]`, one));
    return fail("OPTION", "ids", "token ids, or lists of them", show(ids));
  }
  const documents: number[][] = [];
  // (One by one: a spread of many would be too many arguments.)
  const add = (found: number[][]): void => found.forEach((ids) => documents.push(ids));
  if ("text" in source) {
    const texts = isArray(source.text) ? source.text : [source.text];
    for (const [index, text] of texts.entries()) {
      if (typeof text !== "string") fail("OPTION", `text[${index}]`, "a text", show(text));
      add(await idsOfText(text, how));
    }
    return documents;
  }
  if ("files" in source && isArray(source.files)) {
    for (const [index, file] of source.files.entries()) {
      const open = await openOne(file as FileSource, `files[${index}]`, { signal: how.signal ?? undefined });
      try {
        add(await idsOfText(await textOf(open, { signal: how.signal ?? undefined }), how));
      } finally {
        open.close();
      }
    }
    return documents;
  }
  return fail("OPTION", "data", "a file, { files }, { text } or { ids }", show(source));
}

/** Whether a source is of several things, or of none that a file is. */
const isNamed = (source: unknown): source is object =>
  tagOf(source) === "Object" && (has(source, "ids") || has(source, "text") || has(source, "files"));

/** Whether a file is one of tokens. */
async function isTokens(source: ByteSource, reading: Reading): Promise<boolean> {
  if (source.length < MAGIC.length) return false;
  const first = await source.read(0, MAGIC.length, reading);
  return String.fromCharCode(...first) === MAGIC;
}

export async function createDataset(source: types.DatasetSource, options?: types.DatasetOptions): Promise<types.Dataset> {
  const given = checkOptions("options", options, OPTIONS);
  const { signal, separator, endId, tokenizer, documents } = given;
  checkSignal(signal);
  const mode = documents ?? "mask";
  if (!MODES.includes(mode)) fail("OPTION", "documents", '"mask" or "join"', show(documents));
  if (!isAbsent(separator) && (typeof separator !== "string" || separator === ""))
    fail("OPTION", "separator", "a text that is not empty", show(separator));
  const windows = {
    context: wholeIn("context", given.context, 2, 256),
    documents: mode,
    eval: numberOf("eval", given.eval, 0.05),
    seed: wholeIn("seed", given.seed, 0, 0),
  };
  const how: Splitting = { tokenizer, separator, endId: isAbsent(endId) ? undefined : wholeIn("endId", endId, 0, 0), signal };
  const reading = { signal: signal ?? undefined };
  let found: (readonly number[] | Int32Array)[];
  if (isNamed(source)) found = await documentsOf(source, how);
  else {
    const open = await openOne(source, "data", reading);
    let isKept = false;
    try {
      if (await isTokens(open, reading)) {
        const dataset = await ofFile(open, windows, reading);
        isKept = true;
        return dataset;
      }
      found = await idsOfText(await textOf(open, reading), how);
    } finally {
      if (!isKept) open.close();
    }
  }
  return ofFile(new MemorySource("data", await tokenFile(found)), windows, reading);
}
