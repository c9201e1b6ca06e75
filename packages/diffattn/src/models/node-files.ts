// Files by their paths, in Node: read by range, written whole or not at all.

import { constants, type Stats } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { fail, outOfMemory, reasonOf } from "../errors.js";
import type { Files, Sink } from "./platform.js";
import { endOf, throwIfAborted } from "./abort.js";
import type { ByteSource, Reading } from "./byte-source.js";
import { cutShort } from "./source.js";
import { wholeFile } from "./whole-file.js";

/** How much is read at once, so that an abort is seen and progress told. */
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

/** What lies at a path where no regular file does. */
function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return "a folder";
  if (stats.isFIFO()) return "a FIFO";
  if (stats.isSocket()) return "a socket";
  return stats.isCharacterDevice() || stats.isBlockDevice() ? "a device" : "something else";
}

/** Opens regular files only: to open another thing may wait for ever, or do something. */
async function openFile(path: string, name: string): Promise<ByteSource | undefined> {
  let file: FileHandle | undefined;
  try {
    const regular = (stats: Stats): Stats => (stats.isFile() ? stats : fail("FILE", name, `a regular file at ${path}`, kindOf(stats)));
    regular(await stat(path));
    // Another may have taken its name since: not waiting for it, and looked at again. (Windows has
    // neither.)
    file = await open(path, constants.O_RDONLY | ((constants.O_NONBLOCK as number | undefined) ?? 0));
    return new PathSource(name, regular(await file.stat()).size, file);
  } catch (error) {
    await file?.close();
    if (isMissing(error)) return undefined;
    return endOf(error, undefined, (why) => fail("FILE", name, `the file ${path}`, why, error));
  }
}

async function write(target: string | URL): Promise<Sink> {
  const path = pathOf(target);
  const told = async <T>(body: Promise<T>, expected: string): Promise<T> => {
    try {
      return await body;
    } catch (error) {
      return fail("FILE", path, expected, reasonOf(error), error);
    }
  };
  const file = await told(wholeFile(path, true), "a place where a file can be written");
  return {
    write: (bytes) => told(file.write(bytes), "a file that can be written"),
    end: () => told(file.end(), "a file that can be written"),
    abort: () => file.drop(),
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
  async within(folder, name) {
    const path = pathOf(folder);
    try {
      await mkdir(path, { recursive: true });
    } catch (error) {
      fail("FILE", path, "a place where a folder can be made", reasonOf(error), error);
    }
    return join(path, name);
  },
  async rename(from, to) {
    try {
      await rename(from, to);
      // What is renamed is there after a loss of power only once its folder says so.
      const folder = await open(dirname(to), constants.O_RDONLY);
      await folder
        .sync()
        .catch(() => {})
        .finally(() => folder.close());
    } catch (error) {
      fail("FILE", to, "a name that a folder can have", reasonOf(error), error);
    }
  },
  async remove(folder) {
    try {
      await rm(folder, { recursive: true, force: true });
    } catch (error) {
      fail("FILE", folder, "a folder that can be removed", reasonOf(error), error);
    }
  },
  async isSame(given, folder) {
    // (What is no path of this machine is no folder of it.)
    const path = typeof given === "string" || given.protocol === "file:" ? pathOf(given) : undefined;
    const [here, there] = await Promise.all(
      [path, pathOf(folder)].map(async (one) => (one === undefined ? undefined : stat(one).catch(() => undefined))),
    );
    if (path === undefined || !here || !there) return false;
    const place = here.isDirectory() ? here : await stat(dirname(path));
    return place.dev === there.dev && place.ino === there.ino;
  },
};
