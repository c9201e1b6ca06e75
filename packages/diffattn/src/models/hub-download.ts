// One file of the hub, brought into the cache on this disk: asked about first, then downloaded from
// where an earlier try ended, tried again where the connection breaks, and given its name once its
// bytes are those that the hub named. Nothing that a server says of itself is trusted with a path,
// a length or the token.

import { createHash } from "node:crypto";
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { DiffAttnError, fail, reasonOf } from "../errors.js";
import { endOf, throwIfAborted } from "./abort.js";
import { ask, cancel, isText, mostOf, shown, tooLong } from "./access.js";
import type { Access, Reading } from "./byte-source.js";
import { isCommit, isFile } from "./hub-cache.js";
import { Partial } from "./hub-partial.js";
import { piecesOf, rangeOf } from "./source.js";

/** What the hub says of a file before it is downloaded. */
export interface HubFile {
  /** What names its content: SHA-256 of a large file, Git's name of another. */
  readonly etag: string;
  /** undefined: not said. */
  readonly size: number | undefined;
}

/** A file that is to come, and how it may be reached. */
export interface Wish {
  /** What errors call it. */
  readonly name: string;
  readonly url: URL;
  readonly commit: string;
  readonly access: Access;
}

/** Connections that may break in a row, each without as much as this coming. */
const BREAKS = 5;
const ADVANCE = 2 ** 20;
/** Milliseconds before the first of the tries that follow; each next one waits twice as long. */
const WAIT = 250;
/** Bytes that are hashed at once. */
const PIECE = 2 ** 20;

/** What a server calls a content, where it can be a file's name. */
function etagOf({ headers }: Response): string | undefined {
  const given = headers.get("x-linked-etag") ?? headers.get("etag");
  const [, etag] = /^(?:W\/)?"?([^"]*)"?$/.exec(given ?? "") ?? [];
  return etag !== undefined && /^[\dA-Za-z][\w-]{7,127}$/.test(etag) ? etag : undefined;
}

function sizeOf({ headers, status }: Response): number | undefined {
  const own = status === 200 && headers.get("content-encoding") === null ? headers.get("content-length") : null;
  const given = headers.get("x-linked-size") ?? own;
  const size = Number(given);
  return given !== null && /^\d+$/.test(given) && Number.isSafeInteger(size) ? size : undefined;
}

/** Refuses an answer that is a refusal. */
function refuseStatus({ name, url, access }: Wish, response: Response): never {
  cancel(response);
  access.onRefusal?.(name, response);
  return fail("FILE", name, `the file at ${shown(url)}`, `the status ${response.status}`);
}

/** What the hub says of a file. */
export async function lookAt(wish: Wish, signal: AbortSignal | undefined): Promise<HubFile> {
  const { name, url, commit, access } = wish;
  const response = await ask(name, url, { head: true, plain: true }, access, signal);
  const isElsewhere = response.status >= 300 && response.status < 400;
  if (!response.ok && !isElsewhere) return refuseStatus(wish, response);
  cancel(response);
  const given = response.headers.get("x-repo-commit");
  if (given !== null && isCommit(given) && given !== commit) fail("FILE", name, `the file of commit ${commit}`, `that of ${given}`);
  const etag = etagOf(response) ?? fail("FILE", name, `an ETag of the file at ${shown(url)}`, "none that names its content");
  return { etag, size: sizeOf(response) };
}

/** The most bytes that are taken of a file. */
function limitOf({ name, access }: Wish, { size }: HubFile): number {
  const most = size === undefined || isText(name) ? mostOf(name, access) : Infinity;
  return size !== undefined && size > most ? tooLong(name, most, String(size)) : Math.min(most, size ?? most);
}

/** Refuses a file that the disk has no room for. */
async function checkRoom({ name }: Wish, blob: string, wanted: number): Promise<void> {
  // (Not every file system says.)
  const told = await statfs(dirname(blob)).catch(() => undefined);
  const room = told && told.bavail * told.bsize;
  if (room !== undefined && room > 0 && room < wanted) fail("FILE", name, `${wanted} bytes of room in ${dirname(blob)}`, String(room));
}

/** A connection that broke, which may be another time's. */
class Broken extends Error {
  constructor(override readonly cause: unknown) {
    super("broken");
  }
}

/** An answer with the bytes that are missing. */
async function answerOf(wish: Wish, partial: Partial, file: HubFile, signal: AbortSignal | undefined): Promise<Response> {
  const { name, url, access } = wish;
  const { size } = partial;
  let response: Response;
  try {
    response = await ask(name, url, { plain: true, ...(size > 0 && { range: `bytes=${size}-` }) }, access, signal);
  } catch (error) {
    throwIfAborted(signal);
    // What is no answer has its cause.
    throw error instanceof DiffAttnError && error.cause !== undefined ? new Broken(error) : error;
  }
  const { status } = response;
  if (status === 206 && size > 0) {
    const range = rangeOf(name, response);
    if (range?.first === size && (file.size === undefined || range.total === file.size)) return response;
    cancel(response);
    return fail("FILE", name, `bytes from ${size} on${file.size === undefined ? "" : ` of ${file.size}`}`, "others");
  }
  if (status === 200) {
    if (size > 0) await partial.restart();
    return response;
  }
  if (status === 429 || status >= 500) {
    cancel(response);
    throw new Broken(new DiffAttnError("FILE", `${name}: expected the file at ${shown(url)}, got the status ${status}`));
  }
  return refuseStatus(wish, response);
}

/** One try: what is missing, as far as it comes. */
async function pull(wish: Wish, partial: Partial, file: HubFile, reading: Reading): Promise<void> {
  const { name } = wish;
  const { signal, onBytes } = reading;
  const most = limitOf(wish, file);
  const response = await answerOf(wish, partial, file, signal);
  const pieces = piecesOf(name, response, { signal });
  for (;;) {
    let next: IteratorResult<Uint8Array>;
    try {
      next = await pieces.next();
    } catch (error) {
      throwIfAborted(signal);
      throw new Broken(error);
    }
    if (next.done) break;
    if (partial.size + next.value.byteLength > most) {
      await pieces.return(undefined);
      await partial.drop();
      if (file.size === undefined) tooLong(name, most, "more");
      fail("FILE", name, `${most} bytes`, "more");
    }
    await partial.write(next.value);
    onBytes?.(next.value.byteLength);
  }
  if (file.size !== undefined && partial.size < file.size)
    throw new Broken(new DiffAttnError("FILE", `${name}: expected ${file.size} bytes, got ${partial.size} of them: the file is cut short`));
}

/** Says how far it came, and what the last try ended with. */
function giveUp({ name }: Wish, { size }: Partial, file: HubFile, last: unknown): never {
  const why = reasonOf((last as Error).cause ?? last);
  const wanted = file.size === undefined ? "all of its bytes" : `${file.size} bytes`;
  fail("FILE", name, wanted, `${size} of them after ${BREAKS + 1} tries, from where the next call goes on (${why})`, last);
}

/** Pulls until all is there. */
async function pullAll(wish: Wish, partial: Partial, file: HubFile, reading: Reading): Promise<void> {
  let breaks = 0;
  for (let before = partial.size; file.size === undefined || partial.size !== file.size; before = partial.size) {
    try {
      await pull(wish, partial, file, reading);
      return;
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      breaks = partial.size - before >= ADVANCE ? 1 : breaks + 1;
      if (breaks > BREAKS) giveUp(wish, partial, file, error.cause);
      await pause(WAIT * 2 ** (breaks - 1), undefined, reading.signal ? { signal: reading.signal } : {});
    }
  }
}

/** The algorithm that a content is named by, where it is known. */
const algorithmOf = (etag: string): "sha256" | "sha1" | undefined =>
  /^[0-9a-f]{64}$/.test(etag) ? "sha256" : /^[0-9a-f]{40}$/.test(etag) ? "sha1" : undefined;

/** What the bytes that are there are named, by the same algorithm. */
async function hashOf(partial: Partial, algorithm: "sha256" | "sha1", signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash(algorithm);
  // Git's name of a content has its length before it.
  if (algorithm === "sha1") hash.update(`blob ${partial.size}\0`);
  for await (const piece of partial.read(PIECE)) {
    throwIfAborted(signal);
    hash.update(piece);
  }
  return hash.digest("hex");
}

/** Fills a half, and gives it its name; false where another process has taken it over. */
async function fill(wish: Wish, partial: Partial, file: HubFile, reading: Reading): Promise<boolean> {
  const algorithm = algorithmOf(file.etag);
  // What cannot be told by its name, or its length, may be no half of it.
  if (partial.size > 0 && (!algorithm || file.size === undefined || partial.size > file.size)) await partial.restart();
  for (let isResumed = partial.size > 0; ; isResumed = false) {
    await checkRoom(wish, partial.blob, (file.size ?? 0) - partial.size);
    reading.onBytes?.(partial.size);
    await pullAll(wish, partial, file, reading);
    const got = algorithm && (await hashOf(partial, algorithm, reading.signal));
    if (got === undefined || got === file.etag) return partial.end();
    // The beginning, which another try left, may be what is wrong.
    if (isResumed) {
      await partial.restart();
      continue;
    }
    await partial.drop();
    fail("FILE", wish.name, `bytes of the ${algorithm === "sha1" ? "SHA-1 (Git's)" : "SHA-256"} ${file.etag}`, got);
  }
}

/**
 * Downloads a file to its place among the cache's blobs; whether it was not there. What of it came
 * stays for the next time, unless it was wrong.
 */
export async function download(wish: Wish, file: HubFile, blob: string, reading: Reading): Promise<boolean> {
  const { signal, onLength } = reading;
  if (await isFile(blob)) return false;
  limitOf(wish, file);
  if (file.size !== undefined) onLength?.(file.size);
  // What another process downloads counts as it comes.
  let told = 0;
  const tell = (bytes: number): void => {
    if (bytes > told) reading.onBytes?.(bytes - told);
    told = Math.max(told, bytes);
  };
  try {
    for (;;) {
      const partial = await Partial.of(blob, { signal, onSize: tell });
      if (!partial) {
        tell(file.size ?? 0);
        return false;
      }
      let at = 0;
      try {
        if (await fill(wish, partial, file, { signal, onBytes: (bytes) => tell((at += bytes)) })) return true;
      } catch (error) {
        await partial.leave();
        throw error;
      }
    }
  } catch (error) {
    return endOf(error, signal, (why) => fail("FILE", wish.name, `a place for files at ${dirname(blob)}`, why, error));
  }
}
