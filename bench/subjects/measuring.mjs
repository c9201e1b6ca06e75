// What the JavaScript subjects share, in Node and in a page: the inputs that every language makes
// alike, the timing of one call, how values of an answer travel. It knows no library and no case;
// bench/README.md describes all of it.

/** 32 bits that look random, of any number. */
export function hash(i) {
  let x = i | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Fills a Float32Array with tensor number `t` of the inputs, and returns it. */
export function fill(data, t) {
  const offset = Math.imul(t, 0x9e3779b9);
  for (let i = 0; i < data.length; i++) data[i] = (hash(i + offset) >>> 8) / 0x800000 - 1;
  return data;
}

/**
 * Seconds of one call of `fn`, which may return a promise. A call shorter than a millisecond is
 * only the warm-up: then as many as fill 5 ms are timed together.
 */
export async function timed(fn) {
  const once = await spent(fn, 1);
  return once >= 1e-3 ? once : spent(fn, Math.min(10_000, Math.ceil(5e-3 / Math.max(once, 5e-7))));
}

async function spent(fn, times) {
  const start = performance.now();
  for (let i = 0; i < times; i++) {
    const result = fn();
    // Awaiting what is no promise would cost a turn of the queue.
    if (typeof result?.then === "function") await result;
  }
  return (performance.now() - start) / 1000 / times;
}

/**
 * The values of a Float32Array at flat indices, as `answer` returns them: float32, little-endian,
 * base64.
 */
export function pick(data, at) {
  const bytes = new Uint8Array(Float32Array.from(at, (i) => data[i]).buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** What went wrong, on one line of at most 300 characters. */
export const sentence = (error) =>
  String(error?.message ?? error)
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 300);
