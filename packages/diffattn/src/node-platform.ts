// What Node does for a backend: the native addon where its binary loads, files, threads as workers.

import { existsSync, readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { pathToFileURL } from "node:url";
import { BroadcastChannel, Worker } from "node:worker_threads";
import { inflateRawSync } from "node:zlib";
import { NativeBackend } from "./backend/native.js";
import { poolsBy } from "./backend/pool-client.js";
import { settings } from "./environment.js";
import { DiffAttnError, fail, reasonOf } from "./errors.js";
import { compileGiven } from "./given.js";
import { inThread } from "./in-thread.js";
import { compile } from "./module.js";
import { loadAddon } from "./node-addon.js";
import type { Platform } from "./platform.js";
import { BUILDS, type Build, type Part } from "./port.js";
import { fileOf, inlineFiles, type OwnFiles } from "./own-files.js";
import { scriptAddress } from "./script-address.js";
import { forNode } from "./start-script.js";

/**
 * A file beside this script; where a bundler made another script of it, that of the package that is
 * installed there. (ncc makes a path of what is written as an address.)
 */
function located(name: string, literal: () => URL | string): URL {
  let beside: URL | undefined;
  try {
    const written = literal();
    beside = typeof written === "string" ? pathToFileURL(written) : written;
    if (existsSync(beside)) return beside;
  } catch {
    // No address, or one that is none of a file.
  }
  try {
    return pathToFileURL(createRequire(scriptAddress()).resolve(`diffattn/${name}`));
  } catch {
    // Whoever reads it says what is wrong with it.
    return beside ?? new URL(name, scriptAddress());
  }
}

/**
 * Files that a script carries, else those beside it or of the package; `literal`: their addresses
 * as bundlers find them.
 */
const filesOf = (part: Part, literal: Record<Build, () => URL | string>): OwnFiles =>
  inlineFiles(part, (bytes) => new Uint8Array(inflateRawSync(bytes))) ?? {
    builds: BUILDS,
    module: (build) => located(fileOf(build, part), literal[build]),
    worker: () => located("worker.js", () => new URL("./worker.js", import.meta.url)),
  };

/** The bytes of a regular file: another thing may have no end, or wait for ever for a beginning. */
async function regular(file: URL, hint = ""): Promise<Uint8Array> {
  try {
    if (!(await stat(file)).isFile()) throw new Error("no regular file");
    return await readFile(file);
  } catch (error) {
    return fail("UNAVAILABLE", "wasm", `a WebAssembly file${hint}`, `${reasonOf(error)} from ${file.href}`, error);
  }
}

const openPool = poolsBy({
  openChannel(name) {
    // Deno's global one cannot be let go of; that of Node's module can.
    const channel = new BroadcastChannel(name);
    channel.unref();
    return channel as unknown as globalThis.BroadcastChannel;
  },
});

export const platform: Platform = {
  part: "operators",
  settings,
  native(isa, threads, isWanted) {
    try {
      return new NativeBackend(loadAddon(), isa, threads);
    } catch (error) {
      if (error instanceof DiffAttnError) throw error;
      const why = reasonOf(error);
      if (isWanted) fail("UNAVAILABLE", "backend", "a native binary that loads", `none: ${why}`, error);
      return `the native binary did not load, so WASM runs: ${why}`;
    }
  },
  get files() {
    return filesOf("operators", {
      simd128: () => new URL("./diffattn-simd128.wasm", import.meta.url),
      "relaxed-simd": () => new URL("./diffattn-relaxed.wasm", import.meta.url),
      "relaxed-simd+threads": () => new URL("./diffattn-threads.wasm", import.meta.url),
    });
  },
  filesOf,
  blocking: true,
  read: (file) => readFileSync(file),
  async loadModule(file, hint) {
    if (!(file instanceof URL) || file.protocol !== "file:") return compile(file, hint);
    return compileGiven(await regular(file, hint), this);
  },
  scriptOf(worker) {
    if (typeof worker === "string") return { kind: "text", text: worker };
    // Node starts workers of files alone; a folder may be a server's.
    const file = worker.protocol === "file:" ? worker : this.files.worker();
    return typeof file === "string" ? { kind: "text", text: file } : { kind: "classic", text: file.href };
  },
  startWorker(script, onMessage, onError) {
    const [file, options] = forNode(script);
    const worker = new Worker(file, { ...options, name: "diffattn" });
    worker.on("message", onMessage);
    worker.on("error", (error) => onError(String(error)));
    worker.on("exit", (code) => onError(`its exit with code ${code}`));
    return {
      post: (message, transfer) => worker.postMessage(message, transfer),
      hold: (held) => (held ? worker.ref() : worker.unref()),
      terminate: () => void worker.terminate(),
    };
  },
  inThread: () => Promise.resolve(inThread),
  pool: () => Promise.resolve(openPool),
  noPool: undefined,
  get threads() {
    return availableParallelism();
  },
};
