// What Node, browsers and edge runtimes do differently, as one object that each entry makes (node-platform.ts, browser-platform.ts,
// edge-platform.ts). Types, and the names that both sides of a worker know.

import type { Backend } from "./backend.js";
import type { Carried, OwnFiles } from "./own-files.js";

/** The WASM builds, slowest first. */
export const BUILDS = ["simd128", "relaxed-simd", "relaxed-simd+threads"] as const;
export type Build = (typeof BUILDS)[number];

/** The name that tells a thread of a pool from the worker: both are src/worker.ts. */
export const POOL_THREAD = "diffattn-pool-thread";

/** Why there are no threads where there is no Worker. */
export const NO_THREADS = "this runtime has no Worker, so calls run on one thread";

/** A worker, from the outside. */
export interface Port {
  post(message: unknown, transfer: ArrayBuffer[]): void;
  /** Whether the worker keeps the process alive. */
  hold(held: boolean): void;
  terminate(): void;
}

/** How src/worker.ts is started, by the local side and, for the threads of its pool, by itself. */
export interface Script {
  /** A text is a script's own, which Node evaluates; the others are addresses of a script and of a module. */
  kind: "classic" | "module" | "text";
  text: string;
}

export interface Platform {
  /** Whether the builds are those with models. */
  readonly models: boolean;
  env(name: string): string | undefined;
  /** The native backend; throws where it does not load. Absent but in Node. */
  native?(isa: string | undefined, threads: number | undefined): Backend;
  /** The package's own files, where the caller names no folder. */
  readonly files: OwnFiles;
  /** Whether a sync form may start the backend: anywhere but on a browser's main thread. */
  readonly blocking: boolean;
  /** One of the package's own files, compiled at once; throws where that is impossible. */
  readModule(file: URL | Carried | WebAssembly.Module): WebAssembly.Module;
  /** The same from anywhere, or what `init({ wasm })` takes; `hint`: what helps where the file is not there. */
  loadModule(source: unknown, hint?: string): Promise<WebAssembly.Module>;
  /** How a worker is started of an address, or of the script's text. */
  scriptOf(worker: URL | string): Script;
  /** Starts src/worker.ts; throws where no worker can be. */
  startWorker(script: Script, onMessage: (message: unknown) => void, onError: (what: string) => void): Port;
  /** Starts it as a thread that takes `start`; tells `port` "" once it is ready, else why it is not. Absent but on a page's main
   *  thread: elsewhere the worker starts its threads. */
  readonly startThread?: ((script: Script, start: unknown, port: MessagePort) => { terminate: () => void }) | undefined;
  /** A channel that does not keep the process alive. Absent where none does. */
  openChannel?(name: string): BroadcastChannel;
  /** Why no pool of threads can run here; undefined in Node and on cross-origin isolated pages. */
  readonly noPool: string | undefined;
  /** Threads of a pool by default. */
  readonly threads: number;
}
