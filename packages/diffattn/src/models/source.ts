// Bytes of one file by range: out of memory, a `Blob`, or an address. (Paths: node-files.ts.) Knows
// no format.

import { DiffAttnError, fail, outOfMemory } from "../errors.js";
import { endOf, throwIfAborted, until } from "./abort.js";
import { ask, cancel, isWeb, mostOf, permit, shown, tooLong } from "./access.js";
import type { Access, ByteSource, Opening, Reading } from "./byte-source.js";

/** New memory of a size that some file claims. */
export function memoryOf(bytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch {
    throw outOfMemory(bytes);
  }
}

export const cutShort = (name: string, first: number, end: number, got: number): never =>
  fail("FILE", name, `bytes ${first} to ${end}`, `${got} of them: the file is cut short`);

/** Bytes that the caller holds. */
export class MemorySource implements ByteSource {
  readonly borrowed = true;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(
    readonly name: string,
    bytes: Uint8Array,
  ) {
    // (Shared memory is read like any other.)
    this.#bytes = bytes as Uint8Array<ArrayBuffer>;
  }

  get length(): number {
    return this.#bytes.byteLength;
  }

  read(first: number, end: number, { signal, onBytes }: Reading): Promise<Uint8Array<ArrayBuffer>> {
    return new Promise((resolve) => {
      throwIfAborted(signal);
      if (end > this.length) cutShort(this.name, first, end, Math.max(0, this.length - first));
      onBytes?.(end - first);
      resolve(this.#bytes.subarray(first, end));
    });
  }

  close(): void {
    // The memory is the caller's.
  }
}

/** How much of a blob is read at once, so that an abort is seen. */
const PIECE = 2 ** 24;
/**
 * Less is read out of blocks of this size: slices of a file that a browser keeps come at 700 MB a
 * second when they are large, and at 200 when they are a layer's tensors.
 */
const AHEAD = 2 ** 22;
/** Blocks that are kept: tensors of a layer lie in a few places. */
const AHEAD_BLOCKS = 4;

export class BlobSource implements ByteSource {
  readonly borrowed = false;
  readonly length: number;
  /** By their number; the one that was asked for last is the last. */
  readonly #blocks = new Map<number, Promise<Uint8Array<ArrayBuffer>>>();

  /** `told`: whether its bytes were told of when they came. */
  constructor(
    readonly name: string,
    readonly blob: Blob,
    readonly told = false,
  ) {
    this.length = blob.size;
  }

  async read(first: number, end: number, { signal, onBytes }: Reading): Promise<Uint8Array<ArrayBuffer>> {
    if (end > this.length) cutShort(this.name, first, end, Math.max(0, this.length - first));
    const bytes = memoryOf(end - first);
    const isAhead = end - first < AHEAD;
    for (let from = first, to = first; from < end; from = to) {
      throwIfAborted(signal);
      try {
        if (isAhead) {
          const at = Math.floor(from / AHEAD);
          to = Math.min(end, (at + 1) * AHEAD);
          bytes.set((await this.#block(at)).subarray(from - at * AHEAD, to - at * AHEAD), from - first);
        } else {
          to = Math.min(end, from + PIECE);
          bytes.set(await this.#slice(from, to), from - first);
        }
      } catch (error) {
        // For instance a file that was changed after it was chosen.
        endOf(error, signal, (why) => fail("FILE", this.name, "a file that can be read", why, error));
      }
      if (!this.told) onBytes?.(to - from);
    }
    return bytes;
  }

  async #slice(from: number, to: number): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await this.blob.slice(from, to).arrayBuffer());
  }

  #block(at: number): Promise<Uint8Array<ArrayBuffer>> {
    const block = this.#blocks.get(at) ?? this.#slice(at * AHEAD, Math.min(this.length, (at + 1) * AHEAD));
    this.#blocks.delete(at);
    this.#blocks.set(at, block);
    const [oldest = at] = this.#blocks.keys();
    if (this.#blocks.size > AHEAD_BLOCKS) this.#blocks.delete(oldest);
    // One that failed may come the next time.
    block.catch(() => this.#blocks.delete(at));
    return block;
  }

  close(): void {
    // A blob is not closed.
    this.#blocks.clear();
  }
}

/**
 * Bytes that the first request asks for: a small file is whole then, and most headers are in them.
 */
const FIRST = 2 ** 18;

/**
 * A file that will be read to its end, and is no larger, comes in one answer: more requests would
 * cost more than the memory.
 */
const SMALL = 2 ** 25;

/** An answer's text that is a page, not a file. */
export const isHtml = (bytes: Uint8Array): boolean =>
  /^\s*<(!doctype|html|head|body|\?xml|!--)/i.test(new TextDecoder().decode(bytes.slice(0, 64)));

const htmlAnswer = (response: Response): boolean => /^\s*(text\/html|application\/xhtml)/i.test(response.headers.get("content-type") ?? "");

/**
 * Which bytes an answer holds, of how many; undefined where it does not say. FILE for what no file
 * has: a length that is no integer of less than 2^53, an end before the first byte or past the
 * last.
 */
export function rangeOf(name: string, response: Response): { first: number; end: number; total: number } | undefined {
  const given = response.headers.get("content-range");
  const [, ...numbers] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(given ?? "") ?? [];
  const [first = 0, last = 0, total] = numbers.map(Number);
  if (total === undefined) return undefined;
  if (!Number.isSafeInteger(total) || first > last || last >= total) {
    cancel(response);
    fail("FILE", name, "a range of bytes within a file", `"${given?.slice(0, 100)}"`);
  }
  return { first, end: last + 1, total };
}

/** The pieces of a body, each at most once. */
export async function* piecesOf(name: string, response: Response, { signal, onBytes }: Reading): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      throwIfAborted(signal);
      const { done, value } = await until(signal, reader.read());
      if (done) return;
      onBytes?.(value.byteLength);
      yield value;
    }
  } catch (error) {
    endOf(error, signal, (why) => fail("FILE", name, "all of its bytes", why, error));
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** How many bytes will come, as the server claims: its files' own, or of a compressed form. */
function claimOf({ headers }: Response): number | undefined {
  const length = Number(headers.get("content-length"));
  return Number.isSafeInteger(length) && length > 0 ? length : undefined;
}

/** Tells a claim to who shows progress. */
function announce(response: Response, { onLength }: Reading): void {
  const length = claimOf(response);
  if (length !== undefined && response.headers.get("content-encoding") === null) onLength?.(length);
}

/** How many bytes of a body are read, and what more of them are told as. */
interface Limit {
  readonly bytes: number;
  refuse(got: string): never;
}

const limitOf = (name: string, access: Access): Limit => {
  const bytes = mostOf(name, access);
  return { bytes, refuse: (got) => tooLong(name, bytes, got) };
};

/**
 * Passes on the pieces of a body, as they come out of its decoder, and gives it up where there are
 * more.
 */
async function* within(name: string, response: Response, limit: Limit, reading: Reading): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const claim = claimOf(response);
  if (claim !== undefined && claim > limit.bytes) {
    cancel(response);
    limit.refuse(String(claim));
  }
  announce(response, reading);
  let got = 0;
  for await (const piece of piecesOf(name, response, reading)) {
    got += piece.byteLength;
    if (got > limit.bytes) limit.refuse("more");
    yield piece;
  }
}

/** Pieces are gathered to so many bytes: a server may send them one by one. */
const BLOCK = 2 ** 20;

async function bodyOf(name: string, response: Response, limit: Limit, reading: Reading): Promise<Blob> {
  const blocks: Uint8Array<ArrayBuffer>[] = [];
  let block = new Uint8Array(0);
  let used = 0;
  for await (const piece of within(name, response, limit, reading)) {
    for (let at = 0; at < piece.byteLength;) {
      if (used === block.byteLength) {
        // The first is small, as most files are.
        block = memoryOf(blocks.length === 0 ? Math.max(2 ** 12, piece.byteLength) : BLOCK);
        blocks.push(block);
        used = 0;
      }
      const part = piece.subarray(at, at + block.byteLength - used);
      block.set(part, used);
      used += part.byteLength;
      at += part.byteLength;
    }
  }
  if (used < block.byteLength) blocks.splice(-1, 1, block.subarray(0, used));
  try {
    // A browser may keep it on disk.
    return new Blob(blocks);
  } catch {
    throw outOfMemory(blocks.reduce((sum, { byteLength }) => sum + byteLength, 0));
  }
}

/** A range's bytes, as many as were asked for, whatever the answer says of itself. */
async function exactly(
  name: string,
  response: Response,
  { first, end }: { first: number; end: number },
  reading: Reading,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = memoryOf(end - first);
  let got = 0;
  for await (const piece of piecesOf(name, response, reading)) {
    if (got + piece.byteLength > bytes.byteLength) fail("FILE", name, `bytes ${first} to ${end}`, "more of them");
    bytes.set(piece, got);
    got += piece.byteLength;
  }
  return got < bytes.byteLength ? cutShort(name, first, end, got) : bytes;
}

/** A file at an address whose server answers with ranges. */
class RangeSource implements ByteSource {
  readonly borrowed = false;
  readonly length: number;
  readonly first: Uint8Array<ArrayBuffer>;
  readonly etag: string | null;
  /** The whole file, once the server sent it though a range was asked for. */
  #whole: Promise<Blob> | undefined;
  /** What follows `first`, where it was asked for at once. */
  #rest: Promise<Uint8Array<ArrayBuffer>> | undefined;

  constructor(
    readonly name: string,
    readonly url: URL,
    readonly access: Access,
    /** What the first answer said, and the bytes that came with it. */
    { length, first, etag }: Pick<RangeSource, "length" | "first" | "etag">,
  ) {
    this.length = length;
    this.first = first;
    this.etag = etag;
  }

  async read(first: number, end: number, reading: Reading): Promise<Uint8Array<ArrayBuffer>> {
    const { name } = this;
    if (end > this.length) cutShort(name, first, end, Math.max(0, this.length - first));
    // (No request says a range of no bytes.)
    if (end <= this.first.byteLength || first === end) return this.first.slice(first, end);
    if (this.#whole) return new BlobSource(name, await this.#whole, true).read(first, end, reading);
    // One that did not come is asked for in ranges.
    const rest = await this.#rest?.catch(() => (this.#rest = undefined));
    if (!rest) return this.#ask(first, end, reading);
    const bytes = memoryOf(end - first);
    const from = this.first.byteLength;
    if (first < from) bytes.set(this.first.subarray(first));
    bytes.set(rest.subarray(Math.max(0, first - from), end - from), Math.max(0, from - first));
    return bytes;
  }

  /** Asks for all that follows the first bytes, and keeps it. */
  readAhead(reading: Reading): void {
    this.#rest = this.#ask(this.first.byteLength, this.length, reading);
    this.#rest.catch(() => {});
  }

  /** The bytes of a range, by a request. */
  async #ask(first: number, end: number, reading: Reading): Promise<Uint8Array<ArrayBuffer>> {
    const { name, access } = this;
    const response = await ask(name, this.url, { range: `bytes=${first}-${end - 1}` }, access, reading.signal);
    const etag = response.headers.get("etag");
    const range = response.status === 206 ? rangeOf(name, response) : undefined;
    if ((this.etag !== null && etag !== null && etag !== this.etag) || (range && range.total !== this.length)) {
      cancel(response);
      fail("FILE", name, "the file as it was when it was opened", "another");
    }
    if (response.status === 206) {
      if (range && (range.first !== first || range.end > end)) {
        cancel(response);
        fail("FILE", name, `bytes ${first} to ${end}`, `${range.first} to ${range.end}`);
      }
      return exactly(name, response, { first, end }, reading);
    }
    if (response.status !== 200) {
      cancel(response);
      fail("FILE", name, `bytes ${first} to ${end} of ${shown(this.url)}`, `the status ${response.status}`);
    }
    this.#whole = this.#all(response, reading);
    // One that did not come may come the next time.
    this.#whole.catch(() => (this.#whole = undefined));
    return new BlobSource(name, await this.#whole, true).read(first, end, reading);
  }

  /** A whole file, which is to be as long as it was said to be. */
  async #all(response: Response, reading: Reading): Promise<Blob> {
    const { name, length } = this;
    let limit = limitOf(name, this.access);
    if (length < limit.bytes) limit = { bytes: length, refuse: (got) => fail("FILE", name, `${length} bytes`, got) };
    const blob = await bodyOf(name, response, limit, reading);
    return blob.size < length ? cutShort(name, 0, length, blob.size) : blob;
  }

  close(): void {
    // Nothing is open between requests.
  }
}

/** The cached answer of an address, which comes here once. */
async function cached(name: string, url: URL, cache: string, access: Access, reading: Reading): Promise<ByteSource | Response | undefined> {
  if (!/^https?:$/.test(url.protocol)) return undefined;
  let store: Cache;
  let found: Response | undefined;
  try {
    // Insecure pages have none, and Node has none.
    store = await caches.open(cache);
    found = await store.match(url);
  } catch {
    return undefined;
  }
  const told = !found;
  if (!found) {
    const response = await ask(name, url, {}, access, reading.signal);
    if (!response.ok || htmlAnswer(response)) return response;
    const pieces = within(name, response, limitOf(name, access), reading);
    let broken: unknown;
    const stream = new ReadableStream<Uint8Array>({
      async pull(controller) {
        try {
          const piece = await pieces.next();
          if (piece.done) controller.close();
          else controller.enqueue(piece.value);
        } catch (error) {
          broken = error;
          throw error;
        }
      },
      cancel: () => void pieces.return(undefined),
    });
    try {
      await store.put(url, new Response(stream));
      found = await store.match(url);
    } catch (error) {
      // The answer broke off, was too long or is not waited for; or it is larger than what the
      // browser grants.
      throwIfAborted(reading.signal);
      if (broken instanceof DiffAttnError) throw broken;
      if (error instanceof DiffAttnError) throw error;
    }
    if (!found) return undefined;
  }
  const source = new BlobSource(name, await found.blob(), told);
  return Object.assign(source, { forget: () => store.delete(url) });
}

/**
 * The file at an address; undefined when the server has none. `optional`: whether a page in its
 * place means that there is none too, as servers of single-page applications answer.
 */
export async function openUrl(
  name: string,
  url: URL,
  opening: Opening,
  optional: boolean,
  access: Access,
): Promise<ByteSource | undefined> {
  if (isWeb(url) || !optional) return openAnswer(name, url, opening, optional, access);
  try {
    return await openAnswer(name, url, opening, optional, access);
  } catch (error) {
    // A file of a browser's extension is missing without a status: no answer comes (Chromium), or
    // one that breaks off (Firefox).
    if (error instanceof DiffAttnError && error.code === "FILE" && error.cause !== undefined) return undefined;
    throw error;
  }
}

/** Tells of a refusal to who knows what it means. */
function told(name: string, response: Response, { onRefusal }: Access): void {
  try {
    onRefusal?.(name, response);
  } catch (error) {
    cancel(response);
    throw error;
  }
}

async function openAnswer(
  name: string,
  url: URL,
  { all, ...reading }: Opening,
  optional: boolean,
  access: Access,
): Promise<ByteSource | undefined> {
  const { signal } = reading;
  const { cache } = access;
  // (Before what was kept is looked at, too.)
  await permit(name, url, access, signal);
  const kept = cache === undefined ? undefined : await cached(name, url, cache, access, reading);
  if (kept && "read" in kept) return kept;
  // (What is no server may answer with a range's bytes and the status of the whole file, as an
  // extension's address in Chromium does.)
  let response = kept ?? (await ask(name, url, isWeb(url) ? { range: `bytes=0-${FIRST - 1}` } : {}, access, signal));
  if (!response.ok) told(name, response, access);
  if (response.status === 404 || response.status === 410) {
    cancel(response);
    return undefined;
  }
  if (response.status === 416) {
    cancel(response);
    return new BlobSource(name, new Blob([]));
  }
  if (!response.ok) {
    cancel(response);
    return fail("FILE", name, `the file at ${shown(url)}`, `the status ${response.status}`);
  }
  if (htmlAnswer(response)) {
    cancel(response);
    return optional ? undefined : fail("FILE", name, `the file at ${shown(url)}`, "an HTML page");
  }
  if (response.status === 206) {
    const range = rangeOf(name, response);
    if (range?.first === 0 && range.end <= FIRST) {
      const first = await exactly(name, response, range, reading);
      const source = new RangeSource(name, url, access, { length: range.total, first, etag: response.headers.get("etag") });
      if (all && range.end < range.total && range.total <= SMALL) source.readAhead(reading);
      return source;
    }
    // A server of another origin that does not let its Content-Range be seen.
    cancel(response);
    response = await ask(name, url, {}, access, signal);
    if (response.status !== 200) {
      cancel(response);
      return fail("FILE", name, `the file at ${shown(url)}`, `the status ${response.status}`);
    }
  }
  return new BlobSource(name, await bodyOf(name, response, limitOf(name, access), reading), true);
}
