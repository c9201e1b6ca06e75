// Waits that a signal ends, and why something ended. Knows no file.

import { aborted, DiffAttnError, reasonOf } from "../errors.js";

type Signal = AbortSignal | null | undefined;

/** Why something ended: the signal's reason, our own error, or what `otherwise` makes of it. */
export function endOf(error: unknown, signal: Signal, otherwise: (why: string) => never): never {
  if (signal?.aborted) throw aborted(signal.reason);
  if (error instanceof DiffAttnError) throw error;
  return otherwise(reasonOf(error));
}

export const throwIfAborted = (signal: Signal): void => {
  if (signal?.aborted) throw aborted(signal.reason);
};

/**
 * What a promise gives, or ABORTED as soon as the signal says so, whether or not the promise heeds
 * it.
 */
export function until<T>(signal: Signal, promise: Promise<T>): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const end = (): void => reject(aborted(signal.reason));
    if (signal.aborted) end();
    signal.addEventListener("abort", end);
    const free = (): void => signal.removeEventListener("abort", end);
    promise.then(resolve, reject).finally(free).catch(free);
  });
}

/**
 * Work of several parts under one signal: the first failure, or the caller's abort, ends all that
 * is still under way.
 */
export async function together<T>(signal: Signal, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const all = new AbortController();
  const end = (): void => all.abort(signal?.reason);
  if (signal?.aborted) end();
  signal?.addEventListener("abort", end);
  try {
    return await body(all.signal);
  } catch (error) {
    all.abort(error);
    throw error;
  } finally {
    signal?.removeEventListener("abort", end);
  }
}
