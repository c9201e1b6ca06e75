// Loads a model: its configuration first, then part by part its weights, the next one read while
// one is taken over.

import type { Handle } from "../backend.js";
import { isAbsent, show } from "../check.js";
import { encode, type ValuesOf } from "../encode.js";
import { DiffAttnError, fail } from "../errors.js";
import { checkSignal } from "../run.js";
import { throwIfAborted, together } from "./abort.js";
import { begin, create, drop, run } from "./backend.js";
import { Checkpoint, Progress, type Weights } from "./checkpoint.js";
import { Derived, type OpenAdapter } from "./derived.js";
import { type Folder, readOptionalText, readText } from "./folder.js";
import { type GgufTexts, isNamedGguf, mayBeGguf } from "./gguf.js";
import { jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import type { Reading } from "./byte-source.js";
import type { Home } from "./platform.js";
import type * as types from "./types.js";

/** What a model does. */
type Task = ValuesOf<typeof requests.createModel.operands>["task"];

/** What a model says of itself. */
export interface ModelInfo {
  /** As `config.json` calls it. */
  family: string;
  config: types.ModelConfig;
  /** Elements of its weights. */
  parameters: number;
  /** As what its linear maps are held. */
  dtype: types.WeightFormat;
  /** The names of tensors that are taken over together. */
  parts: string[][];
  /** What is odd about the checkpoint and loaded all the same. */
  notices: string[];
  [more: string]: unknown;
}

export interface Loaded {
  handle: Handle;
  info: ModelInfo;
  /** What a GGUF file says itself; undefined for other formats. */
  own: GgufTexts | undefined;
}

/** What the loads of models take, but for texts. */
interface ModelLoad extends Omit<types.ModelLoadOptions, "cacheDtype" | "tokenizer" | "tokenizerRegex" | "adapter"> {
  /** The folder of a low-rank adapter. */
  adapter?: Folder | undefined;
  /** Where it is to live; among models by default. */
  home?: Home | undefined;
}

/** The files of an adapter, as PEFT calls them. */
export const ADAPTER = { config: "adapter_config.json", weights: "adapter_model.safetensors" };

/**
 * What else is under way ends with the first failure: no download outlives the load that it is for.
 */
export async function loadModel(task: Task, folder: Folder, options: ModelLoad): Promise<Loaded> {
  const { signal, onNotice } = options;
  checkSignal(signal);
  if (!isAbsent(onNotice) && typeof onNotice !== "function") fail("OPTION", "onNotice", "a function", show(onNotice));
  return together(signal, (signal) => loadAll(task, folder, { ...options, signal }));
}

/** As what an adapter is merged into weights that are to be held so; beside codes it stays. */
const MERGED_IN = { float32: "F32", float16: "F16", bfloat16: "BF16", q8: undefined, q4: undefined } as const;

/** An adapter, open. */
export async function openAdapter(folder: Folder, options: Pick<types.LoadOptions, "signal" | "maxTensors">): Promise<OpenAdapter> {
  const { signal, maxTensors } = options;
  const config = await readText(folder, ADAPTER.config, { signal });
  const only = { ...folder, only: folder.only ?? ADAPTER.weights };
  // (What is told of progress is the model's.)
  const tensors = await Checkpoint.open(only, { signal, maxTensors, all: true }, new Progress(undefined));
  return { config, tensors };
}

/** A checkpoint with an adapter, and what its `config.json` says then; without one, as it is. */
async function adapted(
  checkpoint: Checkpoint,
  config: Uint8Array,
  { adapter, dtype, signal, maxTensors }: ModelLoad,
): Promise<{ weights: Weights; config: Uint8Array }> {
  if (!adapter) return { weights: checkpoint, config };
  const open = await openAdapter(adapter, { signal, maxTensors });
  const weights = await Derived.of(checkpoint, { config, adapter: open, dtype: dtype && MERGED_IN[dtype] }, { signal });
  return { weights, config: new TextEncoder().encode(weights.plan.config) };
}

async function loadAll(task: Task, folder: Folder, options: ModelLoad): Promise<Loaded> {
  const { signal, onProgress, maxTensors, onNotice, dtype, head } = options;
  const home = options.home ?? "models";
  begin(home);
  const progress = new Progress(onProgress);
  const opening = { signal };
  let isGguf = isNamedGguf(folder);
  const onGguf = (): void => void (isGguf = true);
  const weights = Checkpoint.open(folder, { ...opening, maxTensors, all: true, gguf: true, onGguf }, progress);
  const own = mayBeGguf(folder) ? await ownOf(weights, () => isGguf) : undefined;
  const beside = async (): Promise<Uint8Array | undefined> =>
    own ? own.generation : readOptionalText(folder, "generation_config.json", opening);
  // All at once; the first that fails in this order is told.
  const opened = [
    own ? Promise.resolve(own.config) : readText(folder, "config.json", opening),
    task === "text" ? beside() : undefined,
    weights,
  ] as const;
  for (const one of opened) one?.catch(() => {});
  const closing = (error: unknown): never => {
    opened[2].then((checkpoint) => checkpoint.close()).catch(() => {});
    throw error;
  };
  const given = await opened[0].catch(closing);
  const generation = await opened[1]?.catch(closing);
  let checkpoint: Weights = await opened[2];
  let handle: Handle | undefined;
  try {
    const { weights, config } = await adapted(await opened[2], given, options);
    checkpoint = weights;
    const entries = JSON.stringify(checkpoint.entries);
    const request = encode(requests.createModel, { task, config, generationConfig: generation, entries, dtype, head });
    throwIfAborted(signal);
    handle = await create("model", request, home);
    const [output] = await run(encode(requests.modelInfo, { model: handle }), { signal });
    const info = jsonOf(output) as ModelInfo;
    for (const notice of info.notices) onNotice?.(notice);
    await loadParts(handle, checkpoint, info.parts, { signal, onBytes: progress.add });
    progress.end();
    return { handle, info, own };
  } catch (error) {
    if (handle) drop(handle);
    if (error instanceof DiffAttnError && error.code === "FILE") await checkpoint.forget();
    throw error;
  } finally {
    checkpoint.close();
  }
}

/**
 * What a GGUF file says itself. Where there is no such file, what is beside it is looked for first,
 * unless it is called one, or begins as one.
 */
async function ownOf(weights: Promise<Checkpoint>, isGguf: () => boolean): Promise<GgufTexts | undefined> {
  try {
    return (await weights).own;
  } catch (error) {
    if (isGguf()) throw error;
    return undefined;
  }
}

async function loadParts(handle: Handle, checkpoint: Weights, parts: readonly (readonly string[])[], reading: Reading): Promise<void> {
  const read = (part: number): ReturnType<Weights["read"]> | undefined => {
    const names = parts[part];
    const promise = names && checkpoint.read(names, reading);
    // Where the part before it fails, nobody waits for this one.
    promise?.catch(() => {});
    return promise;
  };
  let next = read(0);
  for (const [part, names] of parts.entries()) {
    const read_ = await next;
    next = read(part + 1);
    if (!read_) continue;
    const tensors = names.map((name) => checkpoint.stored(name, read_.bytes));
    try {
      await run(encode(requests.loadPart, { model: handle, part, tensors }), { signal: reading.signal, transfer: read_.owned });
    } catch (error) {
      // The file must not be closed under a read.
      await next?.catch(() => {});
      throw error;
    }
  }
}
