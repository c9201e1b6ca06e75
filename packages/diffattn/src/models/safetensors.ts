// safetensors files: opened and read tensor by tensor, written, inspected. Headers are read and laid out in Rust.

import { checkOptions, dtypeOf, show, shapeOf, bytesOf, arrayType } from "../check.js";
import { fail, reasonOf } from "../errors.js";
import { Owned, resourceOf } from "../owned.js";
import { checkSignal } from "../run.js";
import { result } from "../tensor.js";
import type { Tensor } from "../types.js";
import { run } from "./backend.js";
import { Checkpoint, type Entry, Progress } from "./checkpoint.js";
import { folderOf, readOptionalText } from "./folder.js";
import { Op } from "./ops.js";
import { modelsPlatform, type Sink } from "./platform.js";
import { bufferOf, int32Of, jsonOf, Writer } from "./request.js";
import { memoryOf } from "./source.js";
import type * as types from "./types.js";

const LOAD_OPTIONS = ["signal", "onProgress", "cache", "maxTensors"];

const infoOf = ({ name, dtype, shape, range, file }: Entry): types.StoredTensorInfo => ({
  name,
  dtype,
  shape,
  byteLength: range[1] - range[0],
  file,
});

class SafetensorsFile extends Owned<Checkpoint> implements types.Safetensors {
  readonly tensors: readonly types.StoredTensorInfo[];
  readonly names: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;

  constructor(checkpoint: Checkpoint) {
    super("safetensors", checkpoint, () => checkpoint.close(), true);
    this.tensors = checkpoint.entries.map(infoOf);
    this.names = this.tensors.map(({ name }) => name);
    this.metadata = checkpoint.metadata;
  }

  async read(name: string, options?: { signal?: AbortSignal | undefined }): Promise<types.StoredTensor> {
    const checkpoint = resourceOf<Checkpoint>(this);
    const { signal } = checkOptions("options", options, ["signal"]);
    checkSignal(signal);
    const { dtype, shape } = checkpoint.entry(name);
    const { bytes, owned } = await checkpoint.read([name], { signal });
    const data = bytes.get(name) ?? new Uint8Array();
    return { dtype, shape, data: owned ? data : data.slice() };
  }

  async readFloat32(name: string, options?: { signal?: AbortSignal | undefined }): Promise<Tensor> {
    const { dtype, shape, data } = await this.read(name, options);
    const request = new Writer(Op.castTensor).text(name).text(dtype).text("F32").numbers("shape", shape).bytes(data);
    const [cast] = await run(request, { signal: options?.signal, transfer: true });
    return result({ kind: 1, shape: [...shape], buffer: bufferOf(cast) }, undefined, false) as Tensor;
  }
}

/** The checkpoint of an open file. */
const checkpointOf = (file: unknown): Checkpoint | undefined => (file instanceof SafetensorsFile ? resourceOf(file) : undefined);

export async function openSafetensors(
  source: types.FileSource | types.CheckpointSource,
  options?: types.LoadOptions,
): Promise<types.Safetensors> {
  const { signal, onProgress, cache, maxTensors } = checkOptions("options", options, LOAD_OPTIONS);
  checkSignal(signal);
  return new SafetensorsFile(await Checkpoint.open(await folderOf(source), { signal, cache, maxTensors }, new Progress(onProgress)));
}

export async function inspectCheckpoint(
  source: types.CheckpointSource | types.Safetensors,
  options?: types.LoadOptions,
): Promise<types.Inspection> {
  const { signal, onProgress, cache, maxTensors } = checkOptions("options", options, LOAD_OPTIONS);
  checkSignal(signal);
  const open = checkpointOf(source);
  let config: Uint8Array | undefined;
  let checkpoint = open;
  if (!checkpoint) {
    const folder = await folderOf(source as types.CheckpointSource);
    config = await readOptionalText(folder, "config.json", { signal, cache });
    checkpoint = await Checkpoint.open(folder, { signal, cache, maxTensors }, new Progress(onProgress));
  }
  try {
    const request = new Writer(Op.inspectCheckpoint).text(JSON.stringify(checkpoint.entries));
    request.optional(config, (text) => request.text(text));
    const [found] = await run(request, { signal });
    return jsonOf(found) as types.Inspection;
  } finally {
    if (!open) checkpoint.close();
  }
}

const STORED = { float32: "F32", float16: "F16", bfloat16: "BF16" } as const;

/** What is to be written of a tensor, from either form. */
function storedOf(name: string, given: unknown): { dtype: string; shape: readonly number[]; bytes: Uint8Array } {
  if (typeof given !== "object" || given === null || !("data" in given)) {
    return fail("DTYPE", name, "a tensor { dtype, shape, data }", show(given));
  }
  const { data, dtype, type } = given as Record<string, unknown>;
  const shape = shapeOf(name, given);
  if (arrayType(data) === "Uint8Array" && typeof dtype === "string") {
    return { dtype, shape, bytes: bytesOf(name, data as Uint8Array) };
  }
  return { dtype: STORED[dtypeOf(name, data, dtype, type)], shape, bytes: bytesOf(name, data as ArrayBufferView) };
}

/** Where each tensor's bytes lie in the file, as its header says. */
function lengthsOf(header: Uint8Array): Map<string, number> {
  const json = JSON.parse(new TextDecoder().decode(header.subarray(8))) as Record<string, { data_offsets: [number, number] }>;
  return new Map(
    Object.entries(json).map(([name, { data_offsets }]) => [name, name === "__metadata__" ? 0 : data_offsets[1] - data_offsets[0]]),
  );
}

/** A stream as a sink. */
function sinkOf(stream: WritableStream<Uint8Array>): Sink {
  const writer = stream.getWriter();
  const guarded = async (body: Promise<unknown>): Promise<void> => {
    try {
      await body;
    } catch (cause) {
      fail("FILE", "target", "a stream that takes the file", reasonOf(cause), cause);
    }
  };
  return {
    write: (bytes) => guarded(writer.write(bytes)),
    end: () => guarded(writer.close()),
    abort: (reason) => writer.abort(reason).catch(() => {}),
  };
}

/** How much a stream gets at once. */
const PIECE = 2 ** 22;

export async function saveSafetensors(
  tensors: Readonly<Record<string, types.StoredTensor | Tensor>>,
  options?: {
    metadata?: Readonly<Record<string, string>> | undefined;
    target?: string | URL | WritableStream<Uint8Array> | undefined;
  },
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const { metadata = {}, target } = checkOptions("options", options, ["metadata", "target"]);
  if (typeof tensors !== "object" || (tensors as unknown) === null) fail("OPTION", "tensors", "tensors by name", show(tensors));
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== "string") fail("OPTION", `metadata.${key}`, "a text", show(value));
  }
  const stored = Object.entries(tensors).map(([name, tensor]) => ({ name, ...storedOf(name, tensor) }));
  const spec = { tensors: stored.map(({ name, dtype, shape }) => ({ name, dtype, shape })), metadata };
  const [head, order, about] = await run(new Writer(Op.safetensorsHeader).text(JSON.stringify(spec)));
  const header = new Uint8Array(bufferOf(head));
  const lengths = lengthsOf(header);
  for (const { name, dtype, shape, bytes } of stored) {
    const wanted = lengths.get(name);
    if (wanted !== bytes.byteLength) {
      fail("SHAPE", name, `${wanted ?? 0} bytes, for ${show([...shape])} of ${dtype}`, String(bytes.byteLength));
    }
  }
  const pieces = [header, ...Array.from(int32Of(order), (index) => stored[index]?.bytes ?? header.subarray(0, 0))];
  if (target === undefined) {
    const file = memoryOf((jsonOf(about) as { length: number }).length);
    let at = 0;
    for (const piece of pieces) {
      file.set(piece, at);
      at += piece.byteLength;
    }
    return file;
  }
  let sink: Sink;
  if (typeof target === "object" && "getWriter" in target) {
    sink = sinkOf(target);
  } else {
    const { files } = modelsPlatform();
    if (!files) return fail("OPTION", "target", "a WritableStream, or none, in browsers", show(target));
    sink = await files.write(target);
  }
  try {
    for (const piece of pieces) {
      for (let at = 0; at < piece.byteLength; at += PIECE) await sink.write(piece.subarray(at, at + PIECE));
    }
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.end();
  return undefined;
}
