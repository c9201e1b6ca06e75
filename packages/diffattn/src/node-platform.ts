// What Node does for a backend: the native addon where its binary loads, files, threads as workers.

import { readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { NativeBackend } from "./backend/native.js";
import { variable } from "./environment.js";
import { fail, reasonOf } from "./errors.js";
import { compile, compileSync } from "./module.js";
import { loadAddon } from "./node-addon.js";
import type { Build, Platform } from "./platform.js";

const urls: Record<Build, () => URL> = {
  simd128: () => new URL("./diffattn-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-threads.wasm", import.meta.url),
};

const readModule = (build: Build): WebAssembly.Module => compileSync(() => readFileSync(urls[build]()), urls[build]().href);

/** The bytes of a regular file: another thing may have no end, or wait for ever for a beginning. */
async function regular(file: URL): Promise<Uint8Array> {
  try {
    if (!(await stat(file)).isFile()) throw new Error("no regular file");
    return await readFile(file);
  } catch (error) {
    return fail("UNAVAILABLE", "wasm", "a WebAssembly file", `${reasonOf(error)} from ${file.href}`, error);
  }
}

export const platform: Platform = {
  models: false,
  env: variable,
  native: (isa, threads) => new NativeBackend(loadAddon(), isa, threads),
  blocking: true,
  readModule,
  loadModule(build, source) {
    if (source instanceof URL && source.protocol === "file:") return regular(source).then(compile);
    return source === undefined ? Promise.resolve(readModule(build)) : compile(source);
  },
  startWorker(onMessage, onError) {
    // The caller's own loaders and flags are none of this worker's business.
    const worker = new Worker(new URL("./worker.js", import.meta.url), { name: "diffattn", execArgv: [] });
    worker.on("message", onMessage);
    worker.on("error", (error) => onError(String(error)));
    worker.on("exit", (code) => onError(`its exit with code ${code}`));
    return {
      post: (message, transfer) => worker.postMessage(message, transfer),
      hold: (held) => (held ? worker.ref() : worker.unref()),
      terminate: () => void worker.terminate(),
    };
  },
  get poolUrl() {
    return new URL("./pool.js", import.meta.url).href;
  },
  poolNote: "",
  get threads() {
    return availableParallelism();
  },
};
