// Hostile arguments for every operator and object, in both forms. Each must end at once, in a
// result or in an error of ours; and the next call that is right must give its values.

import { checkedCall, layerOptions, operators } from "../lib/calls.mjs";
import { hostile, mutated } from "../lib/hostile.mjs";
import { api } from "../lib/package.mjs";
import { Random } from "../lib/random.mjs";
import { properties, Tally } from "../lib/tally.mjs";

/** Seconds: no hostile call of a few kilobytes takes longer. */
const SLOW = 2;
/** Bytes of a tensor of `createTensor` that are made in less. */
const LARGE = 2 ** 28;

const CACHE = { groups: 2, headDim: 8, valueDim: 8, capacity: 4, terms: 2, batch: 1, dtype: "float32" };
const CACHE_NAMES = Object.keys(CACHE);
const LAYER_NAMES =
  "embedDim depth numHeads numKvHeads headDim rope pairing kvRepeat isCausal norm lambdaForm sequence ratio weights".split(" ");

/** Frees what a call made. */
const release = (made) => {
  if (typeof made?.dispose === "function" && made !== api) made.dispose();
};

/** An operator, with hostile arguments. */
function operator(random) {
  const name = random.pick(Object.keys(operators));
  const { make, names } = operators[name];
  const { args, told } = mutated(random, make(random).args, names);
  return random.oneIn(2)
    ? { what: `${name}Sync, ${told}`, run: () => api[`${name}Sync`](...args) }
    : { what: `${name}, ${told}`, run: () => api[name](...args) };
}

/** A cache: made of hostile options, or given hostile tokens and used. */
function cache(random) {
  const kv = [random.tensor(1, 4, 3, 8), random.tensor(1, 2, 3, 8), {}];
  if (random.oneIn(2)) {
    const { args, told } = mutated(random, [CACHE], CACHE_NAMES);
    return { what: `new KvCache, ${told}`, run: () => release(new api.KvCache(...args)) };
  }
  const change = random.pick(["append", "rewind", "use", "disposed"]);
  const { args, told } = mutated(random, kv, ["layout"]);
  const length = hostile(random);
  const calls = mutated(random, [random.tensor(1, 4, 2, 8), null, null, { lambda: 0.4, isCausal: true }], operators.diffAttention.names);
  return {
    what: `KvCache ${change}, ${change === "use" ? calls.told : told}`,
    run: async () => {
      const made = new api.KvCache(CACHE);
      try {
        made.append(...kv);
        if (change === "append") made.append(...args);
        if (change === "rewind") made.rewind(length);
        if (change === "disposed") {
          made.dispose();
          made.append(...kv);
        }
        if (change === "use") {
          calls.args[1] ??= made;
          await api.diffAttention(...calls.args);
        }
      } finally {
        made.dispose();
      }
    },
  };
}

/** A layer: made of hostile options, or called with hostile arguments. */
function layer(random) {
  const isSecond = random.oneIn(2);
  const Layer = isSecond ? api.MultiheadDiffAttnV2 : api.MultiheadDiffAttn;
  const options = layerOptions(random, isSecond);
  if (random.oneIn(2)) {
    const { args, told } = mutated(random, [options], LAYER_NAMES);
    return { what: `new ${Layer.name}, ${told}`, run: () => release(new Layer(...args)) };
  }
  const method = random.pick(["forward", "forwardSync", "maps", "mapsSync"]);
  const { args, told } = mutated(random, [random.tensor(1, 3, 16), {}], ["cache", "attnMask", "out", "signal", "onProgress", "transfer"]);
  return {
    what: `${Layer.name}.${method}, ${told}`,
    run: async () => {
      const made = new Layer(options);
      try {
        await made[method](...args);
      } finally {
        made.dispose();
      }
    },
  };
}

/** Options of `init` that ask for no great number of threads; what cannot be read asks for none. */
function withoutMany(options, isMany) {
  try {
    return isMany(options?.threads) ? { ...options, threads: 0 } : options;
  } catch {
    return options;
  }
}

/** Everything else that is called. */
function other(random) {
  const vectors = { q1: random.floats(4), k1: random.floats(4), q2: random.floats(4), k2: random.floats(4), init: 0.2 };
  const [shape, dtype] = [Array.from({ length: random.integer(0, 4) }, () => random.integer(0, 6)), "float32"];
  const calls = {
    lambdaInit: [3],
    lambdaFull: [vectors],
    createTensor: [shape, dtype],
    init: [{}],
    setThreads: [1],
  };
  const name = random.pick(Object.keys(calls));
  let { args, told } = mutated(random, calls[name], [...Object.keys(vectors), "backend", "isa", "threads", "wasm"]);
  const [options] = args;
  // Thousands of threads would be what was asked for; and a backend that is to be had would end the
  // one that is attacked.
  const isMany = (threads) => typeof threads === "number" && threads > 1;
  if (name === "setThreads" && isMany(args[0])) args = [-1];
  if (name === "init") args[0] = withoutMany(options, isMany);
  let isLarge = false;
  const run = async () => {
    const made = await api[name](...args);
    // Gigabytes that were asked for, and given, take their time.
    isLarge = made?.data?.byteLength > LARGE;
    release(made);
  };
  return { what: `${name}, ${told}`, run, gaveMuch: () => isLarge };
}

const KINDS = [operator, operator, operator, operator, operator, cache, layer, other];

export default {
  title: "hostile calls of operators, caches and layers",
  properties: properties(SLOW),
  backends: ["native", "wasm"],
  counts: { short: 1200, full: 50_000 },
  minutes: { short: 2, full: 12 },

  async run({ count, seed, backend, trace, miss }) {
    await api.init({ backend });
    const tally = new Tally(SLOW, miss);
    for (let index = 0; index < count; index++) {
      const random = new Random(seed, index);
      const { what, run, gaveMuch } = random.pick(KINDS)(random);
      trace(index, what);
      await tally.call(index, what, 10_000, run, gaveMuch);
      const said = random.oneIn(4) ? await checkedCall(random) : undefined;
      if (said) tally.wrong(index, said);
    }
    return tally.figures;
  },
};
