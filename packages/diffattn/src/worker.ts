// The worker that owns a WASM instance: a module worker in browsers, node:worker_threads in Node, from this one source.
// Runs calls in order of arrival, in slices; between slices it lets its messages in, so an abort is seen.

import type { CallMessage, FromWorker, StartMessage, ToWorker, WireError } from "./backend/messages.js";
import { Instance } from "./backend/instance.js";
import { aborted, DiffAttnError, internal, reasonOf } from "./errors.js";
import { instantiate } from "./instantiate.js";
import { Op } from "./ops.js";
import { workerThreads } from "./worker-threads.js";

/** The part that a browser's worker scope and Node's parentPort share. */
interface Scope {
  postMessage(message: FromWorker, transfer: (ArrayBuffer | MessagePort)[]): void;
  onmessage: ((event: { data: ToWorker }) => void) | null;
}

const scope = (workerThreads?.parentPort ?? globalThis) as unknown as Scope;
const post = (message: FromWorker, transfer: (ArrayBuffer | MessagePort)[] = []): void => scope.postMessage(message, transfer);

let instance: Instance | undefined;
/** Calls that wait for their turn. */
const queue: (() => void | Promise<void>)[] = [];
let busy = false;
const abortedIds = new Set<number>();
/** Objects by key: the door's id, or why there is none. */
const objects = new Map<number, { id: number } | { failure: WireError }>();

const wire = (error: unknown): WireError =>
  error instanceof DiffAttnError ? { code: error.code, message: error.message } : wire(internal(reasonOf(error)));

/** One turn of the event loop, in which waiting messages arrive. */
const messagesIn = (): Promise<void> =>
  new Promise((resolve) => {
    if (typeof setImmediate === "function") {
      setImmediate(resolve);
    } else {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(null);
    }
  });

async function runQueue(): Promise<void> {
  if (busy) return;
  busy = true;
  for (let next = queue.shift(); next && !instance?.dead; next = queue.shift()) await next();
  busy = false;
}

function idOf(key: number): number {
  const object = objects.get(key);
  if (!object) throw internal("an object that the worker does not know");
  if ("failure" in object) throw new DiffAttnError(object.failure.code, object.failure.message);
  return object.id;
}

function lengthOf(on: Instance, key: number | undefined): number | undefined {
  const object = key === undefined ? undefined : objects.get(key);
  return object && "id" in object && !on.dead ? on.query({ op: Op.length, params: [object.id], operands: [] }) : undefined;
}

async function call(on: Instance, message: CallMessage): Promise<void> {
  const { id, params, kind, key } = message;
  try {
    for (const { slot, key } of message.objects) params[slot] = idOf(key);
    if (kind !== "job") {
      const answer = on.query(message);
      if (kind === "create" && key !== undefined) objects.set(key, { id: answer });
      post({ type: "result", id, outputs: [], length: kind === "change" ? answer : undefined });
      return;
    }
    if (abortedIds.has(id)) throw aborted(undefined);
    const job = on.begin(
      message,
      message.outBytes.map((length) => ({ length })),
    );
    try {
      let took = 0;
      while (job.done < job.total) {
        const start = performance.now();
        job.step(took);
        took = performance.now() - start;
        if (job.done >= job.total) break;
        if (message.progress) post({ type: "progress", id, done: job.done, total: job.total });
        await messagesIn();
        if (abortedIds.has(id)) throw aborted(undefined);
      }
      if (message.progress) post({ type: "progress", id, done: job.done, total: job.total });
      const outputs = job.outputs();
      job.end();
      post(
        { type: "result", id, outputs, length: lengthOf(on, key) },
        outputs.flatMap(({ buffer }) => buffer ?? []),
      );
    } finally {
      job.end();
    }
  } catch (error) {
    if (on.dead) {
      post({ type: "trap", error: wire(error) });
    } else {
      // What was promised to the caller at once did not happen here: nothing may use the object any more.
      if (kind !== "job" && key !== undefined) objects.set(key, { failure: wire(error) });
      post({ type: "error", id, error: wire(error), length: lengthOf(on, kind === "job" ? key : undefined) });
    }
  } finally {
    abortedIds.delete(id);
  }
}

/**
 * A thread of the pool, started by the local side. In Firefox (153) a worker that starts a worker can wait for ever: it waits until the
 * main thread has noted the new one, and the new one, which waits for its first message, is woken in its place. On a page that cannot happen; the caller's own worker
 * must not be made to wait, so there this one starts them.
 */
const startThread = (start: unknown): Promise<void> =>
  new Promise((resolve, reject) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => {
      port1.close();
      if (data === "") resolve();
      else reject(new Error(String(data)));
    };
    post({ type: "thread", start, port: port2 }, [port2]);
  });

async function start({ build, module, pool }: StartMessage): Promise<void> {
  try {
    if (pool) {
      const { startPool } = (await import(pool.url)) as typeof import("./pool.js");
      const { door, memory } = await startPool(module, pool.threads, pool.channel, pool.models, pool.outside ? startThread : undefined);
      instance = new Instance(door, memory);
      instance.configure(pool.threads);
    } else {
      instance = instantiate(module);
    }
    // The caller may have given a module of its own.
    const isa = instance.isa();
    if (!build.startsWith(isa)) throw new Error(`one of ${isa}`);
    post({ type: "started" });
  } catch (error) {
    const message = `wasm: expected a module of the ${build} build that starts, got ${reasonOf(error)}`;
    post({ type: "refused", error: { code: "UNAVAILABLE", message } });
  }
}

function enqueue(task: (on: Instance) => void | Promise<void>): void {
  queue.push(() => instance && task(instance));
  void runQueue();
}

scope.onmessage = ({ data: message }) => {
  switch (message.type) {
    case "start":
      void start(message);
      break;
    case "call":
      enqueue((on) => call(on, message));
      break;
    case "abort":
      abortedIds.add(message.id);
      break;
    case "threads":
      enqueue((on) => on.configure(message.threads));
      break;
    case "drop":
      enqueue((on) => {
        const object = objects.get(message.key);
        objects.delete(message.key);
        if (object && "id" in object) on.query({ op: Op.drop, params: [object.id], operands: [] });
      });
  }
};
