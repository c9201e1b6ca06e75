// What the machine can do at most in a WebAssembly engine: multiply-adds from registers, and loops
// over memory, of the modules limits-*.wat. (The crate's own loop, compiled with the product, was
// no limit: V8 kept its sums in memory, and it took three times as long on Zen 5.) Runs in Node, in
// pages and in their workers; loads nothing itself.

/**
 * An engine compiles for speed what was called often, and not while it runs: so many seconds of
 * short calls come first.
 */
const WARM_UP = 0.3;
/** A measurement of multiply-adds takes so many seconds at least. */
const FMA_SECONDS = 0.05;
/** Bytes that no cache of a core holds. */
const BEYOND_CACHES = 512 * 2 ** 20;
const PAGE = 65536;
/** What the loops over memory do at once. */
const STEP = 128;

const now = () => performance.now() / 1000;
const breath = () => new Promise((resolve) => setTimeout(resolve));

async function warmUp(call) {
  for (const start = now(); now() - start < WARM_UP;) {
    for (const round = now(); now() - round < 0.02;) call();
    // What was compiled meanwhile is taken between two calls.
    await breath();
  }
}

/** What limits-fma-*.wat say of a round. */
const FLOPS_OF_A_ROUND = 96;
/** The factor that sums are multiplied with. */
const FACTOR = 0.999;

/**
 * limits-fma-*.wat, assembled: gives, warmed up, a function that runs once, for FMA_SECONDS or
 * longer, and returns FLOPs, start and end.
 */
export async function fmaPeak(module) {
  const { fma } = new WebAssembly.Instance(module).exports;
  await warmUp(() => fma(1 << 12, FACTOR));
  const once = (rounds) => {
    const start = performance.timeOrigin + performance.now();
    fma(rounds, FACTOR);
    return { flops: rounds * FLOPS_OF_A_ROUND, start, end: performance.timeOrigin + performance.now() };
  };
  let rounds = 1 << 16;
  for (; ; rounds *= 2) {
    const { start, end } = once(rounds);
    if ((end - start) / 1000 >= FMA_SECONDS) return () => once(rounds);
  }
}

/** FLOPs per second of runs that were started together. */
export function rateOf(runs) {
  const flops = runs.reduce((sum, run) => sum + run.flops, 0);
  const seconds = (Math.max(...runs.map(({ end }) => end)) - Math.min(...runs.map(({ start }) => start))) / 1000;
  return flops / seconds;
}

/** Bandwidths by an instance of limits-memory.wat; the memory is that of the last measurement. */
export class MemoryLimits {
  #module;
  #instance;
  #bytes;

  constructor(module) {
    this.#module = module;
  }

  /**
   * Bytes per second that are read from a working set of `bytes`; of a copy, read and written, from
   * one half to the other.
   */
  async perSecond(what, bytes = BEYOND_CACHES) {
    const half = Math.floor(bytes / 2 / STEP) * STEP;
    if (this.#bytes !== bytes) await this.#start(bytes);
    const { read, copy } = this.#instance.exports;
    const start = now();
    if (what === "read") read(PAGE, 2 * half);
    else copy(PAGE, PAGE + half, half);
    return (2 * half) / (now() - start);
  }

  async #start(bytes) {
    this.#instance = undefined;
    this.#instance = new WebAssembly.Instance(this.#module);
    this.#bytes = bytes;
    const { memory, read, copy } = this.#instance.exports;
    memory.grow(Math.ceil(bytes / PAGE));
    // Pages that nobody wrote would all be the system's one page of zeros.
    new Uint8Array(memory.buffer).fill(1);
    await warmUp(() => {
      read(PAGE, 256 * STEP);
      copy(PAGE, PAGE + 256 * STEP, 256 * STEP);
    });
  }
}
