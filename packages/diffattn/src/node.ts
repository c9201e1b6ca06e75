// The entry for Node: the native addon where its binary loads, else WASM.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import * as api from "./api.js";
import { type Addon, NativeBackend } from "./backend/native.js";
import { usePlatform } from "./init.js";
import { compile, compileSync } from "./module.js";
import type { Build } from "./platform.js";
import type * as types from "./types.js";

const urls: Record<Build, () => URL> = {
  simd128: () => new URL("./diffattn-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-threads.wasm", import.meta.url),
};

const readModule = (build: Build): WebAssembly.Module => compileSync(() => readFileSync(urls[build]()), urls[build]().href);

usePlatform({
  env: (name) => process.env[name],
  native: (isa, threads) => new NativeBackend(createRequire(import.meta.url)("@diffattn/native") as Addon, isa, threads),
  blocking: true,
  readModule,
  loadModule(build, source) {
    if (source instanceof URL && source.protocol === "file:") return compile(readFileSync(source));
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
});

export const init: typeof types.init = api.init;
export const info: typeof types.info = api.info;
export const setThreads: typeof types.setThreads = api.setThreads;
export const getThreads: typeof types.getThreads = api.getThreads;
export const dispose: typeof types.dispose = api.dispose;
export const createTensor: typeof types.createTensor = api.createTensor;
export const diffAttention: typeof types.diffAttention = api.diffAttention;
export const diffAttentionSync: typeof types.diffAttentionSync = api.diffAttentionSync;
export const diffAttentionMaps: typeof types.diffAttentionMaps = api.diffAttentionMaps;
export const diffAttentionMapsSync: typeof types.diffAttentionMapsSync = api.diffAttentionMapsSync;
export const groupNorm: typeof types.groupNorm = api.groupNorm;
export const groupNormSync: typeof types.groupNormSync = api.groupNormSync;
export const rmsNorm: typeof types.rmsNorm = api.rmsNorm;
export const rmsNormSync: typeof types.rmsNormSync = api.rmsNormSync;
export const applyRope: typeof types.applyRope = api.applyRope;
export const applyRopeSync: typeof types.applyRopeSync = api.applyRopeSync;
export const sequenceDifference: typeof types.sequenceDifference = api.sequenceDifference;
export const sequenceDifferenceSync: typeof types.sequenceDifferenceSync = api.sequenceDifferenceSync;
export const lambdaInit: typeof types.lambdaInit = api.lambdaInit;
export const lambdaFull: typeof types.lambdaFull = api.lambdaFull;
export const KvCache: typeof types.KvCache = api.KvCache;
export const MultiheadDiffAttn: typeof types.MultiheadDiffAttn = api.MultiheadDiffAttn;
export const MultiheadDiffAttnV2: typeof types.MultiheadDiffAttnV2 = api.MultiheadDiffAttnV2;
export const DiffAttnError: typeof types.DiffAttnError = api.DiffAttnError;
