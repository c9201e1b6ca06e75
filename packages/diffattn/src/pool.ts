// The threads build: its glue and rayon's pool, for worker.ts, which is the script of each of its
// threads. Owns no instance.

import init, { door, initThreadPool, memoryPages, wbg_rayon_start_worker } from "glue:threads";
import { type Door, trapMessage } from "./backend/instance.js";
import type { StartMessage } from "./backend/messages.js";
import { POOL_THREAD, type Script } from "./port.js";
import { forNode, saidOf, startWeb } from "./start-script.js";
import { workerThreads } from "./worker-threads.js";

/** What a thread of the pool is told. */
export interface ThreadStart {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  receiver: number;
  channel: string;
}

let channel = "";
let script: Script | undefined;
/** Starts a thread elsewhere, if it must; fulfilled once it is ready. */
let startOutside: ((message: ThreadStart) => Promise<void>) | undefined;
// Kept from the start, because Firefox collects a worker that nothing refers to, in the middle of
// its work (https://bugzilla.mozilla.org/1702191).
export const threads: unknown[] = [];

/** What a thread of the pool does until its end. */
export async function runThread(data: ThreadStart, ready: () => void): Promise<void> {
  await init({ module_or_path: data.module, memory: data.memory });
  ready();
  const panicAddress = door.panicAddress();
  try {
    wbg_rayon_start_worker(data.receiver);
  } catch (trap) {
    // The instance's owner waits inside WASM for this thread: only the local side can still hear
    // it.
    new BroadcastChannel(data.channel).postMessage(trapMessage(data.memory, panicAddress, trap));
    throw trap;
  }
}

/** Starts one thread; it is ready when the promise resolves. */
function startThread(message: ThreadStart, from: Script): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const refuse = (why: unknown): void =>
      reject(new Error(`a pool thread did not start: ${why instanceof Error ? why.message : String(why)}`));
    if (workerThreads) {
      const [file, options] = forNode(from);
      const thread = new workerThreads.Worker(file, { ...options, workerData: POOL_THREAD });
      threads.push(thread);
      thread.once("message", resolve);
      thread.once("error", refuse);
      thread.postMessage(message);
    } else if (startOutside) {
      startOutside(message).then(resolve, refuse);
    } else {
      const thread = startWeb(from, POOL_THREAD);
      threads.push(thread);
      thread.onmessage = resolve;
      thread.onerror = (event) => refuse(saidOf(event));
      thread.postMessage(message);
    }
  });
}

/**
 * Shared memory with the largest maximum that the browser grants: some phones refuse a large one.
 */
function sharedMemory({ initial, maximum: largest }: { initial: number; maximum: number }): WebAssembly.Memory {
  for (let maximum = largest; ; maximum = Math.max(initial, maximum >> 1)) {
    try {
      return new WebAssembly.Memory({ initial, maximum, shared: true });
    } catch (refusal) {
      if (maximum === initial) throw refusal;
    }
  }
}

/**
 * A door whose calls run on the pool's threads; `outside` starts one where this worker must not.
 */
export async function startPool(
  module: WebAssembly.Module,
  pool: NonNullable<StartMessage["pool"]>,
  outside?: (message: ThreadStart) => Promise<void>,
): Promise<{ door: Door; memory: WebAssembly.Memory }> {
  ({ channel, script } = pool);
  startOutside = outside;
  const memory = sharedMemory(memoryPages[pool.part]);
  await init({ module_or_path: module, memory });
  await initThreadPool(pool.threads);
  return { door, memory };
}

/**
 * What wasm-bindgen-rayon calls for its threads; in the place of its own helper, which fetches
 * itself into a blob.
 */
export async function startWorkers(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  builder: { numThreads(): number; receiver(): number; build(): void },
): Promise<void> {
  const message: ThreadStart = { module, memory, receiver: builder.receiver(), channel };
  const from = script as Script;
  await Promise.all(Array.from({ length: builder.numThreads() }, () => startThread(message, from)));
  builder.build();
}
