// What Node, browsers and edge runtimes do differently, as one object that each entry makes
// (node-platform.ts, browser-platform.ts, edge-platform.ts). Types only.

import type { Backend } from "./backend.js";
import type { Carried, OwnFiles } from "./own-files.js";
import type { InThread, Port, Script } from "./port.js";

/** Where modules come from, if not from the package's own files (given.ts). */
export interface Source {
  /** Files in a folder, which models take theirs from, too. */
  readonly files?: (models: boolean) => OwnFiles;
  /** A module of one build. */
  readonly load?: (platform: Platform) => Promise<WebAssembly.Module>;
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
  /** The bytes of one of the package's own files, at once; throws where that is impossible. */
  read(file: URL): BufferSource;
  /** A module of one of the package's own files; `hint`: what helps where the file is not there. */
  loadModule(file: URL | Carried | WebAssembly.Module, hint?: string): Promise<WebAssembly.Module>;
  /** How a worker is started of an address, or of the script's text. */
  scriptOf(worker: URL | string): Script;
  /** Starts src/worker.ts; throws where no worker can be. */
  startWorker(script: Script, onMessage: (message: unknown) => void, onError: (what: string) => void): Port;
  /**
   * What stands in a worker's place where none starts; in browsers a script of its own, which pages
   * with workers never load.
   */
  inThread(): Promise<InThread>;
  /**
   * Starts it as a thread that takes `start`; tells `port` "" once it is ready, else why it is not.
   * Absent but on a page's main thread: elsewhere the worker starts its threads.
   */
  readonly startThread?: ((script: Script, start: unknown, port: MessagePort) => { terminate: () => void }) | undefined;
  /** A channel that does not keep the process alive. Absent where none does. */
  openChannel?(name: string): BroadcastChannel;
  /** Why no pool of threads can run here; undefined in Node and on cross-origin isolated pages. */
  readonly noPool: string | undefined;
  /** Threads of a pool by default. */
  readonly threads: number;
}
