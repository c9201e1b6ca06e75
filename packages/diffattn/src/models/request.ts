// Writes requests of models and reads their outputs. Knows the protocol's atoms and no operator.

import type { Handle, Output, Request } from "../backend.js";
import { arrayType, isArray, Kind, readTensor, show } from "../check.js";
import { fail, internal } from "../errors.js";
import { result } from "../tensor.js";
import type { AttentionMaps, Tensor } from "../types.js";

const encoder = new TextEncoder();

/** A request that is being written, front to end. */
export class Writer implements Request {
  readonly params: number[] = [];
  readonly operands: Uint8Array[] = [];
  readonly objects: { slot: number; handle: Handle }[] = [];

  constructor(readonly op: number) {}

  number(name: string, x: unknown): this {
    if (typeof x !== "number") fail("OPTION", name, "a number", show(x));
    this.params.push(x);
    return this;
  }

  flag(name: string, x: unknown): this {
    if (typeof x !== "boolean") fail("OPTION", name, "true or false", show(x));
    this.params.push(x ? 1 : 0);
    return this;
  }

  /** 0, or 1 and what `write` writes of it. */
  optional<T>(x: T | null | undefined, write: (x: T) => unknown): this {
    this.params.push(x === undefined || x === null ? 0 : 1);
    if (x !== undefined && x !== null) write(x);
    return this;
  }

  maybeNumber(name: string, x: unknown): this {
    return this.optional(x, () => this.number(name, x));
  }

  list<T>(items: ArrayLike<T>, write: (x: T, index: number) => unknown): this {
    this.params.push(items.length);
    for (let i = 0; i < items.length; i++) write(items[i] as T, i);
    return this;
  }

  numbers(name: string, x: unknown): this {
    if (!isArray(x) && arrayType(x) !== "Int32Array") fail("OPTION", name, "an array", show(x));
    return this.list(x as ArrayLike<unknown>, (item, index) => this.number(`${name}[${index}]`, item));
  }

  object(handle: Handle): this {
    this.objects.push({ slot: this.params.length, handle });
    this.params.push(0);
    return this;
  }

  bytes(bytes: Uint8Array, shape: readonly number[] = [bytes.byteLength], kind: number = Kind.uint8): this {
    this.params.push(kind, shape.length);
    // (No spread: as arguments a rank could overflow the stack.)
    for (const extent of shape) this.params.push(extent);
    this.operands.push(bytes);
    return this;
  }

  text(text: string | Uint8Array): this {
    return this.bytes(typeof text === "string" ? encoder.encode(text) : text);
  }

  int32(data: Int32Array, shape: readonly number[] = [data.length]): this {
    return this.bytes(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), shape, Kind.int32);
  }

  /** A tensor of the caller. */
  tensor(name: string, x: unknown): this {
    const { bytes, shape, dtype } = readTensor(name, x);
    return this.bytes(bytes, shape, Kind[dtype]);
  }
}

const tooFew = (): Error => internal("a call with too few outputs");

/** An output's memory. */
export const bufferOf = (output: Output | undefined): ArrayBuffer => {
  if (!output) throw tooFew();
  return output.buffer ?? new ArrayBuffer(0);
};

/** An output that is JSON. */
export const jsonOf = (output: Output | undefined): unknown => JSON.parse(new TextDecoder().decode(bufferOf(output)));

export const int32Of = (output: Output | undefined): Int32Array<ArrayBuffer> => new Int32Array(bufferOf(output));

/** An output that is float32. */
export function tensorOf(output: Output | undefined): Tensor {
  if (!output) throw tooFew();
  return result(output, undefined, false) as Tensor;
}

export const mapsOf = ([map1, map2, diff]: (Output | undefined)[]): AttentionMaps => ({
  map1: tensorOf(map1),
  map2: tensorOf(map2),
  diff: tensorOf(diff),
});
