// Files of token ids, read range by range: what their header says, ids, and where documents begin.
// Knows no tokenizer and no model.
//
// 32 bytes of header: "DATK", version (u32, 1), bytes of an id (u32, 2 or 4), 0 (u32), tokens
// (u64), documents (u64); then the ids; then the token that each document begins with (u64), from 0
// on, ascending. All numbers little-endian.

import { fail } from "../errors.js";
import type { ByteSource, Reading } from "./byte-source.js";

const MAGIC = "DATK";
const VERSION = 1;
/** Bytes of the header. */
const HEADER = 32;
/** Starts of documents that are read at once. */
const STARTS = 2 ** 13;

const viewOf = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView => new DataView(buffer, byteOffset, byteLength);

/** What a header says, once the file's length agrees with it. */
export class TokenFile {
  private constructor(
    readonly source: ByteSource,
    /** Bytes of an id. */
    readonly width: 2 | 4,
    readonly tokens: number,
    readonly documents: number,
  ) {}

  /** Checks the header and the length. FILE naming the file. */
  static async open(source: ByteSource, reading: Reading): Promise<TokenFile> {
    const { name, length } = source;
    if (length < HEADER) fail("FILE", name, `a file of tokens, ${HEADER} bytes or more`, `${length} bytes`);
    const bytes = await source.read(0, HEADER, reading);
    const magic = String.fromCharCode(...bytes.subarray(0, 4));
    if (magic !== MAGIC) fail("FILE", name, `a file of tokens, which begins with ${MAGIC}`, "another");
    const view = viewOf(bytes);
    const [version, width] = [view.getUint32(4, true), view.getUint32(8, true)];
    if (version !== VERSION) fail("FILE", name, `version ${VERSION} of files of tokens`, String(version));
    if (width !== 2 && width !== 4) return fail("FILE", name, "ids of 2 or 4 bytes", String(width));
    // (What is too large to be exact is larger than any file, too.)
    const [tokens, documents] = [Number(view.getBigUint64(16, true)), Number(view.getBigUint64(24, true))];
    if (HEADER + tokens * width + documents * 8 !== length)
      fail("FILE", name, `${tokens} tokens of ${width} bytes and ${documents} documents`, `${length} bytes`);
    if (tokens > 0 && documents === 0) fail("FILE", name, "one document or more", "none");
    return new TokenFile(source, width, tokens, documents);
  }

  /** Ids from `first` to `end`, both within the file. */
  async ids(first: number, end: number, reading: Reading): Promise<Int32Array> {
    const { source, width } = this;
    const view = viewOf(await source.read(HEADER + first * width, HEADER + end * width, reading));
    return Int32Array.from({ length: end - first }, (_, i) => (width === 2 ? view.getUint16(2 * i, true) : view.getInt32(4 * i, true)));
  }

  /** The tokens that documents `first` to `end` begin with, as the file has them. */
  async starts(first: number, end: number, reading: Reading): Promise<number[]> {
    const at = HEADER + this.tokens * this.width;
    const view = viewOf(await this.source.read(at + 8 * first, at + 8 * end, reading));
    return Array.from({ length: end - first }, (_, i) => Number(view.getBigUint64(8 * i, true)));
  }
}

/** Where the documents of a file begin, one after the other; each is checked as it is read. */
export class DocumentStarts {
  readonly #file: TokenFile;
  #ahead: number[] = [];
  /** Documents that were read. */
  #read = 0;
  #last = -1;

  constructor(file: TokenFile) {
    this.#file = file;
  }

  /** Those before token `end` that were not given yet. */
  async before(end: number, reading: Reading): Promise<number[]> {
    const given: number[] = [];
    for (;;) {
      while (this.#ahead.length > 0 && (this.#ahead[0] ?? end) < end) given.push(this.#ahead.shift() ?? 0);
      if (this.#ahead.length > 0 || this.#read === this.#file.documents) return given;
      await this.#more(reading);
    }
  }

  async #more(reading: Reading): Promise<void> {
    const { source, documents, tokens } = this.#file;
    const end = Math.min(documents, this.#read + STARTS);
    const starts = await this.#file.starts(this.#read, end, reading);
    for (const start of starts) {
      const isNext = this.#last < 0 ? start === 0 : start > this.#last;
      if (!isNext || start >= tokens)
        fail("FILE", source.name, "documents that begin at token 0 and one behind the other", `one at ${start}`);
      this.#last = start;
    }
    this.#read = end;
    this.#ahead = starts;
  }
}
