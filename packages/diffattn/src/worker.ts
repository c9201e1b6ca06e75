// The one script of workers: a Web Worker, or a thread of Node, that owns a WASM instance; and each
// thread of its pool. It imports nothing and asks for no address, so that any tool can copy it, a
// Blob can hold it and a text of it can be evaluated.

import { Instance } from "./backend/instance.js";
import type { FromWorker, StartMessage, ToWorker } from "./backend/messages.js";
import { POOL_THREAD } from "./port.js";
import { runThread, startPool, type ThreadStart } from "./pool.js";
import { WorkerSide } from "./worker-side.js";
import { workerThreads } from "./worker-threads.js";

/** The part that a browser's worker scope and Node's parentPort share. */
interface Scope {
  postMessage(message: unknown, transfer?: (ArrayBuffer | MessagePort)[]): void;
  onmessage: ((event: { data: unknown }) => void) | null;
}

const scope = (workerThreads?.parentPort ?? globalThis) as unknown as Scope;
const post = (message: FromWorker, transfer: (ArrayBuffer | MessagePort)[] = []): void => scope.postMessage(message, transfer);

/**
 * A thread of the pool, started by the local side. In Firefox (153) a worker that starts a worker
 * can wait for ever: it waits until the main thread has noted the new one, and the new one, which
 * waits for its first message, is woken in its place. On a page that cannot happen; the caller's
 * own worker must not be made to wait, so there this one starts them.
 */
const startOutside = (start: ThreadStart): Promise<void> =>
  new Promise((resolve, reject) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => {
      port1.close();
      if (data === "") resolve();
      else reject(new Error(String(data)));
    };
    post({ type: "thread", start, port: port2 }, [port2]);
  });

async function start(module: WebAssembly.Module, pool: NonNullable<StartMessage["pool"]>): Promise<Instance> {
  const { door, memory } = await startPool(module, pool, pool.outside ? startOutside : undefined);
  const instance = new Instance(door, memory);
  instance.configure(pool.threads);
  return instance;
}

const isThread = workerThreads ? workerThreads.workerData === POOL_THREAD : (globalThis as { name?: string }).name === POOL_THREAD;
if (isThread) {
  scope.onmessage = ({ data }) => void runThread(data as ThreadStart, () => scope.postMessage("ready"));
} else {
  const side = new WorkerSide(post, start);
  scope.onmessage = ({ data }) => side.take(data as ToWorker);
}
