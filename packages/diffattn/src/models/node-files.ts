// Files by their paths, in Node: read by range, written whole or not at all.

import { randomUUID } from "node:crypto";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { fail, outOfMemory, reasonOf } from "../errors.js";
import type { Files, Sink } from "./platform.js";
import { type ByteSource, cutShort, endOf, type Reading, throwIfAborted } from "./source.js";

/** How much is read or written at once, so that an abort is seen and progress told. */
const PIECE = 2 ** 24;

class PathSource implements ByteSource {
  readonly borrowed = false;
  readonly #file: FileHandle;

  constructor(
    readonly name: string,
    readonly length: number,
    file: FileHandle,
  ) {
    this.#file = file;
  }

  async read(first: number, end: number, { signal, onBytes }: Reading): Promise<Uint8Array<ArrayBuffer>> {
    if (end > this.length) cutShort(this.name, first, end, Math.max(0, this.length - first));
    const length = end - first;
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      // Of its own memory, and not filled with zeros first.
      bytes = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
    } catch {
      throw outOfMemory(length);
    }
    for (let got = 0; got < length;) {
      throwIfAborted(signal);
      try {
        const { bytesRead } = await this.#file.read(bytes, got, Math.min(PIECE, length - got), first + got);
        // It was longer when it was opened.
        if (bytesRead === 0) cutShort(this.name, first, end, got);
        got += bytesRead;
        onBytes?.(bytesRead);
      } catch (error) {
        endOf(error, signal, (why) => fail("FILE", this.name, "a file that can be read", why, error));
      }
    }
    return bytes;
  }

  close(): void {
    this.#file.close().catch(() => {});
  }
}

function pathOf(path: string | URL): string {
  if (typeof path === "string") return path;
  try {
    return fileURLToPath(path);
  } catch (cause) {
    // For instance one of another machine.
    return fail("OPTION", "path", "the address of a file of this machine", path.href, cause);
  }
}

const isMissing = (error: unknown): boolean => /^(ENOENT|ENOTDIR)$/.test((error as { code?: string }).code ?? "");

async function openFile(path: string, name: string): Promise<ByteSource | undefined> {
  let file: FileHandle | undefined;
  try {
    file = await open(path);
    const { size } = await file.stat();
    return new PathSource(name, size, file);
  } catch (error) {
    await file?.close();
    return isMissing(error) ? undefined : fail("FILE", name, `the file ${path}`, reasonOf(error), error);
  }
}

async function write(target: string | URL): Promise<Sink> {
  const path = pathOf(target);
  // Beside it: a name is given within one file system only.
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}.tmp`);
  let file: FileHandle;
  try {
    file = await open(temporary, "wx");
  } catch (error) {
    return fail("FILE", path, "a place where a file can be written", reasonOf(error), error);
  }
  const drop = async (): Promise<void> => {
    await file.close().catch(() => {});
    await rm(temporary, { force: true });
  };
  const guarded = async (body: () => Promise<unknown>): Promise<void> => {
    try {
      await body();
    } catch (error) {
      await drop();
      fail("FILE", path, "a file that can be written", reasonOf(error), error);
    }
  };
  return {
    write: (bytes) =>
      guarded(async () => {
        for (let done = 0; done < bytes.byteLength;) {
          const { bytesWritten } = await file.write(bytes, done, Math.min(PIECE, bytes.byteLength - done));
          done += bytesWritten;
        }
      }),
    end: () =>
      guarded(async () => {
        await file.sync();
        await file.close();
        await rename(temporary, path);
      }),
    abort: drop,
  };
}

export const files: Files = {
  async list(folder) {
    const path = pathOf(folder);
    try {
      if (!(await stat(path)).isDirectory()) return undefined;
      return await readdir(path);
    } catch (error) {
      return isMissing(error) ? undefined : fail("FILE", path, "a folder that can be read", reasonOf(error), error);
    }
  },
  split(file) {
    const path = pathOf(file);
    return { folder: dirname(path), name: basename(path) };
  },
  open: (folder, name) => openFile(join(pathOf(folder), name), name),
  write,
};
