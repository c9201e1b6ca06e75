// What the local side and the worker say to each other. Types only.

import type { Output } from "../backend.js";
import type { Build, Part, Script } from "../port.js";
import type { ErrorCode } from "../types.js";

/** Starts the worker's instance; the first message. With `pool`, of the threads build. */
export interface StartMessage {
  type: "start";
  build: Build;
  module: WebAssembly.Module;
  /**
   * Threads build: how a thread is started, how many there are, the channel on which one reports a
   * trap, what the module holds, whether the local side starts the threads, and a number that all
   * see: how many aborts were sent.
   */
  pool: { script: Script; threads: number; channel: string; part: Part; outside: boolean; aborts: Int32Array } | undefined;
}

/** A request. Calls run in the order of their messages. */
export interface CallMessage {
  type: "call";
  id: number;
  op: number;
  params: Float64Array;
  operands: Uint8Array[];
  /** Whether the operands are copies, whose buffers come back for the next. */
  areCopies: boolean;
  /** Lengths of the caller's arrays for the first outputs, as `Outs` has them: Rust checks them. */
  outBytes: (number | null)[];
  /**
   * Slots of `params` that take the id of an object, and the number by which both sides know it.
   */
  objects: { slot: number; key: number }[];
  /** "job", or a query: one that makes or changes the object `key` spoils it when it fails. */
  kind: "job" | "create" | "change";
  /** Object that a "create" makes or a "change" changes, or whose length a job changes. */
  key: number | undefined;
  progress: boolean;
}

export type ToWorker =
  StartMessage | CallMessage | { type: "drop"; key: number } | { type: "abort"; id: number } | { type: "threads"; threads: number };

export interface WireError {
  code: ErrorCode;
  message: string;
}

export type FromWorker =
  | { type: "started" }
  /**
   * A pool wants a thread that takes `start`; `port` is told "" once it is ready, else why it is
   * not.
   */
  | { type: "thread"; start: unknown; port: MessagePort }
  | { type: "refused"; error: WireError }
  | { type: "progress"; id: number; done: number; total: number }
  /** `length`: of the cache that the call changed; `spares`: buffers of the operands' copies. */
  | { type: "result"; id: number; outputs: Output[]; length: number | undefined; spares: ArrayBuffer[] }
  | { type: "error"; id: number; error: WireError; length: number | undefined }
  /** The instance is dead. */
  | { type: "trap"; error: WireError };
