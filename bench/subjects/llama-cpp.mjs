// A peer: llama.cpp in Node by node-llama-cpp, with the binary that its package brings, on the CPU.
// Keys and values are float16 and flash attention is on, its fastest: without it prompts and
// decoding are a tenth slower.
//
//   node bench/subjects/llama-cpp.mjs
import { readFileSync } from "node:fs";
import { getLlama } from "../peers/node_modules/node-llama-cpp/dist/index.js";
import { pick } from "./measuring.mjs";
import { serve } from "./protocol.mjs";

const CONTEXT = 1024;
const GREEDY = { temperature: 0 };

/**
 * `evaluate` is the loop that generates by itself, `controlled` a call for each token; of prompts
 * so many tokens at once.
 */
const VARIANTS = { model_decode: ["evaluate", "controlled"], model_prefill: ["batch 512", "batch 128"] };

let llama;
let model;
let context;
let sequence;
let loaded;
let result;

async function begin() {
  // Without a limit of threads of its own, a context has those that it asks for.
  llama ??= await getLlama({ gpu: false, build: "never", maxThreads: 0, logLevel: "error" });
  return llama;
}

/** The id after each of some tokens' last one. */
async function next(ids) {
  const last = [ids.at(-1), { generateNext: { token: true, options: GREEDY } }];
  return (await sequence.controlledEvaluate([...ids.slice(0, -1), last])).at(-1).next.token;
}

async function evaluate(prompt, tokens) {
  const ids = [];
  let start;
  for await (const id of sequence.evaluate(prompt, { ...GREEDY, yieldEogToken: true })) {
    ids.push(id);
    start ??= performance.now();
    if (ids.length === tokens) break;
  }
  return { ids, seconds: (performance.now() - start) / 1000 / (tokens - 1) };
}

async function controlled(prompt, tokens) {
  const ids = [await next(prompt)];
  const start = performance.now();
  while (ids.length < tokens) ids.push(await next(ids.slice(-1)));
  return { ids, seconds: (performance.now() - start) / 1000 / (tokens - 1) };
}

async function prefill({ prompt }) {
  const start = performance.now();
  const id = await next(prompt);
  return { ids: [id], seconds: (performance.now() - start) / 1000 };
}

async function run() {
  const { case: test, variant } = loaded;
  await sequence.clearHistory();
  const decode = variant === "evaluate" ? evaluate : controlled;
  const made = test.op === "model_decode" ? await decode(test.prompt, test.tokens) : await prefill(test);
  result = made.ids;
  return { seconds: made.seconds };
}

serve({
  async info() {
    const { systemInfo } = await begin();
    const { version } = JSON.parse(readFileSync(new URL("../peers/node_modules/node-llama-cpp/package.json", import.meta.url), "utf8"));
    const uses = [...systemInfo.matchAll(/(\w+) = 1/g)].map(([, name]) => name).join(" ");
    return { name: "llama.cpp (node-llama-cpp)", version, runtime: `Node ${process.versions.node}`, notes: [`uses ${uses}`] };
  },
  variants: ({ case: { op, model: name } }) => ({ variants: name?.startsWith("smollm2") ? (VARIANTS[op] ?? []) : [] }),
  async load(request) {
    const { place, threads = 1, variant } = request;
    await begin();
    await context?.dispose();
    model ??= await llama.loadModel({ modelPath: place });
    const [, batch] = /^batch (\d+)$/.exec(variant) ?? [];
    const options = { contextSize: CONTEXT, batchSize: Number(batch ?? CONTEXT), flashAttention: true };
    context = await model.createContext({ ...options, threads });
    sequence = context.getSequence();
    if (context.currentThreads !== threads) throw new Error(`${context.currentThreads} threads run, ${threads} were asked for`);
    loaded = request;
    await run();
  },
  run,
  /** Of a prompt: what follows it. */
  async answer({ at }) {
    const { case: test } = loaded;
    if (test.op === "model_prefill") {
      await sequence.clearHistory();
      result = (await evaluate(test.prompt, at.length)).ids;
    }
    return { values: pick(result, at) };
  },
});
