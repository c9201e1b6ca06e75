// Hostile arguments for everything of "diffattn/models": files, texts, models and their caches.
// Each must end at once, in a result or in an error of ours; and the next forward pass must have
// the bits of the first.

import { mutated, hostile } from "../lib/hostile.mjs";
import { filesOf, gguf, GGUF_HEADER, image, letters, LLAMA, tokenizerFiles, VIT } from "../lib/models.mjs";
import { api, models } from "../lib/package.mjs";
import { Random } from "../lib/random.mjs";
import { bits } from "../lib/suite.mjs";
import { properties, Tally } from "../lib/tally.mjs";

/** Seconds: no call takes longer. */
const SLOW = 5;
/** New tokens that are taken of a generation, however many were asked for. */
const TOKENS = 3;

const GENERATE = "temperature topK topP repetitionPenalty seed maxNewTokens stop stopIds window cache deterministic signal".split(" ");
const FORWARD = "cache hiddenStates logits window deterministic signal onProgress".split(" ");
const EVALUATE = "context limit signal onProgress".split(" ");
const NEEDLE = "lengths depths draws seed text attention signal onProgress".split(" ");
const LOAD = "signal onProgress cache tokenizer".split(" ");

/**
 * Ids from which on a text is long: to attend to hundreds of thousands takes minutes by right, and
 * ends by its signal.
 */
const LONG_TEXT = 4096;
/** Where the options of what takes a text stand among its arguments. */
const OPTIONS = { forward: 1, maps: 2, generate: 1 };

/** Whether it is a long text, or a list with one. */
function isLong(prompt) {
  const one = (x) => (typeof x === "string" || Array.isArray(x)) && x.length > LONG_TEXT;
  try {
    return one(prompt) || (Array.isArray(prompt) && prompt.some(one));
  } catch {
    // (A proxy that was revoked.)
    return false;
  }
}

const llamaFiles = filesOf(LLAMA);
const vitFiles = filesOf(VIT);
const dispose = (made) => made?.dispose?.();

/** The GGUF file with some bytes of its header changed, or cut short. */
function changedGguf(random) {
  const bytes = gguf.slice(0, random.oneIn(8) ? random.integer(0, gguf.length) : gguf.length);
  for (let left = random.integer(0, 4); left > 0; left--) bytes[random.integer(0, GGUF_HEADER)] = random.integer(0, 255);
  return bytes;
}

/** A file of four tokens in two documents, with some of its bytes changed, or cut short. */
function changedTokens(random) {
  const bytes = new Uint8Array(32 + 8 + 16);
  const view = new DataView(bytes.buffer);
  bytes.set([0x44, 0x41, 0x54, 0x4b, 1, 0, 0, 0, 2]);
  view.setBigUint64(16, 4n, true);
  view.setBigUint64(24, 2n, true);
  view.setBigUint64(48, 2n, true);
  for (let left = random.integer(0, 4); left > 0; left--) bytes[random.integer(0, bytes.length - 1)] = random.integer(0, 255);
  return random.oneIn(4) ? bytes.slice(0, random.integer(0, bytes.length)) : bytes;
}

/** Options of a needle's task that ends: any number of prompts may be asked for. */
function endingSoon(options) {
  try {
    const asked = [options?.draws, options?.depths?.length].some((count) => count > 2);
    return asked ? { ...options, signal: AbortSignal.timeout(SLOW * 200) } : options;
  } catch {
    return options;
  }
}

/** What is called, with arguments that are right and the names of its options. */
const calls = {
  "DiffLlama.load": () => [[llamaFiles, { tokenizer: letters }], LOAD, (args) => models.DiffLlama.load(...args).then(dispose)],
  "DiffViT.load": () => [[vitFiles, {}], LOAD, (args) => models.DiffViT.load(...args).then(dispose)],
  "LanguageModel.load of GGUF": (random) => [
    [changedGguf(random), {}],
    LOAD,
    async (args) => {
      const model = await models.LanguageModel.load(...args);
      try {
        if (model.tokenizer) model.decode(model.encode("the cat\n 12"));
        await model.forward([1, 2, 3]);
      } finally {
        dispose(model);
      }
    },
  ],
  "inspectCheckpoint of GGUF": (random) => [
    [changedGguf(random), { tensors: true }],
    [...LOAD, "tensors"],
    (args) => models.inspectCheckpoint(...args),
  ],
  openSafetensors: () => [
    [llamaFiles["model.safetensors"], {}],
    LOAD,
    async (args, random) => {
      const file = await models.openSafetensors(...args);
      try {
        const name = random.oneIn(2) ? hostile(random) : random.pick(file.names);
        await file[random.pick(["read", "readFloat32"])](name, random.oneIn(2) ? {} : hostile(random));
      } finally {
        file.dispose();
      }
    },
  ],
  inspectCheckpoint: () => [[llamaFiles, {}], LOAD, (args) => models.inspectCheckpoint(...args)],
  convertCheckpoint: () => [
    [llamaFiles, { dtype: "BF16" }],
    [...LOAD, "dtype", "layout", "target"],
    (args) => models.convertCheckpoint(...args),
  ],
  saveSafetensors: (random) => [
    [{ a: { ...random.tensor(2, 3), dtype: "F32" } }, { metadata: { key: "text" } }],
    ["metadata", "target"],
    (args) => models.saveSafetensors(...args),
  ],
  forward: () => [[[1, 2, 3], {}], FORWARD, (args, _, { llama }) => llama.forward(...args)],
  maps: () => [[[1, 2, 3], 1, {}], ["signal"], (args, _, { llama }) => llama.maps(...args)],
  encode: () => [["text"], [], (args, _, { written }) => written.encode(...args)],
  decode: () => [[[1, 2, 3]], [], (args, _, { written }) => written.decode(...args)],
  generate: (random) => [
    [random.pick(["text", [1, 2, 3], ["a", "bc"], [[1], [2, 3]]]), { maxNewTokens: TOKENS }],
    GENERATE,
    async (args, random, { llama, written }) => {
      let left = TOKENS;
      const model = random.oneIn(2) ? llama : written;
      for await (const { text } of model.generate(...args)) if (typeof text !== "string" || --left <= 0) break;
    },
  ],
  cache: (random) => [
    [{ capacity: 2, window: random.oneIn(2) ? 4 : undefined }],
    ["capacity", "window"],
    async (args, random, { llama }) => {
      const cache = await llama.createCache(...args);
      try {
        await llama.forward([1, 2, 3], { cache });
        if (random.oneIn(2)) await cache.rewind(hostile(random));
        const { args } = mutated(random, [await cache.export()], ["ids", "discarded", "window", "keys", "values"]);
        dispose(await llama.importCache(...args));
      } finally {
        cache.dispose();
      }
    },
  ],
  evaluateText: (random) => [
    [random.pick(["a text", [1, 2, 3], { tokens: changedTokens(random) }]), { context: 4 }],
    EVALUATE,
    (args, random, { llama }) => models.evaluateText(random.oneIn(8) ? hostile(random) : llama, ...args),
  ],
  evaluateNeedle: () => [
    [{ lengths: [96], depths: [0.5], draws: 1 }],
    NEEDLE,
    ([options], random, { llama }) => models.evaluateNeedle(random.oneIn(8) ? hostile(random) : llama, endingSoon(options)),
  ],
  "vit.forward": (random) => [[image(random), {}], ["signal"], (args, _, { vit }) => vit.forward(...args)],
  "vit.classify": (random) => [[image(random), { top: 2 }], ["top", "signal"], (args, _, { vit }) => vit.classify(...args)],
  "vit.maps": (random) => [[image(random), 1, {}], ["signal"], (args, _, { vit }) => vit.maps(...args)],
};

export default {
  title: "hostile calls of models and checkpoints",
  properties: properties(SLOW),
  backends: ["native", "wasm"],
  counts: { short: 250, full: 8000 },
  minutes: { short: 2, full: 12 },

  async run({ count, seed, backend, trace, miss }) {
    await api.init({ backend });
    const tally = new Tally(SLOW, miss);
    const llama = await models.DiffLlama.load(llamaFiles, { tokenizer: letters });
    const written = await models.DiffLlama.load({ ...llamaFiles, ...tokenizerFiles });
    const vit = await models.DiffViT.load(vitFiles);
    const right = async () => Buffer.from(bits(await llama.forward([5, 6, 7, 8])));
    const first = await right();
    for (let index = 0; index < count; index++) {
      const random = new Random(seed, index);
      const name = random.pick(Object.keys(calls));
      const [given, names, run] = calls[name](random);
      const { args, told } = mutated(random, given, [...names, "lamda"]);
      const what = `${name}, ${told}`;
      if (name in OPTIONS && isLong(args[0])) args[OPTIONS[name]] = { signal: AbortSignal.timeout(SLOW * 200) };
      trace(index, what);
      await tally.call(index, what, 20_000, () => run(args, random, { llama, written, vit }));
      if (index % 8 === 0 && !first.equals(await right())) tally.wrong(index, "the logits of the same ids have other bits");
    }
    return tally.figures;
  },
};
