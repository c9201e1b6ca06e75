// Which backend runs: chosen by options, environment variables and what loads. Holds the one state
// of the process.

import type { Backend, Handle } from "./backend.js";
import { WasmBackend } from "./backend/wasm.js";
import { steeringOf } from "./backend/wasm-steering.js";
import { gone } from "./backend/worker-client.js";
import { checkOptions, oneOf, show } from "./check.js";
import { DiffAttnError, fail, reasonOf } from "./errors.js";
import { sourceOf } from "./given.js";
import type { Platform, Source } from "./platform.js";
import { BUILDS, type Build } from "./port.js";
import type * as types from "./types.js";

const BACKENDS = ["native", "wasm"] as const;
const ISAS = ["scalar", "avx2", "avx512", "neon", ...BUILDS] as const;

/** Options of init, and where modules come from by them. */
type Chosen = types.InitOptions & { source?: Source | undefined };

let platform: Platform;
/** Options of the last init that worked, and of setThreads. */
let options: Chosen = {};
let current: Backend | undefined;
/** The init under way, if there is one. */
let turn: Promise<types.Info> | undefined;

/** Each entry's first act. */
export function usePlatform(given: Platform): void {
  platform = given;
}

function choice<T extends string>(name: string, given: unknown, names: readonly T[]): T | undefined {
  if (given !== undefined && given !== null && !names.includes(given as T)) fail("OPTION", name, oneOf(names), show(given));
  return (given ?? undefined) as T | undefined;
}

function threadCount(name: string, given: unknown): number | undefined {
  if (given === undefined || given === null) return undefined;
  if (!Number.isInteger(given) || (given as number) < 1) return fail("OPTION", name, "an integer of 1 or more", show(given));
  return given as number;
}

/** Options and environment as one; `backend` is undefined where both leave it open. */
function resolve(given: types.InitOptions): {
  backend: types.Info["backend"] | undefined;
  isa: types.Isa | undefined;
  threads: number | undefined;
} {
  const env = (name: string): string | undefined => platform.env(name) || undefined;
  const isa = choice("isa", given.isa, ISAS) ?? choice("DIFFATTN_ISA", env("DIFFATTN_ISA"), ISAS);
  const text = env("DIFFATTN_NUM_THREADS");
  // A text that is no number stays a text, for the error to show.
  const threads =
    threadCount("threads", given.threads) ?? threadCount("DIFFATTN_NUM_THREADS", text && /^\d+$/.test(text) ? Number(text) : text);
  const ofIsa = BUILDS.includes(isa as Build) ? "wasm" : undefined;
  const backend =
    choice("backend", given.backend, BACKENDS) ??
    (given.isa ? ofIsa : undefined) ??
    choice("DIFFATTN_BACKEND", env("DIFFATTN_BACKEND"), BACKENDS) ??
    ofIsa;
  return { backend, isa, threads };
}

function create(given: Chosen): Backend {
  const { backend, isa, threads } = resolve(given);
  const notes: string[] = [];
  if (backend !== "wasm") {
    try {
      if (platform.native) return platform.native(isa, threads);
      if (backend === "native") fail("UNAVAILABLE", "backend", '"wasm" outside Node', '"native"');
    } catch (error) {
      if (error instanceof DiffAttnError) throw error;
      const why = reasonOf(error);
      if (backend === "native") fail("UNAVAILABLE", "backend", "a native binary that loads", `none: ${why}`, error);
      notes.push(`the native binary did not load, so WASM runs: ${why}`);
    }
  }
  return new WasmBackend(platform, given.source, isa, threads, notes);
}

/** The backend, started where it was not. */
export function backend(): Backend {
  return (current ??= create(options));
}

/** An object's handle, of the backend that runs. */
export function live(handle: Handle): Handle {
  return handle.backend === current ? handle : gone(handle.name);
}

async function begin(given: types.InitOptions | undefined): Promise<types.Info> {
  const asked: types.InitOptions = checkOptions("options", given, ["backend", "isa", "threads", "wasm"]);
  const source = sourceOf(asked.wasm);
  const nothing = Object.values(asked).every((value) => value === undefined || value === null);
  const next = nothing ? options : { ...asked, threads: asked.threads ?? options.threads, source };
  const before = options;
  const old = current;
  if (!old) {
    // At once, so that calls that do not wait for init find it.
    const started = (current = create(next));
    options = next;
    try {
      await steeringOf(started).start();
    } catch (error) {
      steeringOf(started).dispose();
      if (current === started) current = undefined;
      options = before;
      throw error;
    }
  } else if (nothing || takes(old, next)) {
    options = next;
    await steeringOf(old).start();
  } else {
    const replacement = create(next);
    try {
      await steeringOf(replacement).start();
    } catch (error) {
      steeringOf(replacement).dispose();
      throw error;
    }
    current = replacement;
    options = next;
    await steeringOf(old).idle();
    steeringOf(old).dispose();
  }
  return info();
}

/** Whether a backend that runs takes these options without a restart. */
function takes(running: Backend, given: types.InitOptions): boolean {
  const { backend, isa, threads } = resolve(given);
  return !given.wasm && (backend ?? running.name) === running.name && steeringOf(running).configure(isa, threads);
}

export function init(given?: types.InitOptions): Promise<types.Info> {
  // One at a time; the first begins at once.
  const next = (): Promise<types.Info> => begin(given);
  const mine = turn ? turn.then(next, next) : begin(given);
  turn = mine;
  const done = (): void => {
    if (turn === mine) turn = undefined;
  };
  mine.then(done, done);
  return mine;
}

export function info(): types.Info {
  const running = backend();
  return { backend: running.name, ...steeringOf(running).info(), version: __VERSION__ };
}

export function setThreads(threads: number): void {
  const count = threadCount("threads", threads) ?? fail("OPTION", "threads", "an integer of 1 or more", show(threads));
  options = { ...options, threads: count };
  if (current) steeringOf(current).setThreads(count);
}

export function getThreads(): number {
  return steeringOf(backend()).info().threads;
}

export function dispose(): void {
  if (current) steeringOf(current).dispose();
  current = undefined;
}
