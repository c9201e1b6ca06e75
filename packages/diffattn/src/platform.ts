// What Node and browsers do differently, as one object that each entry makes (node.ts, browser.ts). Types, and the names that both sides know.

import type { Backend } from "./backend.js";

/** The WASM builds, slowest first. */
export const BUILDS = ["simd128", "relaxed-simd", "relaxed-simd+threads"] as const;
export type Build = (typeof BUILDS)[number];

/** The name that tells a thread of a pool from any other worker that loads src/pool.ts. */
export const POOL_THREAD = "diffattn-pool-thread";

/** A worker, from the outside. */
export interface Port {
  post(message: unknown, transfer: ArrayBuffer[]): void;
  /** Whether the worker keeps the process alive. */
  hold(held: boolean): void;
  terminate(): void;
}

export interface Platform {
  /** Whether the builds are those with models. */
  readonly models: boolean;
  env(name: string): string | undefined;
  /** The native backend; throws where it does not load. Absent in browsers. */
  native?(isa: string | undefined, threads: number | undefined): Backend;
  /** Whether a sync form may start the backend: anywhere but on a browser's main thread. */
  readonly blocking: boolean;
  /** The package's own file of a build, at once; throws where that is impossible. */
  readModule(build: Build): WebAssembly.Module;
  /** The same from anywhere. */
  loadModule(build: Build, source?: unknown): Promise<WebAssembly.Module>;
  /** Starts src/worker.ts. */
  startWorker(onMessage: (message: unknown) => void, onError: (what: string) => void): Port;
  /** Starts src/pool.ts, at `url`, as a thread that takes `start`; tells `port` "" once it is ready, else why it is not. Absent but
   *  on a page's main thread: elsewhere the worker starts its threads. */
  readonly startThread?: ((url: string, start: unknown, port: MessagePort) => { terminate: () => void }) | undefined;
  /** Address of src/pool.ts, where memory can be shared: in Node, and on cross-origin isolated pages. */
  readonly poolUrl: string | undefined;
  /** Why `poolUrl` is missing. */
  readonly poolNote: string;
  /** Threads of a pool by default. */
  readonly threads: number;
}
