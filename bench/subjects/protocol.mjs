// What the JavaScript subjects share: the protocol on standard input and output, the inputs that every language makes alike, and
// the timing of one call. It knows no library and no case; bench/README.md describes all of it.
import { createInterface } from "node:readline";

// A line on standard output is a reply, so whatever a library logs goes to standard error.
console.log = console.info = console.debug = console.error;

/** Answers each request of standard input by `handlers[request.do](request)`; whatever that throws becomes its error. */
export async function serve(handlers) {
  for await (const line of createInterface({ input: process.stdin })) {
    if (!line.trim()) continue;
    let reply;
    try {
      const request = JSON.parse(line);
      if (!Object.hasOwn(handlers, request.do)) throw new Error(`no answer to ${JSON.stringify(request.do)}`);
      reply = (await handlers[request.do](request)) ?? {};
    } catch (error) {
      reply = { error: sentence(error) };
    }
    // An answer can be larger than a pipe: it is gone when the callback comes.
    await new Promise((done) => process.stdout.write(`${JSON.stringify(reply)}\n`, done));
  }
  // Worker threads of a library must not keep a finished subject alive.
  process.exit(0);
}

/** What went wrong, on one line of at most 300 characters. */
const sentence = (error) =>
  String(error?.message ?? error)
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 300);

/** Fills a Float32Array with tensor number `t` of the inputs, and returns it. */
export function fill(data, t) {
  const offset = Math.imul(t, 0x9e3779b9);
  for (let i = 0; i < data.length; i++) {
    let x = (i + offset) | 0;
    x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
    x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
    x ^= x >>> 16;
    data[i] = (x >>> 8) / 0x800000 - 1;
  }
  return data;
}

/**
 * Seconds of one call of `fn`, which may return a promise. A call shorter than a millisecond is only the warm-up:
 * then as many as fill 5 ms are timed together.
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

/** The values of a Float32Array at flat indices, as `answer` returns them. */
export const pick = (data, at) => encode(Float32Array.from(at, (i) => data[i]));

/** float32 values, little-endian, base64. */
export const encode = (values) => Buffer.from(Float32Array.from(values).buffer).toString("base64");
