// What is asked of the WASM backend as a whole, and told to it: its start, its end, its threads.

import type { Backend, Steering } from "../backend.js";
import { fail, aborted } from "../errors.js";
import { supports } from "../probe.js";
import type { Isa } from "../types.js";
import { WasmBackend } from "./wasm.js";

/** Refuses what a browser's main thread must wait for. */
export const notReady = (): never =>
  fail("UNAVAILABLE", "init", "an init() that has ended, before info(), sync forms and objects on a browser's main thread", "none");

class WasmSteering implements Steering {
  readonly #of: WasmBackend;

  constructor(of: WasmBackend) {
    this.#of = of;
  }

  /** The backend and its companions. */
  get #all(): WasmBackend[] {
    return [this.#of, ...this.#of.companions.values()];
  }

  async start(): Promise<void> {
    const of = this.#of;
    of.clientSide();
    await of.started;
    // (The sync forms of models there are none of.)
    for (const one of [of, of.companions.get("training")]) await one?.module(one.localBuild);
  }

  info(): { isa: Isa; threads: number; notes: string[] } {
    const of = this.#of;
    // Who uses models alone has only their worker.
    const side = this.#all.find(({ running }) => running) ?? of;
    if (!side.running && !of.platform.blocking) notReady();
    const [best] = of.builds;
    const { build, pool } = side.running ?? { build: best, pool: best === "relaxed-simd+threads" ? Infinity : 1 };
    const noWorker = side.client?.noWorker;
    const inSlices =
      noWorker === undefined ? [] : [`no worker starts here (${noWorker}), so async calls run in slices on the caller's thread`];
    return { isa: build, threads: Math.min(of.threads, pool), notes: [...of.notes, ...this.#slower(), ...side.refusals, ...inSlices] };
  }

  /** Why no faster build is tried. */
  #slower(): string[] {
    const { isa, builds, files, platform } = this.#of;
    if (isa !== undefined) return [];
    const notes: string[] = [];
    if (builds[0] === "simd128") {
      const why = supports("relaxed-simd") ? "no file of another build is here" : "this engine has no relaxed WASM SIMD";
      notes.push(`${why}: the plain SIMD build runs`);
    }
    if (platform.noPool !== undefined) notes.push(platform.noPool);
    else if (!files.builds.includes("relaxed-simd+threads"))
      notes.push("no file of the build with threads is here, so calls run on one thread");
    return notes;
  }

  configure(isa: string | undefined, threads: number | undefined): boolean {
    const { platform, running, threads: before, isa: built } = this.#of;
    const count = threads ?? platform.threads;
    if (isa !== built) return false;
    if (running?.build === "relaxed-simd+threads" ? count > running.pool : platform.noPool === undefined && count !== before) return false;
    this.setThreads(count);
    return true;
  }

  setThreads(threads: number): void {
    for (const of of this.#all) {
      of.threads = threads;
      if (of.running && of.running.pool > 1) of.client?.send({ type: "threads", threads: Math.min(threads, of.running.pool) });
    }
  }

  async idle(): Promise<void> {
    const ends = this.#all.map(
      (one) =>
        new Promise<void>((resolve) => {
          if (!one.client) {
            resolve();
            return;
          }
          one.client.onIdle = resolve;
          // Told at once where none is open.
          one.client.hold();
        }),
    );
    await Promise.all(ends);
  }

  dispose(): void {
    const of = this.#of;
    for (const one of this.#all) one.client?.end(aborted(undefined));
    of.client = of.local = undefined;
    of.companions.clear();
  }
}

/** What is asked of a backend as a whole. */
export function steeringOf(backend: Backend): Steering {
  if (backend instanceof WasmBackend) backend.steering ??= new WasmSteering(backend);
  return backend.steering as Steering;
}
