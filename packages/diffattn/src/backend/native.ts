// The backend over N-API: converts, calls the addon, converts. The addon has its own pool, its own runner for async calls and
// its own table of objects, so there is nothing to keep here but the open calls.

import type { Backend, BackendMemory, Call, Control, Handle, Output, Request } from "../backend.js";
import { DiffAttnError, internal } from "../errors.js";
import { Op } from "../ops.js";
import type { ErrorCode, Isa } from "../types.js";

/** The addon's exports, as crates/diffattn-door/PROTOCOL.md lists them. */
export interface Addon {
  call(op: number, params: Float64Array, operands: Uint8Array[], outs: Uint8Array[]): Output[];
  callAsync(
    id: number,
    op: number,
    params: Float64Array,
    operands: Uint8Array[],
    outs: Uint8Array[],
    transfer: boolean,
    onProgress: Control["onProgress"],
  ): Promise<Output[]>;
  cancel(id: number): void;
  query(op: number, params: Float64Array, operands: Uint8Array[]): number;
  createBuffer(bytes: number): ArrayBuffer;
  releaseBuffer(buffer: ArrayBuffer): void;
  configure(isa: string | null, threads: number | null): void;
  info(): { isa: string; threads: number };
  dispose(): void;
}

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

export class NativeBackend implements Backend {
  readonly name = "native";
  readonly #addon: Addon;
  readonly #open = new Set<Promise<unknown>>();
  #isa: string | undefined;
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

  #params({ params, objects }: Request): Float64Array {
    const resolved = Float64Array.from(params);
    for (const { slot, handle } of objects) resolved[slot] = (handle as NativeObject).id;
    return resolved;
  }

  call(request: Request, outs: Uint8Array[]): Output[] {
    return guarded(() => this.#addon.call(request.op, this.#params(request), request.operands, outs));
  }

  callAsync(request: Request, outs: Uint8Array[], { transfer, onProgress }: Control): Call {
    const id = ++this.#lastId;
    const outputs = this.#addon
      .callAsync(id, request.op, this.#params(request), request.operands, outs, transfer, onProgress)
      .catch((error: unknown) => {
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
    return guarded(() => this.#addon.query(request.op, this.#params(request), request.operands));
  }

  createObject(name: Handle["name"], request: Request): Handle {
    const object: NativeObject = { name, backend: this, id: this.query(request) };
    return object;
  }

  dropObject(handle: Handle): void {
    guarded(() => this.#addon.query(Op.drop, Float64Array.of((handle as NativeObject).id), []));
  }

  createMemory(bytes: number): BackendMemory {
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
