// ModelCache: the handle of a text's keys and values, which live in the backend. Keeps the order of
// what is done with it.

import type { Handle, Output } from "../backend.js";
import { arrayType, has, isAbsent, isOf, Kind, show } from "../check.js";
import { encode } from "../encode.js";
import { fail } from "../errors.js";
import { live } from "../init.js";
import { Owned, resourceOf } from "../owned.js";
import type { Tensor } from "../types.js";
import { create, drop, query, run } from "./backend.js";
import { bufferOf, int32Of, jsonOf, tensorOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

interface State {
  readonly handle: Handle;
  length: number;
  /** The last of what was begun with it and has not ended. */
  last: Promise<unknown> | undefined;
  /** Whether a generator has it. */
  lent: boolean;
  dropped: boolean;
}

/** The state of a cache that is alive. */
function stateOf(cache: ModelCache, argument?: string): State {
  const state = resourceOf<State>(cache, argument);
  live(state.handle);
  return state;
}

/** Gives up a cache, or notes that its generator's end does. */
function release(state: State): void {
  state.dropped = true;
  if (!state.lent) drop(state.handle);
}

export class ModelCache extends Owned<State> implements types.ModelCache {
  constructor(handle: Handle, length: number) {
    const state: State = { handle, length, last: undefined, lent: false, dropped: false };
    super("cache", state, () => release(state), true);
  }

  get length(): number {
    return stateOf(this).length;
  }

  async rewind(length: number): Promise<void> {
    const state = freeState(this);
    await use([state], async () => {
      await query(encode(requests.rewindModelCache, { cache: state.handle, length }));
    });
  }

  async export(): Promise<types.ModelCacheState> {
    const state = freeState(this);
    const outputs = await use([state], () => run(encode(requests.exportModelCache, { cache: state.handle })));
    const [ids, about, ...parts] = outputs;
    const { discarded, window, layers } = jsonOf(about) as About;
    const states = layers.map(({ kind, parts: names }) => {
      const named = names.map((name) => [camel(name), heldOf(parts.shift())]);
      return { kind, ...Object.fromEntries(named) } as types.LayerCacheState;
    });
    const isPlain = states.every((state) => state.kind === "kv" && state.keys.dtype !== "int8" && state.values.dtype !== "int8");
    const tensors = isPlain ? (states as { keys: Tensor; values: Tensor }[]) : [];
    return {
      ids: int32Of(ids),
      discarded,
      window,
      layers: states,
      keys: tensors.map(({ keys }) => keys),
      values: tensors.map(({ values }) => values),
    };
  }
}

/** What an export says of itself. */
interface About {
  discarded: number;
  window: number | null;
  layers: { kind: string; parts: string[] }[];
}

const camel = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

/** An output as the cache holds it: floats, or bytes that are codes. */
function heldOf(output: Output | undefined): Tensor | types.Int8Tensor {
  if (output?.kind !== Kind.uint8) return tensorOf(output);
  const { shape } = output;
  return { data: new Int8Array(bufferOf(output)), shape, dims: shape, dtype: "int8", type: "int8" };
}

/** A cache that no generator has. */
function freeState(cache: ModelCache, argument?: string): State {
  const state = stateOf(cache, argument);
  if (state.lent) fail("OPTION", "cache", "one that no generate() is using", "one in use");
  return state;
}

/** What a caller gave as a cache. */
export function cacheState(given: unknown): State {
  return isOf(given, ModelCache) ? freeState(given, "cache") : fail("OPTION", "cache", "a ModelCache of this model", show(given));
}

const underWay = (states: readonly State[]): Promise<unknown>[] => states.flatMap(({ last }) => last ?? []);

/**
 * Does something with caches, after all that was begun with them before; their lengths are then
 * known anew.
 */
export async function use<T>(states: readonly State[], body: () => Promise<T>): Promise<T> {
  const before = underWay(states);
  const mine = (async () => {
    // Where nothing is under way it begins now.
    if (before.length > 0) await Promise.all(before);
    try {
      return await body();
    } finally {
      await measure(states);
    }
  })();
  const settled = mine
    .catch(() => {})
    .then(() => {
      for (const state of states) if (state.last === settled) state.last = undefined;
    });
  for (const state of states) state.last = settled;
  return mine;
}

/** Asks for lengths. A cache that is gone keeps the one it had. */
async function measure(states: readonly State[]): Promise<void> {
  for (const state of states) {
    if (state.dropped || state.lent) continue;
    try {
      state.length = await query(encode(requests.modelCacheLength, { cache: state.handle }));
    } catch {
      // Its backend ended; whoever uses it is told so.
    }
  }
}

/**
 * Lends caches to a generator, once all that was begun with them is done. What is given back takes
 * them home again.
 */
export async function lend(states: readonly State[]): Promise<() => Promise<void>> {
  // At once, so that nothing else begins meanwhile.
  for (const state of states) state.lent = true;
  await Promise.all(underWay(states));
  return async () => {
    for (const state of states) {
      state.lent = false;
      if (state.dropped) drop(state.handle);
    }
    await measure(states);
  };
}

export async function createCache(model: Handle, { capacity, window, dtype }: types.ModelCacheOptions): Promise<ModelCache> {
  return new ModelCache(await create("cache", encode(requests.createModelCache, { model, capacity, window, dtype })), 0);
}

export async function importCache(model: Handle, state: types.ModelCacheState): Promise<ModelCache> {
  if (typeof state !== "object" || (state as unknown) === null) fail("OPTION", "state", "what export() gave", show(state));
  if (!has(state, "ids")) return fail("DTYPE", "state.ids", "an Int32Array", show(state));
  const { ids, discarded, window, layers } = state;
  // (What has both says the same twice.)
  const { keys, values } = isAbsent(layers) ? state : { keys: [], values: [] };
  if (arrayType(ids) !== "Int32Array") fail("DTYPE", "state.ids", "an Int32Array", show(ids));
  const request = encode(requests.importModelCache, { model, state: { ids, discarded, window, keys, values, layers } });
  return new ModelCache(await create("cache", request), ids.length);
}
