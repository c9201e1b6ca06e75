// safetensors files: opened and read tensor by tensor, written, inspected. Headers are read and
// laid out in Rust.

import {
  arrayType,
  bytesOf,
  checkOptions,
  elementsOf,
  has,
  isAbsent,
  isOf,
  readTensor,
  shapeOf,
  show,
  tagOf,
  unreadable,
} from "../check.js";
import { encode } from "../encode.js";
import { fail, reasonOf } from "../errors.js";
import { Owned, resourceOf } from "../owned.js";
import { checkSignal } from "../run.js";
import { result } from "../tensor.js";
import type { Tensor, TensorLike } from "../types.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import { run } from "./backend.js";
import type { Entry } from "./byte-source.js";
import { Checkpoint, Progress, storedType } from "./checkpoint.js";
import { folderOf, readOptionalText } from "./folder.js";
import { mayBeGguf } from "./gguf.js";
import { modelsPlatform, type Sink } from "./platform.js";
import { bufferOf, int32Of, jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import { memoryOf } from "./source.js";
import { flagOf } from "./tokenizer.js";
import type * as types from "./types.js";

const infoOf = <D extends Entry["dtype"]>(dtype: D, { name, shape, range, file }: Entry): types.StoredTensorInfo<D> => ({
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
    this.tensors = checkpoint.entries.map((entry) => infoOf(storedType(entry.dtype), entry));
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
    return { dtype: storedType(dtype), shape, data: owned ? data : data.slice() };
  }

  async readFloat32(name: string, options?: { signal?: AbortSignal | undefined }): Promise<Tensor> {
    const { dtype, shape, data } = await this.read(name, options);
    const request = encode(requests.castTensor, { name, from: dtype, to: "F32", shape, data });
    const [cast] = await run(request, { signal: options?.signal, transfer: true });
    return result({ kind: 1, shape: [...shape], buffer: bufferOf(cast) }, undefined, false) as Tensor;
  }
}

/** The checkpoint of an open file. */
const checkpointOf = (file: unknown): Checkpoint | undefined =>
  isOf(file, SafetensorsFile) ? resourceOf<Checkpoint>(file, "source") : undefined;

export async function openSafetensors(
  source: types.FileSource | types.CheckpointSource,
  options?: types.LoadOptions,
): Promise<types.Safetensors> {
  const given = checkOptions("options", options, LOAD_OPTIONS);
  const { signal, onProgress, maxTensors } = given;
  checkSignal(signal);
  const folder = await folderOf(source, accessOf(given));
  return new SafetensorsFile(await Checkpoint.open(folder, { signal, maxTensors }, new Progress(onProgress)));
}

export async function inspectCheckpoint(
  source: types.CheckpointSource | types.FileSource | types.Safetensors,
  options?: types.InspectOptions,
): Promise<types.Inspection> {
  const given = checkOptions("options", options, [...LOAD_OPTIONS, "tensors"]);
  const listed = flagOf("tensors", given.tensors, false);
  const { signal, onProgress, maxTensors } = given;
  checkSignal(signal);
  const access = accessOf(given);
  const open = checkpointOf(source);
  let config: Uint8Array | undefined;
  let checkpoint = open;
  if (!checkpoint) {
    const folder = await folderOf(source as types.CheckpointSource | types.FileSource, access);
    const beside = (): Promise<Uint8Array | undefined> => readOptionalText(folder, "config.json", { signal });
    if (!mayBeGguf(folder)) config = await beside();
    checkpoint = await Checkpoint.open(folder, { signal, maxTensors, gguf: true }, new Progress(onProgress));
    config ??= checkpoint.own?.config;
  }
  try {
    const request = encode(requests.inspectCheckpoint, { entries: JSON.stringify(checkpoint.entries), config });
    const [found] = await run(request, { signal });
    const told = jsonOf(found) as types.Inspection;
    return listed ? { ...told, tensors: checkpoint.entries.map((entry) => infoOf(entry.dtype, entry)) } : told;
  } finally {
    if (!open) checkpoint.close();
  }
}

const STORED = { float32: "F32", float16: "F16", bfloat16: "BF16" } as const;

/** A tensor to be written. */
export interface Written {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** What is to be written of a tensor, from either form. */
export function storedOf(name: string, given: unknown): Written {
  if (!has(given, "data")) return fail("DTYPE", name, "a tensor { dtype, shape, data }", show(given));
  try {
    const { data, dtype } = given as { data: unknown; dtype?: unknown };
    if (arrayType(data) !== "Uint8Array" || typeof dtype !== "string") {
      const { dtype, shape, bytes } = readTensor(name, given);
      return { dtype: STORED[dtype], shape, bytes };
    }
    const shape = shapeOf(name, given);
    const bytes = bytesOf(name, data as Uint8Array);
    // How many bytes an element has is not known here: strides and an offset must say that it is
    // the whole.
    const count = shape.reduce((product, extent) => product * extent, 1);
    elementsOf(name, given, shape, { length: count });
    return { dtype, shape, bytes };
  } catch (thrown) {
    return unreadable("DTYPE", name, thrown);
  }
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

/** What a file is written to, where there is something; refused before anything else is done. */
function checkTarget(target: unknown): string | URL | WritableStream<Uint8Array> | undefined {
  if (isAbsent(target)) return undefined;
  if (typeof target === "string" ? target !== "" : has(target, "protocol") && tagOf(target) === "URL") return target as string | URL;
  if (has(target, "getWriter") && typeof target.getWriter === "function") {
    const stream = target as unknown as WritableStream<Uint8Array>;
    return stream.locked ? fail("OPTION", "target", "a WritableStream that nobody has a writer of", "one that is locked") : stream;
  }
  return fail("OPTION", "target", "a path, the URL of a file, or a WritableStream", show(target));
}

/** What an object holds by name. */
export function entriesOf(argument: string, what: string, given: unknown): [string, unknown][] {
  if (tagOf(given) !== "Object") return fail("OPTION", argument, `${what} by name`, show(given));
  try {
    return Object.entries(given as object);
  } catch (thrown) {
    return unreadable("OPTION", argument, thrown);
  }
}

/** How much a stream gets at once. */
const PIECE = 2 ** 22;

/** Writes bytes piece by piece. */
export async function writePieces(sink: Sink, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; at += PIECE) await sink.write(bytes.subarray(at, at + PIECE));
}

/** A file's layout: what it begins with, in which order the tensors follow, its length. */
export async function layoutOf(
  tensors: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[] }[],
  metadata: Readonly<Record<string, string>>,
): Promise<{ header: Uint8Array; order: Int32Array; length: number }> {
  const spec = JSON.stringify({ tensors, metadata });
  const [header, order, about] = await run(encode(requests.safetensorsHeader, { spec }));
  return { header: new Uint8Array(bufferOf(header)), order: int32Of(order), length: (jsonOf(about) as { length: number }).length };
}

/** Where a file of so many bytes goes, and the file, where it is memory. */
export async function openTarget(
  target: unknown,
  length: number,
): Promise<{ sink: Sink; file: () => Uint8Array<ArrayBuffer> | undefined }> {
  const checked = checkTarget(target);
  if (checked === undefined) {
    const file = memoryOf(length);
    let at = 0;
    const write = (bytes: Uint8Array): Promise<void> => {
      file.set(bytes, at);
      at += bytes.byteLength;
      return Promise.resolve();
    };
    return { sink: { write, end: () => Promise.resolve(), abort: () => Promise.resolve() }, file: () => file };
  }
  const none = (): undefined => undefined;
  if (has(checked, "getWriter")) return { sink: sinkOf(checked), file: none };
  const { files } = modelsPlatform();
  if (!files) return fail("OPTION", "target", "a WritableStream, or none, in browsers", show(checked));
  return { sink: await files.write(checked), file: none };
}

/**
 * A file of tensors, piece by piece; `argument`: how errors name one, where that is not its name in
 * the file.
 */
export async function piecesOf(
  tensors: readonly (Written & { readonly name: string; readonly argument?: string })[],
  metadata: Readonly<Record<string, string>>,
): Promise<{ pieces: readonly Uint8Array[]; length: number }> {
  const specs = tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  const { header, order, length } = await layoutOf(specs, metadata);
  const lengths = lengthsOf(header);
  for (const { name, argument, dtype, shape, bytes } of tensors) {
    const wanted = lengths.get(name);
    if (wanted !== bytes.byteLength)
      fail("SHAPE", argument ?? name, `${wanted ?? 0} bytes, for ${show([...shape])} of ${dtype}`, String(bytes.byteLength));
  }
  return { pieces: [header, ...Array.from(order, (index) => tensors[index]?.bytes ?? header.subarray(0, 0))], length };
}

export async function saveSafetensors(
  tensors: Readonly<Record<string, types.StoredLike | TensorLike>>,
  options?: {
    metadata?: Readonly<Record<string, string>> | null | undefined;
    target?: string | URL | WritableStream<Uint8Array> | null | undefined;
  },
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const given = checkOptions("options", options, ["metadata", "target"]);
  const target = checkTarget(given.target);
  const metadata = entriesOf("metadata", "texts", given.metadata ?? {});
  for (const [key, value] of metadata) {
    if (typeof value !== "string") fail("OPTION", `metadata.${key}`, "a text", show(value));
  }
  const stored = entriesOf("tensors", "tensors", tensors).map(([name, tensor]) => ({ name, ...storedOf(name, tensor) }));
  const { pieces, length } = await piecesOf(stored, Object.fromEntries(metadata) as Record<string, string>);
  const { sink, file } = await openTarget(target, length);
  try {
    for (const piece of pieces) await writePieces(sink, piece);
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.end();
  return file();
}
