// diffattn convert: a checkpoint with other element types or head layouts.

import { mkdir, readFile, realpath, rmdir, stat } from "node:fs/promises";
import { dirname, extname, join, resolve } from "node:path";
import type { WholeFile } from "../models/whole-file.js";
import { Failure, fileFailure, sentence, UsageError } from "./failure.js";
import { bytes } from "./format.js";
import { loadModels, opening } from "./library.js";
import { beginOutput, checkOutput, checkpointFiles, writeOutput } from "./output.js";
import type { Terminal } from "./terminal.js";

export interface ConvertOptions {
  dtype?: "f32" | "f16" | "bf16";
  layout?: "diffllama" | "unilm";
  force?: boolean;
}

/** What `config.json` calls the element types. */
const CONFIG_DTYPES = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;

/** What lies beside weights and stays right for them. */
const COMPANIONS = ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

const isFolder = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
const isThere = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined)) !== undefined;
const placeOf = async (path: string): Promise<string> => realpath(path).catch(() => resolve(path));

/** The configuration with what its weights are now. */
function configOf(path: string, text: Uint8Array, dtype: ConvertOptions["dtype"]): string {
  let config: Record<string, unknown> | null;
  try {
    // (A decoder leaves out a byte order mark.)
    config = JSON.parse(new TextDecoder().decode(text)) as typeof config;
  } catch (error) {
    throw new Failure(`${path}: expected JSON: ${sentence(error)}`, { cause: error });
  }
  if (typeof config === "object" && config !== null)
    for (const key of ["dtype", "torch_dtype"]) if (key in config && dtype) config[key] = CONFIG_DTYPES[dtype];
  return `${JSON.stringify(config, null, 2)}\n`;
}

/**
 * What belongs to a checkpoint, by name; with another layout it is no model that its configuration
 * describes.
 */
async function companionsOf(folder: string, { dtype, layout }: ConvertOptions): Promise<Map<string, string | Uint8Array>> {
  const found = new Map<string, string | Uint8Array>();
  for (const name of [...COMPANIONS, ...(layout === undefined ? ["config.json"] : [])]) {
    const path = join(folder, name);
    if (!(await isThere(path))) continue;
    const content = await readFile(path).catch((error: unknown) => {
      throw fileFailure(path, error);
    });
    found.set(name, name === "config.json" ? configOf(path, content, dtype) : content);
  }
  return found;
}

/**
 * Removes folders that were made for nothing, from the last to the first; one that holds something
 * by now stays.
 */
async function removeEmpty(last: string, first: string | undefined): Promise<void> {
  if (first === undefined) return;
  try {
    for (let folder = resolve(last); folder.startsWith(resolve(first)); folder = dirname(folder)) await rmdir(folder);
  } catch {
    // It is not empty.
  }
}

export async function convert(terminal: Terminal, source: string, target: string, options: ConvertOptions): Promise<void> {
  const { dtype, layout, force } = options;
  if (!dtype && !layout) throw new UsageError("convert: expected --dtype, --layout or both, got neither");
  const toFolder = extname(target) !== ".safetensors";
  const file = toFolder ? join(target, "model.safetensors") : target;
  if ((await placeOf(target)) === (await placeOf(source))) throw new UsageError("convert: expected a target that is not the source");
  const companions = toFolder && (await isFolder(source)) ? await companionsOf(source, options) : new Map<string, never>();
  const inputs = await checkpointFiles(source);
  for (const path of [file, ...[...companions.keys()].map((name) => join(target, name))])
    await checkOutput(path, { force, inputs, makesFolder: true });

  const { convertCheckpoint } = await loadModels();
  let notes: readonly string[];
  let output: WholeFile | undefined;
  /** The first folder that was not there. */
  let made: string | undefined;
  // What went wrong with the file, which the library takes for a stream.
  let broken: unknown;
  try {
    made = await mkdir(dirname(file), { recursive: true }).catch((error: unknown) => {
      throw fileFailure(target, error, "written");
    });
    // A name that is there stands for a whole checkpoint, so the weights get theirs last.
    const whole = (output = await beginOutput(file, force));
    const upper = dtype?.toUpperCase() as "F32" | "F16" | "BF16" | undefined;
    const convertOptions = {
      ...(upper && { dtype: upper }),
      ...(layout && { layout }),
      target: new WritableStream<Uint8Array>({
        write: (piece) =>
          whole.write(piece).catch((error: unknown) => {
            throw (broken = error);
          }),
      }),
    };
    ({ notes } = await opening(terminal, source, undefined, (reading) => convertCheckpoint(source, { ...convertOptions, ...reading })));
    for (const [name, content] of companions) await writeOutput(join(target, name), content, force);
    await whole.end();
  } catch (error) {
    await output?.drop();
    await removeEmpty(dirname(file), made);
    throw broken ?? error;
  }
  for (const note of notes) terminal.complain(`note: ${note}`);
  terminal.note(`written: ${file} (${bytes((await stat(file)).size)})`);
}
