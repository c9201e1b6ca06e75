// Types of the module that the build makes from wasm-bindgen's output (tsup.config.ts).

declare module "glue:threads" {
  const init: (options: { module_or_path: WebAssembly.Module; memory: WebAssembly.Memory }) => Promise<unknown>;
  export default init;
  export function initThreadPool(threads: number): Promise<unknown>;
  export function wbg_rayon_start_worker(receiver: number): void;
  export const door: import("./backend/instance.js").Door;
  /** Pages of a module's memory: what it starts with and what it may grow to. */
  export const memoryPages: Record<import("./port.js").Part, { initial: number; maximum: number }>;
}

/** The package's version, put in by the build. */
declare const __VERSION__: string;

// Modules that edge runtimes give compiled.
declare module "*.wasm" {
  const module: WebAssembly.Module;
  export default module;
}
declare module "*.wasm?module" {
  const module: WebAssembly.Module;
  export default module;
}

// What the build puts into `diffattn/inline`.
declare module "carried:*" {
  /** Deflated, in base64, by the file's name. */
  export const modules: Record<string, string>;
}
declare module "worker-text" {
  const text: string;
  export default text;
}
