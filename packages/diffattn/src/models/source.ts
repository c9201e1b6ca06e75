// Bytes of one file by range: out of memory, a `Blob`, or an address. (Paths: node-files.ts.) Knows no format.

import { aborted, DiffAttnError, fail, outOfMemory, reasonOf } from "../errors.js";
import type { LoadOptions } from "./types.js";

/** Who waits for bytes, and is told of them. */
export interface Reading {
  signal?: AbortSignal | undefined;
  /** Told of each piece that came. */
  onBytes?: ((bytes: number) => void) | undefined;
  /** Told how many will come, where a whole file comes and its server says so. */
  onLength?: ((bytes: number) => void) | undefined;
}

/** Who opens a file, and what for. */
export interface Opening extends Reading, Pick<LoadOptions, "cache"> {
  /** All of it will be read. */
  all?: boolean | undefined;
}

/** An open file. */
export interface ByteSource {
  /** What errors call it. */
  readonly name: string;
  readonly length: number;
  /** Whether what `read` gives is memory of the caller, which is not to be given away. */
  readonly borrowed: boolean;
  /** Exactly the bytes from `first` to `end`; FILE when the file ends before. */
  read(first: number, end: number, reading: Reading): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
  /** Keeps nothing of it for the next time: it was no good. */
  forget?(): Promise<unknown>;
}

/** Why something ended: the signal's reason, our own error, or what `otherwise` makes of it. */
export function endOf(error: unknown, signal: AbortSignal | null | undefined, otherwise: (why: string) => never): never {
  if (signal?.aborted) throw aborted(signal.reason);
  if (error instanceof DiffAttnError) throw error;
  return otherwise(reasonOf(error));
}

export const throwIfAborted = (signal: AbortSignal | null | undefined): void => {
  if (signal?.aborted) throw aborted(signal.reason);
};

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

export class BlobSource implements ByteSource {
  readonly borrowed = false;
  readonly length: number;

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
    for (let from = first; from < end; from += PIECE) {
      throwIfAborted(signal);
      const to = Math.min(end, from + PIECE);
      try {
        bytes.set(new Uint8Array(await this.blob.slice(from, to).arrayBuffer()), from - first);
      } catch (error) {
        // For instance a file that was changed after it was chosen.
        endOf(error, signal, (why) => fail("FILE", this.name, "a file that can be read", why, error));
      }
      if (!this.told) onBytes?.(to - from);
    }
    return bytes;
  }

  close(): void {
    // A blob is not closed.
  }
}

/** Bytes that the first request asks for: a small file is whole then, and most headers are in them. */
const FIRST = 2 ** 18;

/** A file that will be read to its end, and is no larger, comes in one answer: more requests would cost more than the memory. */
const SMALL = 2 ** 25;

/** An answer's text that is a page, not a file. */
export const isHtml = (bytes: Uint8Array): boolean =>
  /^\s*<(!doctype|html|head|body|\?xml|!--)/i.test(new TextDecoder().decode(bytes.slice(0, 64)));

const htmlAnswer = (response: Response): boolean => /^\s*(text\/html|application\/xhtml)/i.test(response.headers.get("content-type") ?? "");

/** Which bytes an answer holds, of how many. */
function rangeOf(response: Response): { first: number; end: number; total: number } | undefined {
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(response.headers.get("content-range") ?? "") ?? [];
  return total === undefined ? undefined : { first: Number(first), end: Number(last) + 1, total: Number(total) };
}

async function ask(name: string, url: URL, headers: Record<string, string>, signal: AbortSignal | undefined): Promise<Response> {
  try {
    return await fetch(url, { headers, signal: signal ?? null });
  } catch (error) {
    return endOf(error, signal, (why) => fail("FILE", name, `an answer from ${url.href}`, why, error));
  }
}

/** Gives up an answer. */
const cancel = (response: Response): void => void response.body?.cancel().catch(() => {});

/** The pieces of a body, each at most once. */
async function* piecesOf(name: string, response: Response, { signal, onBytes }: Reading): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      throwIfAborted(signal);
      const { done, value } = await reader.read();
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

/** A claim of the server: for progress alone. */
function announce({ headers }: Response, { onLength }: Reading): void {
  const length = Number(headers.get("content-length"));
  if (length > 0 && headers.get("content-encoding") === null) onLength?.(length);
}

async function bodyOf(name: string, response: Response, reading: Reading): Promise<Blob> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  announce(response, reading);
  for await (const piece of piecesOf(name, response, reading)) pieces.push(piece);
  // A browser may keep it on disk.
  return new Blob(pieces);
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
  /** The whole file, once the server sent it though a range was asked for. */
  #whole: Promise<Blob> | undefined;
  /** What follows `first`, where it was asked for at once. */
  #rest: Promise<Uint8Array<ArrayBuffer>> | undefined;

  constructor(
    readonly name: string,
    readonly url: URL,
    readonly length: number,
    readonly first: Uint8Array<ArrayBuffer>,
    readonly etag: string | null,
  ) {}

  async read(first: number, end: number, reading: Reading): Promise<Uint8Array<ArrayBuffer>> {
    const { name } = this;
    if (end > this.length) cutShort(name, first, end, Math.max(0, this.length - first));
    if (end <= this.first.byteLength) return this.first.slice(first, end);
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
    const { name } = this;
    const response = await ask(name, this.url, { Range: `bytes=${first}-${end - 1}` }, reading.signal);
    const etag = response.headers.get("etag");
    if (this.etag !== null && etag !== null && etag !== this.etag) {
      cancel(response);
      fail("FILE", name, "the file as it was when it was opened", "another");
    }
    if (response.status === 206) {
      const range = rangeOf(response);
      if (range && (range.first !== first || range.end > end)) {
        cancel(response);
        fail("FILE", name, `bytes ${first} to ${end}`, `${range.first} to ${range.end}`);
      }
      return exactly(name, response, { first, end }, reading);
    }
    if (response.status !== 200) {
      cancel(response);
      fail("FILE", name, `bytes ${first} to ${end} of ${this.url.href}`, `the status ${response.status}`);
    }
    this.#whole = bodyOf(name, response, reading);
    // One that did not come may come the next time.
    this.#whole.catch(() => (this.#whole = undefined));
    return new BlobSource(name, await this.#whole, true).read(first, end, reading);
  }

  close(): void {
    // Nothing is open between requests.
  }
}

/** The cached answer of an address, which comes here once. */
async function cached(name: string, url: URL, cache: string, reading: Reading): Promise<ByteSource | Response | undefined> {
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
    const response = await ask(name, url, {}, reading.signal);
    if (!response.ok || htmlAnswer(response)) return response;
    const pieces = piecesOf(name, response, reading);
    announce(response, reading);
    const stream = new ReadableStream<Uint8Array>({
      async pull(controller) {
        const piece = await pieces.next();
        if (piece.done) controller.close();
        else controller.enqueue(piece.value);
      },
      cancel: () => void pieces.return(undefined),
    });
    try {
      await store.put(url, new Response(stream));
      found = await store.match(url);
    } catch (error) {
      // Too large for what the browser grants; or the answer broke off.
      if (reading.signal?.aborted || error instanceof DiffAttnError) endOf(error, reading.signal, () => fail("FILE", name, "", ""));
    }
    if (!found) return undefined;
  }
  const source = new BlobSource(name, await found.blob(), told);
  return Object.assign(source, { forget: () => store.delete(url) });
}

/**
 * The file at an address; undefined when the server has none. `optional`: whether a page in its place means that there is none too,
 * as servers of single-page applications answer.
 */
export async function openUrl(
  name: string,
  url: URL,
  { cache, all, ...reading }: Opening,
  optional: boolean,
): Promise<ByteSource | undefined> {
  const { signal } = reading;
  const kept = cache === undefined ? undefined : await cached(name, url, cache, reading);
  if (kept && "read" in kept) return kept;
  let response = kept ?? (await ask(name, url, { Range: `bytes=0-${FIRST - 1}` }, signal));
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
    return fail("FILE", name, `the file at ${url.href}`, `the status ${response.status}`);
  }
  if (htmlAnswer(response)) {
    cancel(response);
    return optional ? undefined : fail("FILE", name, `the file at ${url.href}`, "an HTML page");
  }
  if (response.status === 206) {
    const range = rangeOf(response);
    if (range?.first === 0 && range.end <= Math.min(FIRST, range.total)) {
      const first = await exactly(name, response, range, reading);
      const source = new RangeSource(name, url, range.total, first, response.headers.get("etag"));
      if (all && range.total <= SMALL) source.readAhead(reading);
      return source;
    }
    // A server of another origin that does not let its Content-Range be seen.
    cancel(response);
    response = await ask(name, url, {}, signal);
    if (response.status !== 200) {
      cancel(response);
      return fail("FILE", name, `the file at ${url.href}`, `the status ${response.status}`);
    }
  }
  return new BlobSource(name, await bodyOf(name, response, reading), true);
}
