// What both sides of a worker know: the builds, how a script is started, and what a worker is from
// the outside.

/** The WASM builds, slowest first. */
export const BUILDS = ["simd128", "relaxed-simd", "relaxed-simd+threads"] as const;
export type Build = (typeof BUILDS)[number];

/** What modules hold, each of it in three builds; each holds all that stands before it. */
export type Part = "operators" | "models" | "training";

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
  /**
   * A text is a script's own, which Node evaluates; the others are addresses of a script and of a
   * module.
   */
  kind: "classic" | "module" | "text";
  text: string;
}

/** Starts what stands in a worker's place (in-thread.ts). */
export type InThread = (onMessage: (message: unknown) => void) => Port;
