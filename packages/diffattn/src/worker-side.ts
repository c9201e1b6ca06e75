// The side of a worker: it owns a WASM instance and runs calls in order of arrival, in slices;
// between slices it lets its messages in, so an abort is seen. A worker has one (worker.ts);
// without workers the caller's own thread has it (in-thread.ts). Starts no thread itself.

import type { CallMessage, FromWorker, StartMessage, ToWorker, WireError } from "./backend/messages.js";
import { SMALLEST_SPARE } from "./backend/copy.js";
import type { Instance } from "./backend/instance.js";
import { aborted, DiffAttnError, internal, reasonOf } from "./errors.js";
import { instantiate } from "./instantiate.js";
import * as Op from "./ops.generated.js";

type Post = (message: FromWorker, transfer?: (ArrayBuffer | MessagePort)[]) => void;

/** Starts the threads build, where there can be one. */
export type StartPool = (module: WebAssembly.Module, pool: NonNullable<StartMessage["pool"]>) => Promise<Instance>;

const wire = (error: unknown): WireError =>
  error instanceof DiffAttnError ? { code: error.code, message: error.message } : wire(internal(reasonOf(error)));

/** Ways to go on after the messages that wait, the quickest first. */
const turns: ((next: () => void) => void)[] = [
  (next) => void setImmediate(next),
  (next) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      next();
    };
    port2.postMessage(null);
  },
  (next) => void setTimeout(next, 0),
];

/** One turn of the event loop, in which waiting messages arrive. */
const messagesIn = (): Promise<void> =>
  new Promise((resolve) => {
    while (turns.length > 1) {
      try {
        return turns[0]?.(resolve);
      } catch {
        // It is missing, or is there and throws (Next's edge runtime); so it will be the next time.
        turns.shift();
      }
    }
    turns[0]?.(resolve);
  });

export class WorkerSide {
  readonly #post: Post;
  readonly #startPool: StartPool | undefined;
  #instance: Instance | undefined;
  /** Calls that wait for their turn. */
  readonly #queue: (() => void | Promise<void>)[] = [];
  #busy = false;
  readonly #abortedIds = new Set<number>();
  /** Threads build: how many aborts were sent, and how many have come. */
  #aborts: Int32Array | undefined;
  #abortsHeard = 0;
  /** Objects by key: the door's id, or why there is none. */
  readonly #objects = new Map<number, { id: number } | { failure: WireError }>();

  /** `startPool` is absent on the caller's own thread, which must not wait for others. */
  constructor(post: Post, startPool?: StartPool) {
    this.#post = post;
    this.#startPool = startPool;
  }

  async #runQueue(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (let next = this.#queue.shift(); next && !this.#instance?.dead; next = this.#queue.shift()) {
      // A caller's own thread first goes on with what it was about.
      if (!this.#startPool) await messagesIn();
      await next();
    }
    this.#busy = false;
  }

  /**
   * Lets waiting messages in, and throws where one aborts the call. In the threads build a number
   * in shared memory says whether one was sent: turns for nothing took 2 to 5 % of a call on two
   * threads in Chromium.
   */
  async #listen(id: number): Promise<void> {
    if (!this.#aborts || Atomics.load(this.#aborts, 0) !== this.#abortsHeard) await messagesIn();
    if (this.#abortedIds.has(id)) throw aborted(undefined);
  }

  #idOf(key: number): number {
    const object = this.#objects.get(key);
    if (!object) throw internal("an object that the worker does not know");
    if ("failure" in object) throw new DiffAttnError(object.failure.code, object.failure.message);
    return object.id;
  }

  #lengthOf(on: Instance, key: number | undefined): number | undefined {
    const object = key === undefined ? undefined : this.#objects.get(key);
    return object && "id" in object && !on.dead ? on.query({ op: Op.length, params: [object.id], operands: [] }) : undefined;
  }

  async #call(on: Instance, message: CallMessage): Promise<void> {
    const { id, params, kind, key } = message;
    try {
      for (const { slot, key } of message.objects) params[slot] = this.#idOf(key);
      if (kind !== "job") {
        const answer = on.query(message);
        if (kind === "create" && key !== undefined) this.#objects.set(key, { id: answer });
        this.#post({ type: "result", id, outputs: [], length: kind === "change" ? answer : undefined, spares: [] });
        return;
      }
      // (Who lets messages in between slices has let this call's abort in by now.)
      if (this.#aborts) await this.#listen(id);
      else if (this.#abortedIds.has(id)) throw aborted(undefined);
      const job = on.begin(
        message,
        message.outBytes.map((length) => (length === null ? null : { length })),
      );
      try {
        let took = 0;
        while (job.done() < job.total()) {
          const start = performance.now();
          job.step(took);
          took = performance.now() - start;
          if (job.done() >= job.total()) break;
          if (message.progress) this.#post({ type: "progress", id, done: job.done(), total: job.total() });
          await this.#listen(id);
        }
        if (message.progress) this.#post({ type: "progress", id, done: job.done(), total: job.total() });
        const outputs = job.outputs();
        job.end();
        const copies = message.areCopies ? message.operands.map(({ buffer }) => buffer as ArrayBuffer) : [];
        const spares = copies.filter(({ byteLength }) => byteLength >= SMALLEST_SPARE);
        this.#post({ type: "result", id, outputs, length: this.#lengthOf(on, key), spares }, [
          ...outputs.flatMap(({ buffer }) => buffer ?? []),
          ...spares,
        ]);
      } finally {
        job.end();
      }
    } catch (error) {
      if (on.dead) {
        this.#post({ type: "trap", error: wire(error) });
      } else {
        // What was promised to the caller at once did not happen here: nothing may use the object
        // any more.
        if (kind !== "job" && key !== undefined) this.#objects.set(key, { failure: wire(error) });
        this.#post({ type: "error", id, error: wire(error), length: this.#lengthOf(on, kind === "job" ? key : undefined) });
      }
    } finally {
      this.#abortedIds.delete(id);
    }
  }

  async #start({ build, module, pool }: StartMessage): Promise<void> {
    try {
      if (pool && !this.#startPool) throw new Error("none, for want of a worker");
      const instance = pool && this.#startPool ? await this.#startPool(module, pool) : instantiate(module);
      // The caller may have given a module of its own.
      const isa = instance.isa();
      if (!build.startsWith(isa)) throw new Error(`one of ${isa}`);
      this.#instance = instance;
      this.#aborts = pool?.aborts;
      this.#post({ type: "started" });
    } catch (error) {
      const message = `wasm: expected a module of the ${build} build that starts, got ${reasonOf(error)}`;
      this.#post({ type: "refused", error: { code: "UNAVAILABLE", message } });
    }
  }

  #enqueue(task: (on: Instance) => void | Promise<void>): void {
    this.#queue.push(() => this.#instance && task(this.#instance));
    void this.#runQueue();
  }

  /** Takes a message of the local side. */
  take(message: ToWorker): void {
    switch (message.type) {
      case "start":
        void this.#start(message);
        break;
      case "call":
        this.#enqueue((on) => this.#call(on, message));
        break;
      case "abort":
        this.#abortsHeard++;
        this.#abortedIds.add(message.id);
        break;
      case "threads":
        this.#enqueue((on) => on.configure(message.threads));
        break;
      case "drop":
        this.#enqueue((on) => {
          const object = this.#objects.get(message.key);
          this.#objects.delete(message.key);
          if (object && "id" in object) on.query({ op: Op.drop, params: [object.id], operands: [] });
        });
    }
  }
}
