// Which backend runs: chosen by options, environment variables and what loads. Holds the one state
// of the process.

import type { Backend, Handle } from "./backend.js";
import { WasmBackend } from "./backend/wasm.js";
import { steeringOf } from "./backend/wasm-steering.js";
import { gone } from "./backend/worker-client.js";
import { checkOptions, isAbsent, show } from "./check.js";
import { fail } from "./errors.js";
import { sourceOf } from "./given.js";
import type { Platform, Settings, Source } from "./platform.js";
import { BACKENDS, choice, ISAS, threadCount } from "./settings.js";
import type * as types from "./types.js";

/** What init was given, checked, and where modules come from by it. */
type Chosen = Settings & { source?: Source | undefined };

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

/** Options and environment as one; `backend` is undefined where both leave it open. */
const resolve = (given: Settings): Settings => platform.settings?.(given) ?? given;

function create(given: Chosen): Backend {
  const { backend, isa, threads } = resolve(given);
  const native = backend === "wasm" ? undefined : platform.native?.(isa, threads, backend === "native");
  if (typeof native === "object") return native;
  return new WasmBackend(platform, given.source, isa, threads, native === undefined ? [] : [native]);
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
  const backend = choice("backend", asked.backend, BACKENDS);
  if (backend === "native" && !platform.native) fail("UNAVAILABLE", "backend", '"wasm" outside Node', '"native"');
  const isa = choice("isa", asked.isa, ISAS);
  const threads = threadCount("threads", asked.threads);
  const source = sourceOf(asked.wasm);
  const nothing = [backend, isa, threads, source].every(isAbsent);
  const next = nothing ? options : { backend, isa, threads: threads ?? options.threads, source };
  const old = current;
  if (old && (nothing || takes(old, next))) {
    options = next;
    await steeringOf(old).start();
    return info();
  }
  const before = options;
  const made = create(next);
  // The first at once, so that calls that do not wait for init find it.
  if (!old) [current, options] = [made, next];
  try {
    await steeringOf(made).start();
  } catch (error) {
    steeringOf(made).dispose();
    if (current === made) current = undefined;
    if (!old) options = before;
    throw error;
  }
  if (old) {
    [current, options] = [made, next];
    await steeringOf(old).idle();
    steeringOf(old).dispose();
  }
  return info();
}

/** Whether a backend that runs takes these options without a restart. */
function takes(running: Backend, given: Chosen): boolean {
  const { backend, isa, threads } = resolve(given);
  return !given.source && (backend ?? running.name) === running.name && steeringOf(running).configure(isa, threads);
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
