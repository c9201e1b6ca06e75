// What a backend is: it takes requests (crates/diffattn-door/PROTOCOL.md) and gives outputs. Knows
// no operator, checks no argument, makes no result tensor. One is written over N-API
// (backend/native.ts), one over WASM (backend/wasm.ts).

import type { Info, Isa } from "./types.js";

/** An object that lives in the backend. */
export interface Handle {
  /** What errors call it. */
  readonly name: "cache" | "layer" | "vjp" | "model" | "generator" | "conversion" | "trainer";
  readonly backend: Backend;
}

/**
 * One request: its stream of numbers, its tensors, and the objects whose ids the backend writes
 * into the stream.
 */
export interface Request {
  op: number;
  params: number[];
  /** Bytes of the tensors that the stream names, in place in the caller's memory. */
  operands: Uint8Array[];
  objects: { slot: number; handle: Handle }[];
}

/** A tensor as the backend gives it. */
export interface Output {
  /** As in PROTOCOL.md: 1 float32, 2 float16, 3 bfloat16, 4 uint8, 5 int32. */
  kind: number;
  shape: number[];
  /** The elements; null where the caller gave the memory. */
  buffer: ArrayBuffer | null;
}

/** The caller's arrays for the first outputs, in their order; null for one that has none. */
export type Outs = readonly (Uint8Array | null)[];

/** What an async call is told besides its request. */
export interface Control {
  transfer: boolean;
  onProgress: ((done: number, total: number) => void) | null;
}

/** An async call under way. */
export interface Call {
  outputs: Promise<Output[]>;
  /** Asks it to stop after the slice in progress. */
  cancel: () => void;
}

/** Memory of the backend. */
export interface BackendMemory {
  /** A fresh view of it. */
  bytes(): Uint8Array;
  release(): void;
  /** Whether forgotten memory stays taken until `release`. */
  readonly leaks: boolean;
}

/** What computes at once, on the caller's own thread. */
export interface Local {
  /** Runs a job to its end. */
  call(request: Request, outs: Outs): Output[];
  /** Asks or changes an object: one number. */
  query(request: Request): number;
  /**
   * Makes an object. `empty`, of an object whose content changes: the request that makes one
   * without content or reserve.
   */
  createObject(name: Handle["name"], request: Request, empty?: Request): Handle;
  dropObject(handle: Handle): void;
  createMemory(bytes: number): BackendMemory;
}

/** What is asked of a backend as a whole, and told to it. */
export interface Steering {
  /** Makes ready what cannot be made ready on demand; safe to call twice. */
  start(): Promise<void>;
  info(): { isa: Isa; threads: number; notes: string[] };
  /** Takes other options of init without a restart; false where that is impossible. */
  configure(isa: string | undefined, threads: number | undefined): boolean;
  setThreads(threads: number): void;
  /** When no async call is open. */
  idle(): Promise<void>;
  /** Ends open calls (ABORTED) and gives everything back. */
  dispose(): void;
}

/** A backend: async calls, and two sides that are made when they are asked for. */
export interface Backend {
  readonly name: Info["backend"];
  /** What computes at once (backend/wasm-local.ts). */
  local: Local | undefined;
  /** What is asked of it as a whole (backend/wasm-steering.ts). */
  steering: Steering | undefined;
  /**
   * Runs a job elsewhere than on the caller's thread; takes what it needs of the operands before it
   * returns.
   */
  callAsync(request: Request, outs: Outs, control: Control): Call;
}
