// The local side of the worker: sends messages, keeps the open calls, ends them all when the worker dies. Knows no object
// and no operator. One client is one worker; after its end it is thrown away.

import type { Output } from "../backend.js";
import { aborted, DiffAttnError, fail, internal } from "../errors.js";
import type { Build, Platform, Port } from "../platform.js";
import type { CallMessage, FromWorker, ToWorker } from "./messages.js";

interface Open {
  resolve: (answer: Answer) => void;
  reject: (error: Error) => void;
  onProgress: ((done: number, total: number) => void) | null;
  /** Told with the length of the cache that the call changed. */
  onEnd: (length: number | undefined) => void;
  settled: Promise<unknown>;
}

export interface Answer {
  outputs: Output[];
}

let channels = 0;

export class WorkerClient {
  readonly #platform: Platform;
  #port: Port | undefined;
  #channel: BroadcastChannel | undefined;
  /** Messages that wait for the start, with what they transfer. */
  #waiting: [ToWorker, ArrayBuffer[]][] | undefined = [];
  readonly #open = new Map<number, Open>();
  /** Ends a start that `end` overtakes. */
  #refuse: ((error: Error) => void) | undefined;
  #lastId = 0;
  #lastKey = 0;
  /** Why it can be used no more. */
  ended: DiffAttnError | undefined;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** Starts a worker on a build; may be tried again with another when it is refused. */
  async start(build: Build, module: WebAssembly.Module, threads: number): Promise<void> {
    if (this.ended) throw this.ended;
    await new Promise<void>((resolve, reject) => {
      this.#refuse = reject;
      let started = false;
      const trap = (what: string): void => this.end(internal(what));
      const port = this.#platform.startWorker(
        (received) => {
          if (port !== this.#port) return;
          const message = received as FromWorker;
          if (message.type === "started") {
            started = true;
            resolve();
          } else if (message.type === "refused") {
            reject(new DiffAttnError(message.error.code, message.error.message));
          } else {
            this.#receive(message);
          }
        },
        (what) => {
          if (port !== this.#port) return;
          if (started) trap(what);
          else reject(new DiffAttnError("UNAVAILABLE", `worker: expected a worker that starts, got ${what}`));
        },
      );
      this.#stop();
      this.#port = port;
      port.hold(true);
      const { poolUrl } = this.#platform;
      if (build === "relaxed-simd+threads" && poolUrl) {
        const channel = `diffattn-${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}-${channels++}`;
        // A pool thread's trap leaves the worker waiting inside WASM for ever; the thread tells it here.
        this.#channel = new BroadcastChannel(channel);
        // In Node it would keep the process alive.
        (this.#channel as { unref?: () => void }).unref?.();
        this.#channel.onmessage = ({ data }) => trap(String(data));
        port.post({ type: "start", build, module, pool: { url: poolUrl, threads, channel } } satisfies ToWorker, []);
      } else {
        port.post({ type: "start", build, module } satisfies ToWorker, []);
      }
    });
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const [message, transfer] of waiting) this.#port?.post(message, transfer);
    this.#hold();
  }

  #receive(message: FromWorker): void {
    if (message.type === "trap") {
      this.end(new DiffAttnError(message.error.code, message.error.message));
      return;
    }
    if (message.type === "started" || message.type === "refused") return;
    const open = this.#open.get(message.id);
    if (!open) return;
    if (message.type === "progress") {
      open.onProgress?.(message.done, message.total);
      return;
    }
    this.#open.delete(message.id);
    this.#hold();
    open.onEnd(message.length);
    if (message.type === "result") open.resolve({ outputs: message.outputs });
    else open.reject(new DiffAttnError(message.error.code, message.error.message));
  }

  #hold(): void {
    this.#port?.hold(this.#open.size > 0 || this.#waiting !== undefined);
  }

  #stop(): void {
    this.#port?.terminate();
    this.#channel?.close();
    this.#port = this.#channel = undefined;
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
  call(
    call: Omit<CallMessage, "type" | "id" | "progress">,
    onProgress: Open["onProgress"],
    onEnd: Open["onEnd"],
  ): { answer: Promise<Answer>; cancel: () => void } {
    if (this.ended) throw this.ended;
    const id = ++this.#lastId;
    const answer = new Promise<Answer>((resolve, reject) => {
      const open: Open = { resolve, reject, onProgress, onEnd, settled: Promise.resolve() };
      this.#open.set(id, open);
    });
    const open = this.#open.get(id);
    if (open) open.settled = answer.catch(() => {});
    this.send({ type: "call", id, progress: onProgress !== null, ...call }, [...new Set(call.operands.map((bytes) => bytes.buffer as ArrayBuffer))]);
    this.#hold();
    return {
      answer,
      cancel: () => {
        if (!this.#open.has(id)) return;
        if (this.#waiting) {
          // Not sent yet: nothing to wait for.
          this.#waiting = this.#waiting.filter(([message]) => message.type !== "call" || message.id !== id);
          const open = this.#open.get(id);
          this.#open.delete(id);
          open?.onEnd(undefined);
          open?.reject(aborted(undefined));
        } else {
          this.send({ type: "abort", id });
        }
      },
    };
  }

  /** When no call is open. */
  async idle(): Promise<void> {
    while (this.#open.size > 0) await Promise.all([...this.#open.values()].map(({ settled }) => settled));
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
    for (const { reject } of open) reject(new DiffAttnError(error.code, error.message, { cause: error.cause }));
  }
}

/** The error of an object whose instance is gone. */
export const gone = (name: string): never => fail("UNAVAILABLE", name, "an object of a live instance", "one of an instance that ended");
