// Files that commands write: new ones, whole ones, and never what the command reads. Knows no
// format.

import { readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isTaken, type WholeFile, wholeFile } from "../models/whole-file.js";
import { isAddress } from "./about.js";
import { Failure, fileFailure, UsageError } from "./failure.js";

/**
 * Files of a checkpoint's folder that belong to it, whoever wrote them. Others beside them may be a
 * program's pictures and notes.
 */
const OF_MODEL =
  /\.(safetensors|gguf|bin|pt|pth)$|\.index\.json$|^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|preprocessor_config|vocab)\.json$|^(tokenizer\.model|merges\.txt|vocab\.txt|chat_template\.(jinja|json))$/;

/** One file by whatever name: paths, links and second names of it are equal. */
async function identity(path: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found && `${found.dev} ${found.ino}`;
}

/**
 * The files that a command reads for a checkpoint: what was named, and what belongs to it in the
 * folder.
 */
export async function checkpointFiles(source: string): Promise<string[]> {
  if (isAddress(source)) return [];
  const folder = (await stat(source).catch(() => undefined))?.isDirectory() ? source : dirname(source);
  const names = await readdir(folder).catch(() => []);
  return [source, ...names.filter((name) => OF_MODEL.test(name)).map((name) => join(folder, name))];
}

export interface OutputOptions {
  /** Whether a file of that name may be replaced. */
  force?: boolean | undefined;
  /** Files that the command reads. */
  inputs: readonly string[];
  /** Whether a folder that is not there will be made. */
  makesFolder?: boolean | undefined;
}

/**
 * Refuses a name before any work is done for it: one that is there already (a link counts as
 * itself, wherever it leads), and, whatever is forced, a file that the command reads, by any of its
 * names, or something that is no file.
 */
export async function checkOutput(path: string, { force, inputs, makesFolder }: OutputOptions): Promise<void> {
  const here = await identity(path);
  if (here !== undefined)
    for (const input of inputs)
      if ((await identity(input)) === here) throw new UsageError(`${path}: it is ${input}, which the command reads; choose another name`);
  let taken: boolean;
  try {
    taken = await isTaken(path);
    if (!makesFolder) await stat(dirname(path));
  } catch (error) {
    throw fileFailure(path, error, "written");
  }
  if (taken && !force) throw new Failure(`${path}: it is there already; --force replaces it`);
}

/** Begins a file that is named once it is whole. */
export async function beginOutput(path: string, force: boolean | undefined): Promise<WholeFile> {
  const told = async <T>(body: Promise<T>): Promise<T> => {
    try {
      return await body;
    } catch (error) {
      throw fileFailure(path, error, "written");
    }
  };
  const file = await told(wholeFile(path, force === true));
  return { write: (bytes) => told(file.write(bytes)), end: () => told(file.end()), drop: () => file.drop() };
}

/** Writes a file. */
export async function writeOutput(path: string, content: string | Uint8Array, force: boolean | undefined): Promise<void> {
  const file = await beginOutput(path, force);
  await file.write(typeof content === "string" ? Buffer.from(content) : content);
  await file.end();
}
