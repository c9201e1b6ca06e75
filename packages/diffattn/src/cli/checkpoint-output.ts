// Where a command writes a checkpoint: a folder, or a file of its own. What lies beside weights,
// and what is left of a folder that was made for nothing. Knows no conversion.

import { mkdir, realpath, rmdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileFailure } from "./failure.js";

export const isFolder = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
export const isThere = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined)) !== undefined;
/** A path by which one place is equal to itself. */
export const placeOf = async (path: string): Promise<string> => realpath(path).catch(() => resolve(path));

/** Makes a folder for `target`; the first one that was not there. */
export const madeFolder = async (folder: string, target: string): Promise<string | undefined> =>
  mkdir(folder, { recursive: true }).catch((error: unknown) => {
    throw fileFailure(target, error, "written");
  });

/**
 * Removes folders that were made for nothing, from the last to the first; one that holds something
 * by now stays.
 */
export async function removeEmpty(last: string, first: string | undefined): Promise<void> {
  if (first === undefined) return;
  try {
    for (let folder = resolve(last); folder.startsWith(resolve(first)); folder = dirname(folder)) await rmdir(folder);
  } catch {
    // It is not empty.
  }
}
