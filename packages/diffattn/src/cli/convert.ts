// diffattn convert: a checkpoint with other element types or head layouts. (Differential attention,
// differential.ts.)

import { readFile, stat } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { COMPANIONS } from "../models/companions.js";
import type { WholeFile } from "../models/whole-file.js";
import { isFolder, isThere, madeFolder, placeOf, removeEmpty } from "./checkpoint-output.js";
import { differential, type DifferentialOptions } from "./differential.js";
import { Failure, fileFailure, sentence, UsageError } from "./failure.js";
import { bytes } from "./format.js";
import { localOf } from "./hub.js";
import { loadModels, opening } from "./library.js";
import { beginOutput, checkOutput, checkpointFiles, writeOutput } from "./output.js";
import type { Terminal } from "./terminal.js";

export interface ConvertOptions extends Omit<DifferentialOptions, "dtype" | "head"> {
  dtype?: keyof typeof DTYPES | "q8" | "q4";
  head?: keyof typeof DTYPES | "q8" | "q4";
  layout?: "diffllama" | "unilm";
}

/** Element types by their names here and elsewhere, as files have them. */
export const DTYPES = { f32: "F32", f16: "F16", bf16: "BF16", float32: "F32", float16: "F16", bfloat16: "BF16" } as const;
/** What `config.json` calls them. */
const CONFIG_DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

const isQuantized = (dtype: ConvertOptions["dtype"]): dtype is "q8" | "q4" => dtype === "q8" || dtype === "q4";
/** An element type as the library calls it. */
const typeOf = (dtype: keyof typeof DTYPES | "q8" | "q4"): "F32" | "F16" | "BF16" | "q8" | "q4" =>
  isQuantized(dtype) ? dtype : DTYPES[dtype];
/** A format of weights as the library calls it. */
const formatOf = (dtype: keyof typeof DTYPES | "q8" | "q4"): "float32" | "float16" | "bfloat16" | "q8" | "q4" =>
  isQuantized(dtype) ? dtype : CONFIG_DTYPES[DTYPES[dtype]];

/** What is written of a GGUF file besides its weights. */
const OF_GGUF = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

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
    for (const key of ["dtype", "torch_dtype"])
      if (key in config && dtype && !isQuantized(dtype)) config[key] = CONFIG_DTYPES[DTYPES[dtype]];
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

export async function convert(terminal: Terminal, given: string, target: string, options: ConvertOptions): Promise<void> {
  const { dtype, head, groupSize, layout, force, ...rest } = options;
  if (groupSize && !isQuantized(dtype) && !isQuantized(head))
    throw new UsageError("convert: --group-size is for --dtype or --head q8 and q4");
  if (Object.keys(rest).length > 0) {
    if (layout) throw new UsageError("convert: --layout is for what is differential already; it stands with --dtype alone");
    return differential(terminal, await localOf(terminal, given), target, {
      ...rest,
      ...(force && { force }),
      ...(dtype && { dtype: typeOf(dtype) }),
      ...(head && { head: formatOf(head) }),
      ...(groupSize && { groupSize }),
    });
  }
  if (!dtype && !layout && !head) throw new UsageError("convert: expected --to, --adapter, --fold, --dtype or --layout, got none of them");
  const source = await localOf(terminal, given);
  const toFolder = extname(target) !== ".safetensors";
  const file = toFolder ? join(target, "model.safetensors") : target;
  if ((await placeOf(target)) === (await placeOf(source))) throw new UsageError("convert: expected a target that is not the source");
  const companions = toFolder && (await isFolder(source)) ? await companionsOf(source, options) : new Map<string, string | Uint8Array>();
  const inputs = await checkpointFiles(source);
  // (What the library says of a quantised checkpoint wins over what lies beside it.)
  const told = toFolder && layout === undefined ? (source.endsWith(".gguf") ? OF_GGUF : ["config.json"]) : [];
  for (const path of [file, ...[...new Set([...companions.keys(), ...told])].map((name) => join(target, name))])
    await checkOutput(path, { force, inputs, makesFolder: true });

  const { convertCheckpoint } = await loadModels();
  let notes: readonly string[];
  let files: Readonly<Record<string, Uint8Array>>;
  let output: WholeFile | undefined;
  /** The first folder that was not there. */
  let made: string | undefined;
  // What went wrong with the file, which the library takes for a stream.
  let broken: unknown;
  try {
    made = await madeFolder(dirname(file), target);
    // A name that is there stands for a whole checkpoint, so the weights get theirs last.
    const whole = (output = await beginOutput(file, force));
    const convertOptions = {
      ...(dtype && { dtype: typeOf(dtype) }),
      ...(head && { head: formatOf(head) }),
      ...(groupSize && { groupSize }),
      ...(layout && { layout }),
      target: new WritableStream<Uint8Array>({
        write: (piece) =>
          whole.write(piece).catch((error: unknown) => {
            throw (broken = error);
          }),
      }),
    };
    ({ notes, files } = await opening(terminal, source, undefined, (reading) =>
      convertCheckpoint(source, { ...convertOptions, ...reading }),
    ));
    if (toFolder) for (const [name, content] of Object.entries(files)) companions.set(name, content);
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
