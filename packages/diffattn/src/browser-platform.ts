// What browsers, and whatever else is not Node, do for a backend. Importing it touches neither `window` nor the network.

import { fail } from "./errors.js";
import { compile, compileSync } from "./module.js";
import { type Build, type Platform, POOL_THREAD } from "./platform.js";

// Literal, so that bundlers see the files and copy them.
const urls: Record<Build, () => URL> = {
  simd128: () => new URL("./diffattn-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-threads.wasm", import.meta.url),
};

/** An address beside this script. Some runtimes (Cloudflare's workers) give scripts none; `instead`: what helps there. */
export function beside(address: () => URL, instead = "a module of the caller's, init({ wasm }), where scripts have no address"): URL {
  try {
    return address();
  } catch (cause) {
    return fail("UNAVAILABLE", "wasm", instead, "none", cause);
  }
}

function startThread(url: string, start: unknown, port: MessagePort): { terminate: () => void } {
  const thread = new Worker(url, { type: "module", name: POOL_THREAD });
  thread.onmessage = () => port.postMessage("");
  thread.onerror = (event) => port.postMessage(event.message || "its script did not load");
  thread.postMessage(start);
  return { terminate: () => thread.terminate() };
}

export const platform: Platform = {
  models: false,
  env: () => undefined,
  // Main threads have a document; workers may wait for the network.
  get blocking() {
    return typeof XMLHttpRequest === "function" && typeof document === "undefined";
  },
  readModule(build) {
    const url = beside(urls[build]).href;
    return compileSync(() => {
      const request = new XMLHttpRequest();
      request.open("GET", url, false);
      request.responseType = "arraybuffer";
      request.send();
      if (request.status !== 200) throw new Error(`the status ${request.status}`);
      return request.response as ArrayBuffer;
    }, url);
  },
  loadModule: async (build, source) => compile(source ?? beside(urls[build])),
  startWorker(onMessage, onError) {
    if (typeof Worker !== "function") throw new Error("a runtime that has none");
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => onMessage(data);
    worker.onerror = (event) => onError(event.message || "its script did not load");
    return {
      post: (message, transfer) => worker.postMessage(message, transfer),
      hold: () => {},
      terminate: () => worker.terminate(),
    };
  },
  get startThread() {
    return typeof document === "undefined" ? undefined : startThread;
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
};
