// The backend over N-API: converts, calls the addon, converts. The addon has its own pool, its own
// runner for async calls and its own table of objects, so there is nothing to keep here but the
// open calls.

import { constants } from "node:buffer";
import type { Addon, Made, Told } from "@diffattn/native";
import type { Backend, BackendMemory, Call, Control, Handle, Local, Output, Outs, Request, Steering } from "../backend.js";
import { DiffAttnError, internal, outOfMemory } from "../errors.js";
import * as Op from "../ops.generated.js";
import type { ErrorCode, Isa } from "../types.js";

interface NativeObject extends Handle {
  readonly id: number;
}

/** The addon's error as ours. */
function converted(error: unknown): DiffAttnError {
  const { code, message } = error as { code?: ErrorCode; message?: string };
  return code === undefined ? internal(message ?? String(error), error) : new DiffAttnError(code, message ?? "");
}

function guarded<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw converted(error);
  }
}

/** Outputs as the addon tells them in numbers, each with its buffer, of `count`. */
function outputsOf(told: ArrayLike<unknown>, bufferOf: (index: number, count: number) => Made): Output[] {
  const outputs: Output[] = [];
  const count = told[0] as number;
  for (let at = 1, index = 0; index < count; index++) {
    const [kind, rank] = [told[at] as number, told[at + 1] as number];
    const shape: number[] = [];
    for (at += 2; shape.length < rank; at++) shape.push(told[at] as number);
    outputs.push({ kind, shape, buffer: bufferOf(index, count) });
  }
  return outputs;
}

/** Those of a list, whose end are the buffers. */
const outputsIn = (told: Told): Output[] => outputsOf(told, (index, count) => told[told.length - count + index] as Made);

export class NativeBackend implements Backend, Local, Steering {
  readonly name = "native";
  readonly local = this;
  readonly steering = this;
  readonly #addon: Addon;
  readonly #open = new Set<Promise<unknown>>();
  #isa: string | undefined;
  #stream = new Float64Array(64);
  #lastId = 0;

  constructor(addon: Addon, isa: string | undefined, threads: number | undefined) {
    this.#addon = addon;
    this.configure(isa, threads);
  }

  start(): Promise<void> {
    return Promise.resolve();
  }

  info(): { isa: Isa; threads: number; notes: string[] } {
    const { isa, threads } = this.#addon.info();
    return { isa: isa as Isa, threads, notes: [] };
  }

  configure(isa: string | undefined, threads: number | undefined): boolean {
    guarded(() => this.#addon.configure(isa ?? null, threads ?? null));
    this.#isa = isa;
    return true;
  }

  setThreads(threads: number): void {
    this.configure(this.#isa, threads);
  }

  /** A request's stream, in place until the next one: the addon reads it before it returns. */
  private streamOf({ params, objects }: Request): Float64Array {
    if (params.length >= this.#stream.length) this.#stream = new Float64Array(2 * params.length);
    this.#stream[0] = params.length;
    this.#stream.set(params, 1);
    for (const { slot, handle } of objects) this.#stream[slot + 1] = (handle as NativeObject).id;
    return this.#stream;
  }

  call(request: Request, outs: Outs): Output[] {
    const { op, operands } = request;
    for (;;) {
      const stream = this.streamOf(request);
      const made = guarded(() => this.#addon.call(op, stream, operands, outs));
      if (typeof made !== "number") return outputsOf(stream, (index) => (Array.isArray(made) ? (made[index] as Made) : made));
      this.#stream = new Float64Array(2 * made);
    }
  }

  callAsync(request: Request, outs: Outs, { transfer, onProgress }: Control): Call {
    const id = ++this.#lastId;
    const outputs = this.#addon
      .callAsync(id, request.op, this.streamOf(request), request.operands, outs, transfer, onProgress)
      .then(outputsIn, (error: unknown) => {
        throw converted(error);
      });
    const settled = outputs.then(
      () => {},
      () => {},
    );
    this.#open.add(settled);
    void settled.then(() => this.#open.delete(settled));
    return { outputs, cancel: () => this.#addon.cancel(id) };
  }

  query(request: Request): number {
    return guarded(() => this.#addon.query(request.op, this.streamOf(request), request.operands));
  }

  createObject(name: Handle["name"], request: Request): Handle {
    const object: NativeObject = { name, backend: this, id: this.query(request) };
    return object;
  }

  dropObject(handle: Handle): void {
    guarded(() => this.#addon.query(Op.drop, Float64Array.of(1, (handle as NativeObject).id), []));
  }

  createMemory(bytes: number): BackendMemory {
    // Node would refuse it once it is there, after a minute of making zeros.
    if (bytes > constants.MAX_LENGTH) throw outOfMemory(bytes);
    const buffer = guarded(() => this.#addon.createBuffer(bytes));
    return { bytes: () => new Uint8Array(buffer), release: () => this.#addon.releaseBuffer(buffer), leaks: false };
  }

  async idle(): Promise<void> {
    while (this.#open.size > 0) await Promise.all(this.#open);
  }

  dispose(): void {
    this.#addon.dispose();
  }
}
