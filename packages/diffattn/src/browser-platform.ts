// What browsers, and whatever else is no Node, do for a backend. Importing it touches neither
// `window` nor the network.

import { fail, reasonOf } from "./errors.js";
import { compile } from "./module.js";
import { besideScript, inline, inlineFiles, type OwnFiles } from "./own-files.js";
import type { Platform } from "./platform.js";
import { type Build, NO_THREADS, type Part } from "./port.js";
import { saidOf, startWeb } from "./start-script.js";

// Literal, so that bundlers see the files and copy them.
const literal = {
  simd128: () => new URL("./diffattn-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-threads.wasm", import.meta.url),
};

/** Files that a script carries, else those beside it. */
const filesOf = (part: Part, literal: Record<Build, () => URL>): OwnFiles =>
  inlineFiles(part) ?? besideScript(literal, () => new URL("./worker.js", import.meta.url));

/** Addresses of scripts that had to be made, one for each text. */
const made = new Map<string, string>();

function addressOf(text: string): string {
  const known = made.get(text);
  if (known !== undefined) return known;
  // (In text/javascript, or a worker refuses it.)
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  made.set(text, address);
  return address;
}

export const platform: Platform = {
  part: "operators",
  get files() {
    return filesOf("operators", literal);
  },
  filesOf,
  // Main threads have a document; workers may wait for the network.
  get blocking() {
    return typeof XMLHttpRequest === "function" && typeof document === "undefined";
  },
  read(file) {
    const request = new XMLHttpRequest();
    request.open("GET", file, false);
    request.responseType = "arraybuffer";
    request.send();
    if (request.status !== 200) throw new Error(`the status ${request.status}`);
    return request.response as ArrayBuffer;
  },
  loadModule: compile,
  scriptOf(worker) {
    // (Who has none may have no addresses of Blobs either: Service Workers.)
    if (typeof Worker !== "function") throw new Error("a runtime that has none");
    if (typeof worker === "string") return { kind: "classic", text: addressOf(worker) };
    if (worker.origin === globalThis.origin) return { kind: "classic", text: worker.href };
    // Of another origin no worker is started, but one of our own may load it, as a module: by CORS,
    // as the WASM files are.
    return { kind: "module", text: addressOf(`import ${JSON.stringify(worker.href)};`) };
  },
  startWorker(script, onMessage, onError) {
    const worker = startWeb(script, "diffattn");
    worker.onmessage = ({ data }) => onMessage(data);
    worker.onerror = (event) => onError(saidOf(event));
    return {
      post: (message, transfer) => worker.postMessage(message, transfer),
      hold: () => {},
      terminate: () => worker.terminate(),
    };
  },
  // (Service Workers import no script while they run, but what one left is there.)
  async inThread() {
    try {
      return inline()?.inThread ?? (await import("./in-thread.js")).inThread;
    } catch (cause) {
      return fail("UNAVAILABLE", "worker", 'a worker, or import "diffattn/in-thread"', `none, and ${reasonOf(cause)}`, cause);
    }
  },
  async pool() {
    return (await import("./browser-pool.js")).openPool;
  },
  get noPool() {
    if (typeof Worker !== "function") return NO_THREADS;
    return globalThis.crossOriginIsolated
      ? undefined
      : "the page is not cross-origin isolated (headers Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy), so calls run on one thread";
  },
  get threads() {
    const { navigator } = globalThis as { navigator?: Navigator };
    return navigator?.hardwareConcurrency ?? 1;
  },
};
