// diffattn convert: a checkpoint with other element types or head layouts. (Differential attention,
// differential.ts.)

import { readFile, stat } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import type { WholeFile } from "../models/whole-file.js";
import { COMPANIONS, isFolder, isThere, madeFolder, placeOf, removeEmpty } from "./checkpoint-output.js";
import { differential, type DifferentialOptions } from "./differential.js";
import { Failure, fileFailure, sentence, UsageError } from "./failure.js";
import { bytes } from "./format.js";
import { loadModels, opening } from "./library.js";
import { beginOutput, checkOutput, checkpointFiles, writeOutput } from "./output.js";
import type { Terminal } from "./terminal.js";

export interface ConvertOptions extends Omit<DifferentialOptions, "dtype"> {
  dtype?: keyof typeof DTYPES;
  layout?: "diffllama" | "unilm";
}

/** Element types by their names here and elsewhere, as files have them. */
export const DTYPES = { f32: "F32", f16: "F16", bf16: "BF16", float32: "F32", float16: "F16", bfloat16: "BF16" } as const;
/** What `config.json` calls them. */
const CONFIG_DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

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
    for (const key of ["dtype", "torch_dtype"]) if (key in config && dtype) config[key] = CONFIG_DTYPES[DTYPES[dtype]];
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

export async function convert(terminal: Terminal, source: string, target: string, options: ConvertOptions): Promise<void> {
  const { dtype, layout, force, ...rest } = options;
  if (Object.keys(rest).length > 0) {
    if (layout) throw new UsageError("convert: --layout is for what is differential already; it stands with --dtype alone");
    return differential(terminal, source, target, { ...rest, ...(force && { force }), ...(dtype && { dtype: DTYPES[dtype] }) });
  }
  if (!dtype && !layout) throw new UsageError("convert: expected --to, --fold, --dtype or --layout, got none of them");
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
    made = await madeFolder(dirname(file), target);
    // A name that is there stands for a whole checkpoint, so the weights get theirs last.
    const whole = (output = await beginOutput(file, force));
    const convertOptions = {
      ...(dtype && { dtype: DTYPES[dtype] }),
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
