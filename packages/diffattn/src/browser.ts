// The entry for browsers and whatever else is not Node. Importing it touches neither `window` nor the network.

import * as api from "./api.js";
import { usePlatform } from "./init.js";
import { compile, compileSync } from "./module.js";
import type { Build } from "./platform.js";
import type * as types from "./types.js";

// Literal, so that bundlers see the files and copy them.
const urls: Record<Build, () => URL> = {
  simd128: () => new URL("./diffattn-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-threads.wasm", import.meta.url),
};

usePlatform({
  env: () => undefined,
  // Main threads have a document; workers may wait for the network.
  get blocking() {
    return typeof XMLHttpRequest === "function" && typeof document === "undefined";
  },
  readModule(build) {
    const url = urls[build]().href;
    return compileSync(() => {
      const request = new XMLHttpRequest();
      request.open("GET", url, false);
      request.responseType = "arraybuffer";
      request.send();
      if (request.status !== 200) throw new Error(`the status ${request.status}`);
      return request.response as ArrayBuffer;
    }, url);
  },
  loadModule: (build, source) => compile(source ?? urls[build]()),
  startWorker(onMessage, onError) {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => onMessage(data);
    worker.onerror = (event) => onError(event.message || "its script did not load");
    return {
      post: (message, transfer) => worker.postMessage(message, transfer),
      hold: () => {},
      terminate: () => worker.terminate(),
    };
  },
  get poolUrl() {
    return globalThis.crossOriginIsolated ? new URL("./pool.js", import.meta.url).href : undefined;
  },
  poolNote:
    "the page is not cross-origin isolated (headers Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy), so calls run on one thread",
  get threads() {
    const { navigator } = globalThis as { navigator?: Navigator };
    return navigator?.hardwareConcurrency ?? 1;
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
