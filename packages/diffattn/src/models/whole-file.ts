// A file by its path, in Node, that is written whole or not at all: beside its place, and named
// once nothing is missing. What goes wrong is Node's error, or one with a code of its kind.

import { randomUUID } from "node:crypto";
import { link, lstat, open, readlink, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** How much is written at once, so that progress is told. */
const PIECE = 2 ** 24;

/** A file that has no name yet. */
export interface WholeFile {
  write(bytes: Uint8Array): Promise<void>;
  /** Gives it its name. */
  end(): Promise<void>;
  /** Leaves nothing of it. */
  drop(): Promise<void>;
}

const failed = (code: string, why: string): NodeJS.ErrnoException => Object.assign(new Error(why), { code, syscall: "open" });

/** File systems without second names. */
const NO_LINKS = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"];

const found = async (path: string): Promise<Awaited<ReturnType<typeof lstat>> | undefined> => {
  try {
    return await lstat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
};

/**
 * Whether there is something of that name: a file, or a link, which is replaced itself, wherever it
 * leads. Rejects for what no file may take the place of: a folder, a device, a pipe, and links to
 * them.
 */
export async function isTaken(path: string): Promise<boolean> {
  const here = await found(path);
  if (!here) return false;
  const there = here.isSymbolicLink() ? await stat(path).catch(() => here) : here;
  if (here.isDirectory() || there.isDirectory()) throw failed("EISDIR", "a folder");
  // /dev/stdout and its like say that they are the file behind them.
  const isStream = here.isSymbolicLink() && (await readlink(path)).startsWith("/proc/");
  if (isStream || !(there.isFile() || there.isSymbolicLink())) throw failed("ENXIO", "a device or a pipe");
  return true;
}

/**
 * Begins a file. `replaces`: whether it takes the place of one that has its name when it ends; else
 * that is EEXIST, then too.
 */
export async function wholeFile(path: string, replaces: boolean): Promise<WholeFile> {
  if ((await isTaken(path)) && !replaces) throw failed("EEXIST", "a file of that name");
  // Beside it: a name is given within one file system only.
  const temporary = join(dirname(path), `.${basename(path).slice(0, 32)}.${randomUUID()}.tmp`);
  const file = await open(temporary, "wx");
  const drop = async (): Promise<void> => {
    await file.close().catch(() => {});
    await rm(temporary, { force: true });
  };
  const guarded = async (body: () => Promise<unknown>): Promise<void> => {
    try {
      await body();
    } catch (error) {
      await drop();
      throw error;
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
        if (replaces) return rename(temporary, path);
        try {
          // Unlike a new name, a second one is refused where a file has it by now.
          await link(temporary, path);
        } catch (error) {
          if (!NO_LINKS.includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
          if (await isTaken(path)) throw failed("EEXIST", "a file of that name");
          return rename(temporary, path);
        }
        await rm(temporary);
      }),
    drop,
  };
}
