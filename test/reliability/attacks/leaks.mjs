// Objects of every kind, made and used in great numbers, half of them disposed of and half
// forgotten: how much the process grows per object.

import { layerOptions } from "../lib/calls.mjs";
import { filesOf, letters, LLAMA } from "../lib/models.mjs";
import { api, models } from "../lib/package.mjs";
import { Random } from "../lib/random.mjs";

/** What memory is read after so many steps of an attack; the first are warm-up. */
const STEPS = 8;

/**
 * What the resident memory of a process goes up and down by of itself: growth is what is beyond it.
 */
const NOISE = 3 * 2 ** 20;

/** Bytes that an object may leave behind. */
const LIMIT = 1024;

/**
 * How often a kind is measured before it misses: what leaks does so each time, what was grown once
 * is not grown again. Workers' heaps grow by 5 MB at a time and settle late: three tries in a row
 * were seen to miss where 4,000 objects then left nothing.
 */
const TRIES = 8;

/** Objects between two collections, where a kind says nothing. */
const ROUND = 100;

const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

/** Memory once nothing more is collected. */
async function resident() {
  let least = Infinity;
  for (let i = 0; i < 4; i++) {
    globalThis.gc();
    await settled();
    least = Math.min(least, process.memoryUsage().rss);
  }
  return least;
}

/**
 * Kinds of objects: `share` of the count, how many are made between two collections, and how one is
 * made and used. What was forgotten is there until it is collected, and WebAssembly gives no memory
 * back: of large objects few may be forgotten at a time.
 */
const kinds = {
  KvCache: {
    share: 1,
    use: async (random) => {
      const cache = new api.KvCache({ groups: 2, headDim: 8, valueDim: 8 });
      cache.append(random.tensor(1, 4, 3, 8), random.tensor(1, 2, 3, 8));
      if (random.oneIn(3)) await api.diffAttention(random.tensor(1, 4, 1, 8), cache, null, { lambda: 0.4 });
      return cache;
    },
  },
  createTensor: {
    share: 1,
    use: (random) => {
      const tensor = api.createTensor([random.integer(1, 40), 32]);
      tensor.data.fill(1);
      api.rmsNormSync(tensor);
      return tensor;
    },
  },
  layer: {
    share: 1,
    use: async (random) => {
      const isSecond = random.oneIn(2);
      const layer = new (isSecond ? api.MultiheadDiffAttnV2 : api.MultiheadDiffAttn)(layerOptions(random, isSecond));
      if (random.oneIn(3)) await layer.forward(random.tensor(1, 2, 16));
      else layer.forwardSync(random.tensor(1, 2, 16));
      return layer;
    },
  },
  "results and refusals": {
    share: 1,
    use: async (random) => {
      await api.groupNorm(random.tensor(1, 8, 16), { numGroups: 2 });
      await api.groupNorm(random.tensor(1, 8, 16), { numGroups: 3 }).catch(() => {});
      await api.rmsNorm(random.tensor(4, 8), { signal: AbortSignal.abort() }).catch(() => {});
    },
  },
  safetensors: {
    share: 0.5,
    use: async (random, { files }) => {
      const file = await models.openSafetensors(files["model.safetensors"]);
      await file.read(random.pick(file.names));
      return file;
    },
  },
  "cache of a model": {
    share: 0.5,
    use: async (random, { model }) => {
      const cache = await model.createCache();
      await model.forward([random.integer(0, 90), 2], { cache });
      return cache;
    },
  },
  generator: {
    share: 0.5,
    use: async (random, { model }) => {
      let left = random.integer(1, 3);
      for await (const token of model.generate([1, 2], { maxNewTokens: 3, stopIds: [] })) if (--left === 0) void token;
    },
  },
  "generator, left": {
    share: 0.25,
    use: async (random, { model }) => {
      const texts = model.generate([1, 2], { maxNewTokens: 30, stopIds: [] });
      await texts.next();
      if (random.oneIn(2)) await texts.return();
    },
  },
  model: {
    share: 0.3,
    round: 10,
    // The bytes of its files go to a worker and wait for that one's own collection: 80 MiB at most
    // (9,000 loads), which a short run does not reach.
    noise: (count) => (count < 10_000 ? 40 * 2 ** 20 : NOISE),
    use: (_, { files }) => models.DiffLlama.load(files, { tokenizer: letters }),
  },
};

export default {
  title: "objects made, used, and disposed of or forgotten",
  properties: Object.fromEntries(Object.keys(kinds).map((name) => [`${name}: growth, bytes an object`, { limit: LIMIT }])),
  backends: ["native", "wasm"],
  counts: { short: 800, full: 10_000 },
  minutes: { short: 3, full: 12 },
  flags: ["--expose-gc"],

  async run({ count, seed, backend, trace, miss }) {
    await api.init({ backend });
    const files = filesOf(LLAMA);
    const model = await models.DiffLlama.load(files, { tokenizer: letters });
    const figures = {};
    /** Bytes that the process grew by for each object of a kind, and its sizes on the way. */
    const grown = async (name, { share, round = ROUND, noise = () => NOISE, use }) => {
      const wanted = Math.ceil((count * share) / STEPS);
      const sizes = [];
      for (let step = 0; step < STEPS; step++) {
        for (let index = step * wanted; index < (step + 1) * wanted; index++) {
          trace(index, name);
          const random = new Random(seed, index);
          const made = await use(random, { files, model });
          if (index % 2 === 0) made?.dispose();
          if (index % round === 0) {
            globalThis.gc();
            await settled();
          }
        }
        sizes.push(await resident());
      }
      // Least against least, four steps later: what is grown once, as pools and heaps are, is grown
      // by then, and garbage comes and goes.
      const [before, after] = [sizes.slice(1, 4), sizes.slice(5, 8)].map((some) => Math.min(...some));
      return { bytes: Math.max(0, after - before - noise(count)) / (wanted * 4), sizes };
    };

    for (const [name, kind] of Object.entries(kinds)) {
      const seen = [];
      let least = Infinity;
      for (let turn = 0; turn < TRIES && least > LIMIT; turn++) {
        const { bytes, sizes } = await grown(name, kind);
        least = Math.min(least, bytes);
        seen.push(...sizes);
      }
      figures[`${name}: growth, bytes an object`] = Math.round(least);
      if (least > LIMIT)
        miss(name, `resident after each step: ${seen.map((size) => `${(size / 2 ** 20).toFixed(1)} MiB`).join(", ")}`, name);
    }
    model.dispose();
    return figures;
  },
};
