// The local side of the worker: sends messages, keeps the open calls, ends them all when the worker
// dies. Knows no object and no operator. One client is one worker; after its end it is thrown away.

import type { Call, Output } from "../backend.js";
import { aborted, DiffAttnError, fail, internal, reasonOf } from "../errors.js";
import type { OwnFiles } from "../own-files.js";
import type { Platform, PoolClient } from "../platform.js";
import type { Build, InThread, Port, Script } from "../port.js";
import { Spares } from "./copy.js";
import type { CallMessage, FromWorker, ToWorker, WireError } from "./messages.js";

interface Open {
  resolve: (outputs: Output[]) => void;
  reject: (error: Error) => void;
  onProgress: ((done: number, total: number) => void) | null;
  /** Told with the length of the cache that the call changed. */
  onEnd: (length: number | undefined) => void;
}

/** Why there is no worker. */
class NoWorker extends Error {}

const received = ({ code, message }: WireError): DiffAttnError => new DiffAttnError(code, message);

export class WorkerClient {
  readonly #platform: Platform;
  readonly #files: OwnFiles;
  /** How the worker is started. */
  #script: Script | undefined;
  /** Why no worker starts, so that calls run on this thread. */
  noWorker: string | undefined;
  /** What stands in its place. */
  #inThread: InThread | undefined;
  #port: Port | undefined;
  #pool: PoolClient | undefined;
  /** Messages that wait for the start, with what they transfer. */
  #waiting: [ToWorker, ArrayBuffer[]][] | undefined = [];
  readonly #open = new Map<number, Open>();
  /** Ends a start that `end` overtakes. */
  #refuse: ((error: Error) => void) | undefined;
  /** Buffers of the copies that calls take along. */
  readonly spares = new Spares();
  /** Told when no call is open. */
  onIdle: (() => void) | undefined;
  #lastId = 0;
  #lastKey = 0;
  /** Why it can be used no more. */
  ended: DiffAttnError | undefined;

  constructor(platform: Platform, files: OwnFiles) {
    this.#platform = platform;
    this.#files = files;
  }

  /**
   * Starts a worker on a build, or where none starts its side on this thread; may be tried again
   * with another build when it is refused.
   */
  async start(build: Build, module: WebAssembly.Module, threads: number): Promise<void> {
    try {
      await this.#launch(build, module, threads);
    } catch (error) {
      if (!(error instanceof NoWorker)) throw error;
      this.noWorker = error.message;
      this.#inThread = await this.#platform.inThread();
      await this.#launch(build, module, threads);
    }
    for (const [message, transfer] of this.#waiting ?? []) this.#port?.post(message, transfer);
    this.#waiting = undefined;
    this.hold();
  }

  /** A worker, or what stands in its place. */
  #startPort(onMessage: (data: unknown) => void, onError: (what: string) => void): Port {
    if (this.#inThread) return this.#inThread(onMessage);
    this.#script = this.#platform.scriptOf(this.#files.worker());
    return this.#platform.startWorker(this.#script, onMessage, onError);
  }

  async #launch(build: Build, module: WebAssembly.Module, threads: number): Promise<void> {
    const openPool = build === "relaxed-simd+threads" ? await this.#platform.pool?.() : undefined;
    if (this.ended) throw this.ended;
    this.#stop();
    await new Promise<void>((resolve, reject) => {
      this.#refuse = reject;
      let started = false;
      const onMessage = (data: unknown): void => {
        const message = data as FromWorker;
        if (port !== this.#port) return;
        if (message.type === "started") {
          started = true;
          resolve();
        } else if (message.type === "refused") {
          reject(received(message.error));
        } else if (message.type === "thread") {
          this.#pool?.startThread(message.start, message.port);
        } else if (message.type === "trap") {
          this.end(received(message.error));
        } else {
          this.#receive(message);
        }
      };
      const onError = (what: string): void => {
        if (port !== this.#port) return;
        if (started) {
          this.end(internal(what));
          return;
        }
        const worker = this.#files.worker();
        reject(new NoWorker(typeof worker === "string" ? what : `${worker.href}: ${what}`));
      };
      let port: Port;
      try {
        port = this.#port = this.#startPort(onMessage, onError);
      } catch (refusal) {
        reject(new NoWorker(reasonOf(refusal)));
        return;
      }
      port.hold(true);
      if (this.#script) this.#pool = openPool?.(this.#script, threads, this.#platform.part, (what) => this.end(internal(what)));
      port.post({ type: "start", build, module, pool: this.#pool?.told } satisfies ToWorker, []);
    });
  }

  #receive(message: Extract<FromWorker, { id: number }>): void {
    const open = this.#open.get(message.id);
    if (message.type === "progress") {
      open?.onProgress?.(message.done, message.total);
      return;
    }
    this.#open.delete(message.id);
    this.hold();
    open?.onEnd(message.length);
    if (message.type === "result") {
      this.spares.add(message.spares);
      open?.resolve(message.outputs);
    } else open?.reject(received(message.error));
  }

  /** Keeps the process alive while calls are open; tells who waits for their end. */
  hold(): void {
    this.#port?.hold(this.#open.size > 0 || this.#waiting !== undefined);
    if (this.#open.size === 0) this.onIdle?.();
  }

  #stop(): void {
    this.#port?.terminate();
    this.#pool?.end();
    this.#port = this.#pool = undefined;
  }

  /** A number by which both sides know an object. */
  newKey(): number {
    return ++this.#lastKey;
  }

  send(message: ToWorker, transfer: ArrayBuffer[] = []): void {
    if (this.#waiting) this.#waiting.push([message, transfer]);
    else this.#port?.post(message, transfer);
  }

  /** Sends a call whose operands are this side's own copies: they move to the worker. */
  call(call: Omit<CallMessage, "type" | "id" | "progress">, onProgress: Open["onProgress"], onEnd: Open["onEnd"]): Call {
    if (this.ended) throw this.ended;
    const id = ++this.#lastId;
    const outputs = new Promise<Output[]>((resolve, reject) => this.#open.set(id, { resolve, reject, onProgress, onEnd }));
    this.send({ type: "call", id, progress: onProgress !== null, ...call }, [
      ...new Set(call.operands.map((bytes) => bytes.buffer as ArrayBuffer)),
    ]);
    this.hold();
    const cancel = (): void => {
      if (!this.#open.has(id)) return;
      if (!this.#waiting) {
        this.send({ type: "abort", id });
        this.#pool?.noteAbort();
        return;
      }
      // Not sent yet: nothing to wait for.
      this.#waiting = this.#waiting.filter(([message]) => message.type !== "call" || message.id !== id);
      const { code, message } = aborted(undefined);
      this.#receive({ type: "error", id, error: { code, message }, length: undefined });
    };
    return { outputs, cancel };
  }

  /** Ends the worker and rejects every open call. */
  end(error: DiffAttnError): void {
    if (this.ended) return;
    this.ended = error;
    this.#stop();
    this.#refuse?.(error);
    const open = [...this.#open.values()];
    this.#open.clear();
    this.#waiting = undefined;
    this.hold();
    for (const { reject } of open) reject(new DiffAttnError(error.code, error.message, { cause: error.cause }));
  }
}

/** The error of an object whose instance is gone. */
export const gone = (name: string): never => fail("UNAVAILABLE", name, "an object of a live instance", "one of an instance that ended");
