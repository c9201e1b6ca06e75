// Handlers of the protocol over our models' public door. Starts nothing: how a model comes to be is
// given.
import { latentsOf } from "../codec.mjs";
import { hash, pick } from "./measuring.mjs";

/** Ids of a prompt that is only long. */
const hashed = (count, vocabulary) => Int32Array.from({ length: count }, (_, i) => hash(i) % vocabulary);

const VARIANTS = { model_decode: ["generate"], model_prefill: ["forward"], codec_decode: ["decode"] };

/** One text, token after token: seconds of each token after the first, which is the prompt's. */
async function decode(model, { prompt, tokens }) {
  const ids = [];
  let start;
  for await (const { id } of model.generate(prompt, { maxNewTokens: tokens, stopIds: [] })) {
    ids.push(id);
    start ??= performance.now();
  }
  return { result: Float32Array.from(ids), seconds: (performance.now() - start) / 1000 / (ids.length - 1) };
}

async function prefill(model, { prompt }) {
  const ids = hashed(prompt, model.config.vocab_size);
  const start = performance.now();
  const { data } = await model.forward(ids, { logits: "last" });
  return { result: data, seconds: (performance.now() - start) / 1000 };
}

/** Latents of one piece of audio. */
async function audio(codec, test) {
  const latents = latentsOf(test);
  const start = performance.now();
  const { data } = await codec.decode(latents);
  return { result: data, seconds: (performance.now() - start) / 1000 };
}

const RUNS = { model_decode: decode, model_prefill: prefill, codec_decode: audio };

/** `about()` is the reply to `info`; `start(request)` gives the model of a request. */
export function modelHandlers({ about, start }) {
  let model;
  let loaded;
  let result;

  async function run() {
    const made = await RUNS[loaded.op](model, loaded);
    result = made.result;
    return { seconds: made.seconds };
  }

  return {
    info: about,
    variants: ({ case: { op } }) => ({ variants: VARIANTS[op] ?? [] }),
    async load(request) {
      model?.dispose();
      model = await start(request);
      loaded = request.case;
      await run();
    },
    run,
    answer: ({ at }) => ({ values: pick(result, at) }),
  };
}
