// What of a blob has arrived, in the hub's cache: a file beside the blob's place that one process
// writes, under a name that no other has. One that was left half done is taken over by renaming it;
// one that still grows is waited for. No lock is needed: whoever is last only wrote the same bytes
// twice. Asks no one. What goes wrong is Node's error.

import { constants } from "node:fs";
import { copyFile, type FileHandle, mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { besideName, isFile } from "./hub-cache.js";

/** What ends the names of files that are not whole, here and in the hub's own tools. */
const INCOMPLETE = ".incomplete";
/** What ends the names of ours. */
const OURS = `.diffattn${INCOMPLETE}`;

/** Milliseconds in which a file that someone writes grows. */
const QUIET = 10_000;
/** Milliseconds between two looks at it. */
const LOOK = 250;

/** Told while another process downloads: of how much it has. */
export interface Waiting {
  readonly signal?: AbortSignal | undefined;
  readonly onSize?: (bytes: number) => void;
}

interface Seen {
  readonly path: string;
  readonly size: number;
  readonly mtime: number;
  /** When it was made, as far as the file system says. */
  readonly born: number;
  /** Since when it has not changed, as far as is known. */
  readonly since: number;
}

const isBusy = ({ since }: Seen): boolean => Date.now() - since < QUIET;

const isBefore = (a: Seen, b: Seen): boolean => a.born < b.born || (a.born === b.born && a.path < b.path);

/** Files of a blob that are not whole, and how long each has been quiet. */
async function partialsOf(blob: string, before: readonly Seen[]): Promise<Seen[]> {
  const folder = dirname(blob);
  const start = `${basename(blob)}.`;
  const found: Seen[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(start) || !name.endsWith(INCOMPLETE)) continue;
    const path = join(folder, name);
    const stats = await stat(path).catch(() => undefined);
    if (!stats?.isFile()) continue;
    const { size, mtimeMs: mtime, birthtimeMs: born } = stats;
    const known = before.find((one) => one.path === path && one.size === size && one.mtime === mtime);
    // (Another machine's clock may be ahead.)
    found.push({ path, size, mtime, born, since: known?.since ?? Math.min(mtime, Date.now()) });
  }
  return found;
}

/** The half of a blob that this process writes. */
export class Partial {
  #path: string;
  #file: FileHandle;

  private constructor(
    readonly blob: string,
    path: string,
    file: FileHandle,
    /** Bytes that are there. */
    public size: number,
  ) {
    this.#path = path;
    this.#file = file;
  }

  /** A new one, or one that nobody writes any longer; undefined once the blob is there. */
  static async of(blob: string, { signal, onSize }: Waiting): Promise<Partial | undefined> {
    await mkdir(dirname(blob), { recursive: true });
    for (let seen: Seen[] = []; ;) {
      if (await isFile(blob)) return undefined;
      seen = await partialsOf(blob, seen);
      let busy = seen.find(isBusy);
      if (!busy) {
        const mine = (await Partial.#taken(blob, seen)) ?? (await Partial.#made(blob));
        // Of those who begin at once the first goes on.
        seen = await partialsOf(blob, seen);
        const me = seen.find(({ path }) => path === mine.#path);
        busy = seen.find((one) => me && isBusy(one) && isBefore(one, me));
        // One that ended between two looks is no longer among them: the blob tells of it.
        const isThere = !busy && (await isFile(blob));
        if (!busy && !isThere) return mine;
        await mine.leave();
        if (!busy) return undefined;
      }
      onSize?.(busy.size);
      await pause(LOOK, undefined, signal ? { signal } : {});
    }
  }

  static async #made(blob: string): Promise<Partial> {
    const path = `${besideName(blob)}${OURS}`;
    return new Partial(blob, path, await open(path, "wx+"), 0);
  }

  /** One that was left: ours as it is, a copy of other tools', who may go on with theirs. */
  static async #taken(blob: string, seen: readonly Seen[]): Promise<Partial | undefined> {
    const most = [...seen].sort((a, b) => b.size - a.size);
    for (const { path: left } of most) {
      const isOurs = left.endsWith(OURS);
      if (!isOurs && left !== `${blob}${INCOMPLETE}`) continue;
      const path = `${besideName(blob)}${OURS}`;
      try {
        if (isOurs) await rename(left, path);
        else await copyFile(left, path, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
        const file = await open(path, "r+");
        // (It is no longer quiet.)
        await utimes(path, new Date(), new Date());
        return new Partial(blob, path, file, (await file.stat()).size);
      } catch {
        // Another process was faster.
      }
    }
    return undefined;
  }

  /** Adds bytes at its end. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.byteLength - done, this.size);
      done += bytesWritten;
      this.size += bytesWritten;
    }
  }

  /** Its bytes, piece by piece. */
  async *read(piece: number): AsyncGenerator<Uint8Array> {
    const buffer = Buffer.allocUnsafe(piece);
    for (let at = 0; at < this.size;) {
      const { bytesRead } = await this.#file.read(buffer, 0, Math.min(piece, this.size - at), at);
      if (bytesRead === 0) return;
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  /** Begins anew, in a new file: another process may still write the old one. */
  async restart(): Promise<void> {
    await this.drop();
    const made = await Partial.#made(this.blob);
    this.#path = made.#path;
    this.#file = made.#file;
  }

  /**
   * Is the blob from now on; false where another process took it over meanwhile, as one does of
   * which nothing came for long, and has not ended it.
   */
  async end(): Promise<boolean> {
    await this.#file.sync();
    await this.#file.close();
    try {
      await rename(this.#path, this.blob);
      return true;
    } catch (error) {
      if (await isFile(this.blob)) return true;
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
      throw error;
    }
  }

  /** Leaves it, for whoever comes next, at once. */
  async leave(): Promise<void> {
    if (this.size === 0) return this.drop();
    await this.#file.close().catch(() => {});
    await utimes(this.#path, 1, 1).catch(() => {});
  }

  /** Leaves nothing of it. */
  async drop(): Promise<void> {
    await this.#file.close().catch(() => {});
    await rm(this.#path, { force: true });
    this.size = 0;
  }
}
