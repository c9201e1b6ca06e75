// What Node, browsers and edge runtimes do differently, as one object that each entry makes
// (node-platform.ts, browser-platform.ts, edge-platform.ts). Types only.

import type { Backend } from "./backend.js";
import type { StartMessage } from "./backend/messages.js";
import type { Carried, OwnFiles } from "./own-files.js";
import type { Build, InThread, Part, Port, Script } from "./port.js";
import type { InitOptions } from "./types.js";

/** Where modules come from, if not from the package's own files (given.ts). */
export interface Source {
  /** Files in a folder, which models and gradients take theirs from, too. */
  readonly files?: (part: Part) => OwnFiles;
  /** A module of one build. */
  readonly load?: (platform: Platform) => Promise<WebAssembly.Module>;
}

/** Which backend runs, and how: options of init and setThreads that were checked. */
export type Settings = Pick<InitOptions, "backend" | "isa" | "threads">;

/** The local side of a worker's pool of threads (backend/pool-client.ts). */
export interface PoolClient {
  /** What the worker is told of the pool. */
  readonly told: NonNullable<StartMessage["pool"]>;
  /**
   * Starts a thread that takes `start`, where the worker must not; tells `port` "" once it is
   * ready, else why it is not.
   */
  readonly startThread: (start: unknown, port: MessagePort) => void;
  /** Lets the worker know that an abort was sent to it. */
  readonly noteAbort: () => void;
  readonly end: () => void;
}

/** Opens a worker's pool; `script`: the worker's; `part`: what its module holds. */
export type OpenPool = (script: Script, threads: number, part: Part, onTrap: (what: string) => void) => PoolClient;

export interface Platform {
  /** What the modules hold. */
  readonly part: Part;
  /** Adds what the environment says where options leave it open. Absent but in Node. */
  settings?(given: Settings): Settings;
  /**
   * The native backend, or why WASM runs in its place; throws where it alone is wanted. Absent but
   * in Node.
   */
  native?(isa: string | undefined, threads: number | undefined, isWanted: boolean): Backend | string;
  /** The package's own files, where the caller names no folder. */
  readonly files: OwnFiles;
  /** Those of another part; `literal`: their addresses beside the script, as bundlers find them. */
  filesOf(part: Part, literal: Record<Build, () => URL>): OwnFiles;
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
   * How a pool of threads is opened; in browsers a script of its own, which pages without threads
   * never load. Absent where there never is one.
   */
  pool?(): Promise<OpenPool>;
  /** Why no pool of threads can run here; undefined in Node and on cross-origin isolated pages. */
  readonly noPool: string | undefined;
  /** Threads of a pool by default. */
  readonly threads: number;
}
