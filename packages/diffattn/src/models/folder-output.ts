// Files of a folder on their way out: to a folder of the machine's, to streams, or to memory. Knows
// no file.

import { has, isAbsent, show, tagOf } from "../check.js";
import { fail } from "../errors.js";
import { modelsPlatform, type Sink } from "./platform.js";
import { openTarget, writePieces } from "./safetensors.js";
import type { ConvertModelOptions } from "./types.js";

/** What a caller may say of where they go. */
type FolderTarget = ConvertModelOptions["target"];

/** Where files are written, by their names. */
export interface Output {
  begin(name: string, length: number): Promise<Sink>;
  readonly files: Record<string, Uint8Array<ArrayBuffer>> | undefined;
}

/** A folder by its path, streams by name, or memory. */
export async function outputOf(target: FolderTarget, source?: unknown): Promise<Output> {
  if (isAbsent(target)) {
    const files: Record<string, Uint8Array<ArrayBuffer>> = {};
    const begin = async (name: string, length: number): Promise<Sink> => {
      const { sink, file } = await openTarget(undefined, length);
      const end = async (): Promise<void> => {
        await sink.end();
        files[name] = file() ?? new Uint8Array();
      };
      return { ...sink, end };
    };
    return { begin, files };
  }
  if (typeof target === "function") {
    const open = async (name: string, length: number): Promise<Sink> => {
      const stream: unknown = await target(name);
      if (!has(stream, "getWriter")) fail("OPTION", "target", "a function that gives a WritableStream for each name", show(stream));
      return (await openTarget(stream, length)).sink;
    };
    return { begin: open, files: undefined };
  }
  const isPath = typeof target === "string" ? target !== "" : has(target, "protocol") && tagOf(target) === "URL";
  if (!isPath)
    return fail("OPTION", "target", "the path of a folder, or a function that gives a WritableStream for each name", show(target));
  const { files } = modelsPlatform();
  if (!files) return fail("OPTION", "target", "a function that gives a WritableStream for each name, or none, in browsers", show(target));
  if ((typeof source === "string" || tagOf(source) === "URL") && (await files.isSame(source as string | URL, target)))
    fail("OPTION", "target", "a folder other than the source's", show(target));
  return { begin: async (name) => files.write(await files.within(target, name)), files: undefined };
}

/** A whole file. */
export async function writeFile(output: Output, name: string, bytes: Uint8Array): Promise<void> {
  const sink = await output.begin(name, bytes.byteLength);
  try {
    await writePieces(sink, bytes);
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.end();
}
