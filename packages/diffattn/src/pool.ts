// The threads build: its glue and rayon's pool, in one file that names no other, because each pool thread loads it again
// by its address and bundlers copy it as it is. The worker (worker.ts) imports it and owns the instance.

import init, { door, initThreadPool, memoryPages, wbg_rayon_start_worker } from "glue:threads";
import { type Door, trapMessage } from "./backend/instance.js";
import { POOL_THREAD } from "./platform.js";
import { workerThreads } from "./worker-threads.js";

interface ThreadStart {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  receiver: number;
  channel: string;
}

let channel = "";
/** Starts a thread elsewhere, if it must; fulfilled once it is ready. */
let startOutside: ((message: ThreadStart) => Promise<void>) | undefined;
// Kept from the start, because Firefox collects a worker that nothing refers to, in the middle of its work
// (https://bugzilla.mozilla.org/1702191).
export const threads: unknown[] = [];

interface Scope {
  onmessage: ((event: { data: ThreadStart }) => void) | null;
  postMessage(message: unknown): void;
}

const isThread = workerThreads ? workerThreads.workerData === POOL_THREAD : (globalThis as { name?: string }).name === POOL_THREAD;
if (isThread) {
  const scope = (workerThreads?.parentPort ?? globalThis) as unknown as Scope;
  const start = async (data: ThreadStart): Promise<void> => {
    await init({ module_or_path: data.module, memory: data.memory });
    scope.postMessage("ready");
    const panicAddress = door.panicAddress();
    try {
      wbg_rayon_start_worker(data.receiver);
    } catch (trap) {
      // The instance's owner waits inside WASM for this thread: only the local side can still hear it.
      new BroadcastChannel(data.channel).postMessage(trapMessage(data.memory, panicAddress, trap));
      throw trap;
    }
  };
  scope.onmessage = ({ data }) => void start(data);
}

/** Starts one thread; it is ready when the promise resolves. */
function startThread(message: ThreadStart): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const refuse = (why: unknown): void =>
      reject(new Error(`a pool thread did not start: ${why instanceof Error ? why.message : String(why)}`));
    if (workerThreads) {
      const thread = new workerThreads.Worker(new URL(import.meta.url), { workerData: POOL_THREAD, execArgv: [] });
      threads.push(thread);
      thread.once("message", resolve);
      thread.once("error", refuse);
      thread.postMessage(message);
    } else if (startOutside) {
      startOutside(message).then(resolve, refuse);
    } else {
      const thread = new Worker(import.meta.url, { type: "module", name: POOL_THREAD });
      threads.push(thread);
      thread.onmessage = resolve;
      thread.onerror = (event) => refuse(event.message || "its script did not load");
      thread.postMessage(message);
    }
  });
}

/** Shared memory with the largest maximum that the browser grants: some phones refuse a large one. */
function sharedMemory({ initial, maximum: largest }: { initial: number; maximum: number }): WebAssembly.Memory {
  for (let maximum = largest; ; maximum = Math.max(initial, maximum >> 1)) {
    try {
      return new WebAssembly.Memory({ initial, maximum, shared: true });
    } catch (refusal) {
      if (maximum === initial) throw refusal;
    }
  }
}

/** A door whose calls run on `count` threads; `startThread` starts one where this worker must not. A thread's trap is told on `trapChannel`. */
export async function startPool(
  module: WebAssembly.Module,
  count: number,
  trapChannel: string,
  models: boolean,
  startThread?: (message: unknown) => Promise<void>,
): Promise<{ door: Door; memory: WebAssembly.Memory }> {
  channel = trapChannel;
  startOutside = startThread;
  const memory = sharedMemory(models ? memoryPages.models : memoryPages.operators);
  await init({ module_or_path: module, memory });
  await initThreadPool(count);
  return { door, memory };
}

/** What wasm-bindgen-rayon calls for its threads; in the place of its own helper, which fetches itself into a blob. */
export async function startWorkers(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  builder: { numThreads(): number; receiver(): number; build(): void },
): Promise<void> {
  const message: ThreadStart = { module, memory, receiver: builder.receiver(), channel };
  await Promise.all(Array.from({ length: builder.numThreads() }, () => startThread(message)));
  builder.build();
}
