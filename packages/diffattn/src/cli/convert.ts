// diffattn convert: a checkpoint with other element types or head layouts.

import { copyFile, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, extname, join, resolve } from "node:path";
import { Failure, fileFailure, UsageError } from "./failure.js";
import { bytes } from "./format.js";
import { loadModels } from "./library.js";
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

/** Copies what belongs to a checkpoint; with another layout it is no model that its configuration describes. */
async function copyCompanions(from: string, to: string, { dtype, layout }: ConvertOptions): Promise<void> {
  for (const name of COMPANIONS) if (await isThere(join(from, name))) await copyFile(join(from, name), join(to, name));
  const path = join(from, "config.json");
  if (layout !== undefined || !(await isThere(path))) return;
  const config = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  for (const key of ["dtype", "torch_dtype"]) if (key in config && dtype) config[key] = CONFIG_DTYPES[dtype];
  await writeFile(join(to, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
}

export async function convert(terminal: Terminal, source: string, target: string, options: ConvertOptions): Promise<void> {
  const { dtype, layout, force } = options;
  if (!dtype && !layout) throw new UsageError("convert: expected --dtype, --layout or both, got neither");
  const toFolder = extname(target) !== ".safetensors";
  const file = toFolder ? join(target, "model.safetensors") : target;
  if (resolve(file) === resolve(source) || resolve(target) === resolve(source))
    throw new UsageError("convert: expected a target that is not the source");
  if (!force && (await isThere(file))) throw new Failure(`${file}: it is there already; --force replaces it`);

  const { convertCheckpoint } = await loadModels();
  const bar = terminal.bar("reading", bytes);
  let notes: readonly string[];
  // Beside its place, and renamed once all of it is right: a name that is there stands for a whole checkpoint.
  const part = `${file}.part`;
  try {
    await mkdir(dirname(file), { recursive: true });
    const upper = dtype?.toUpperCase() as "F32" | "F16" | "BF16" | undefined;
    ({ notes } = await convertCheckpoint(source, {
      ...(upper && { dtype: upper }),
      ...(layout && { layout }),
      target: part,
      signal: terminal.signal,
      onProgress: bar.update,
    }));
    if (toFolder && (await isFolder(source))) await copyCompanions(source, target, options);
    await rename(part, file);
  } catch (error) {
    await rm(part, { force: true });
    if ((error as { syscall?: string }).syscall !== undefined) throw fileFailure(target, error, "written");
    throw error;
  } finally {
    bar.stop();
  }
  for (const note of notes) terminal.complain(`note: ${note}`);
  terminal.note(`written: ${file} (${bytes((await stat(file)).size)})`);
}
