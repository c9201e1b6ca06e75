// Loads a model: its configuration first, then part by part its weights, the next one read while one is taken over.

import type { Handle } from "../backend.js";
import { DiffAttnError } from "../errors.js";
import { checkSignal } from "../run.js";
import { create, drop, run } from "./backend.js";
import { Checkpoint, type Entry, Progress } from "./checkpoint.js";
import { folderOf, type Folder, readOptionalText, readText } from "./folder.js";
import { Op } from "./ops.js";
import { jsonOf, Writer } from "./request.js";
import { throwIfAborted } from "./source.js";
import type * as types from "./types.js";

/** The kinds of models, in the protocol's order. */
const KINDS = ["diffLlama", "diffViT"] as const;

/** What a model says of itself. */
export interface ModelInfo {
  config: types.ModelConfig;
  /** The names of tensors that are taken over together. */
  parts: string[][];
  [more: string]: unknown;
}

export interface Loaded {
  handle: Handle;
  info: ModelInfo;
  folder: Folder;
}

export async function loadModel(
  kind: (typeof KINDS)[number],
  source: types.CheckpointSource,
  { signal, onProgress, cache }: types.LoadOptions,
): Promise<Loaded> {
  checkSignal(signal);
  const progress = new Progress(onProgress);
  const opening = { signal, cache };
  const folder = await folderOf(source);
  const config = await readText(folder, "config.json", opening);
  const generation = kind === "diffLlama" ? await readOptionalText(folder, "generation_config.json", opening) : undefined;
  const checkpoint = await Checkpoint.open(folder, opening, progress);
  let handle: Handle | undefined;
  try {
    const request = new Writer(Op.createModel).number("kind", KINDS.indexOf(kind)).text(config);
    request.optional(generation, (text) => request.text(text)).text(JSON.stringify(checkpoint.entries));
    throwIfAborted(signal);
    handle = await create("model", request);
    const [output] = await run(new Writer(Op.modelInfo).object(handle), { signal });
    const info = jsonOf(output) as ModelInfo;
    await loadParts(handle, checkpoint, info.parts, { signal, onBytes: progress.add });
    progress.end();
    return { handle, info, folder };
  } catch (error) {
    if (handle) drop(handle);
    if (error instanceof DiffAttnError && error.code === "FILE") await checkpoint.forget();
    throw error;
  } finally {
    checkpoint.close();
  }
}

async function loadParts(
  handle: Handle,
  checkpoint: Checkpoint,
  parts: readonly (readonly string[])[],
  reading: { signal: AbortSignal | undefined; onBytes: (bytes: number) => void },
): Promise<void> {
  const read = (part: number): ReturnType<Checkpoint["read"]> | undefined => {
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
    const request = new Writer(Op.loadPart).object(handle).number("part", part);
    request.list(names, (name) => writeTensor(request, checkpoint.entry(name), read_.bytes.get(name)));
    try {
      await run(request, { signal: reading.signal, transfer: read_.owned });
    } catch (error) {
      // The file must not be closed under a read.
      await next?.catch(() => {});
      throw error;
    }
  }
}

function writeTensor(request: Writer, { name, dtype, shape }: Entry, bytes = new Uint8Array()): void {
  request.text(name).text(dtype).numbers("shape", shape).bytes(bytes);
}
