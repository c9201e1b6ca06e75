// A subject: our models in Node, through the package's public door: decoding, prompts at once, the
// first token after loading, the memory of a loaded model and of training, steps of training; and our
// audio codec.
//
//   node bench/subjects/model.mjs native|wasm
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as api from "../../packages/diffattn/dist/node.js";
import * as models from "../../packages/diffattn/dist/models-node.js";
import * as training from "../../packages/diffattn/dist/training-node.js";
import { root } from "../../scripts/tools.mjs";
import { latentsOf } from "../codec.mjs";
import { ensureModel, makeModel, placeOf } from "../model-files.mjs";
import { relativeError, TOLERANCE } from "../statistics.mjs";
import { hash } from "./measuring.mjs";
import { loadOptions, modelHandlers } from "./model-door.mjs";
import { serve } from "./protocol.mjs";
import { openTrainer, step } from "./training.mjs";

const [, , backend] = process.argv;
const { version } = JSON.parse(readFileSync(new URL("../../packages/diffattn/package.json", import.meta.url), "utf8"));

async function prepare({ case: test, threads, isa }) {
  await ensureModel(test, { ...models, ...training });
  api.dispose();
  const running = await api.init({ backend, isa, threads });
  if (isa && running.isa !== isa) throw new Error(`${isa} was asked for, ${running.isa} runs`);
}

function open(request) {
  const { case: test, variant } = request;
  if (test.op === "codec_decode") return models.AudioCodec.load(placeOf(test));
  if (test.op === "model_train") {
    const place = placeOf(test);
    const { vocab_size: vocabulary } = JSON.parse(readFileSync(join(place, "config.json"), "utf8"));
    return openTrainer(request, { training, place, vocabulary, hash });
  }
  const options = loadOptions(test, variant);
  if (options.adapter) options.adapter = join(root, options.adapter);
  return models.LanguageModel.load(placeOf(test), options);
}

/** Latents of one piece of audio. */
async function audio(codec, test) {
  const latents = latentsOf(test);
  const start = performance.now();
  const { data } = await codec.decode(latents);
  return { result: data, seconds: (performance.now() - start) / 1000 };
}

/** Bytes of this process that lie in memory, after what can be freed was. */
function resident() {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

/** Steps after which a trainer holds what it ever will. */
const STEPS = 3;

/** The largest memory that this process ever had, from its start to the end of some steps. */
async function peakOfTraining(request) {
  // (In a process of its own, for what that takes is no part of training.)
  makeModel(request.case);
  await prepare({ threads: 1, ...request });
  const trainer = await open(request);
  let told;
  for (let i = 0; i < STEPS; i++) told = (await step(trainer)).result;
  trainer.dispose();
  const error = relativeError([...told], request.case.expected.values);
  if (!(error <= TOLERANCE)) throw new Error(`a wrong answer: its error is ${error.toExponential(1)} of the largest value`);
  return { bytes: 1024 * process.resourceUsage().maxRSS };
}

/**
 * What a loaded model takes beyond the library itself: this process's memory with it and without.
 */
async function scratch(request) {
  const { case: test } = request;
  if (test.op === "model_train") return peakOfTraining(request);
  await prepare({ threads: 1, ...request });
  // Threads, buffers and code that any call needs are there before.
  const q = { data: new Float32Array(1024), shape: [1, 2, 8, 64] };
  await api.diffAttention(q, q, { data: new Float32Array(1024), shape: [1, 1, 8, 128] }, { lambda: 0 });
  const before = resident();
  const model = await open(request);
  let token = 0;
  for await (const { id } of model.generate(test.prompt, { maxNewTokens: test.tokens, stopIds: [] }))
    if (token < test.greedy.length && id !== test.greedy[token++])
      throw new Error(`a wrong answer: token ${id}, ${test.greedy[token - 1]} is expected`);
  const bytes = resident() - before;
  model.dispose();
  return { bytes };
}

serve({
  ...modelHandlers({
    about: () => ({ name: `diffattn (models, ${backend})`, version, runtime: `Node ${process.versions.node}` }),
    prepare,
    open,
    more: { codec_decode: { variant: "decode", run: audio }, model_train: { variant: "step", run: step } },
  }),
  scratch,
});
