// A peer in a page: wllama, which is llama.cpp as WebAssembly, on the CPU and without a cache of
// prompts. Seconds are those that its engine counts of itself, without the way to it and back.
import { Wllama } from "/bench/peers/node_modules/@wllama/wllama/esm/index.js";
import { pick } from "./measuring.mjs";
import { answering, runtime } from "./page-answers.js";

const WASM = "/bench/peers/node_modules/@wllama/wllama/esm/wasm/wllama.wasm";
const CONTEXT = 1024;

/** Tokens of a prompt that it computes at once; smaller batches were no faster. */
const BATCH = 512;

const silent = { debug() {}, log() {}, warn() {}, error() {} };

let engine;
let loaded;
let test;

/** It takes prompts as text alone: that they are the case's ids is checked by their number. */
async function complete(tokens, more = {}) {
  const reply = await engine.createCompletion({
    prompt: test.text,
    max_tokens: tokens,
    temperature: 0,
    top_k: 1,
    samplers: ["top_k"],
    ignore_eos: true,
    cache_prompt: false,
    ...more,
  });
  const { prompt_n: count } = reply.timings;
  if (count !== test.prompt.length) throw new Error(`the prompt has ${count} tokens, expected ${test.prompt.length}`);
  return reply;
}

const runs = {
  async model_decode() {
    const { timings } = await complete(test.tokens);
    if (timings.predicted_n !== test.tokens) throw new Error(`${timings.predicted_n} tokens were made, expected ${test.tokens}`);
    // Those after the first, which is the prompt's.
    return timings.predicted_ms / 1000 / (test.tokens - 1);
  },
  async model_prefill() {
    return (await complete(1)).timings.prompt_ms / 1000;
  },
};

const run = async () => ({ seconds: await runs[test.op]() });

answering({
  info: () => ({
    name: "wllama",
    version: Wllama.getLibllamaVersion(),
    runtime: runtime(),
    notes: ["times of its own engine, without what JavaScript adds", "keys and values in float16"],
  }),
  variants: ({ case: { op, text } }) => ({ variants: text && Object.hasOwn(runs, op) ? ["completion"] : [] }),
  async load({ case: next, place, threads = 1 }) {
    const key = `${place} ${threads}`;
    if (loaded !== key) {
      await engine?.exit();
      loaded = undefined;
      engine = new Wllama({ default: WASM }, { suppressNativeLog: true, logger: silent });
      const file = await (await fetch(place)).blob();
      await engine.loadModel([file], {
        n_threads: threads,
        n_gpu_layers: 0,
        n_ctx: CONTEXT,
        n_batch: BATCH,
        n_ubatch: BATCH,
        warmup: false,
      });
      if (threads > 1 && engine.getNumThreads() !== threads)
        throw new Error(`${engine.getNumThreads()} threads run, ${threads} were asked for`);
      loaded = key;
    }
    test = next;
    // A short text: a prompt of 512 tokens takes it half a minute.
    await engine.createCompletion({ prompt: "The", max_tokens: 4, temperature: 0, cache_prompt: false });
  },
  run,
  async answer({ at }) {
    const { choices } = await complete(at.length, { logprobs: 1 });
    const ids = choices[0].logprobs.content.map(({ id }) => id);
    return { values: pick(ids, at) };
  },
});
