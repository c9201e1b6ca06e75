// Handlers of the protocol over our models' public door, in Node (model.mjs) and in a page
// (page-models.js). Starts nothing: how the package is prepared and a model is loaded is given.
import { hash, pick } from "./measuring.mjs";

/** Ids of a prompt that is only long. */
const hashed = (count, vocabulary) => Int32Array.from({ length: count }, (_, i) => hash(i) % vocabulary);

const idsOf = ({ prompt }, model) => (typeof prompt === "number" ? hashed(prompt, model.config.vocab_size) : prompt);

/** `text` has the tokenizer, too, and its prompt as text. */
const VARIANTS = { model_decode: ["generate"], model_prefill: ["forward"], model_first: ["generate", "text"] };

/** One text, token after token: its ids, and seconds of each after the first, the prompt's. */
async function generated(model, prompt, tokens) {
  const ids = [];
  let start;
  for await (const { id } of model.generate(prompt, { maxNewTokens: tokens, stopIds: [] })) {
    ids.push(id);
    start ??= performance.now();
  }
  return { result: Float32Array.from(ids), seconds: (performance.now() - start) / 1000 / (ids.length - 1) };
}

/** A prompt at once: into a cache where the case has one, as a prompt that is gone on from. */
async function prefill(model, test) {
  const ids = idsOf(test, model);
  const cache = test.cacheDtype && model.createCache({ dtype: test.cacheDtype, capacity: ids.length });
  const start = performance.now();
  const { data } = await model.forward(ids, { logits: "last", ...(cache && { cache }) });
  const seconds = (performance.now() - start) / 1000;
  cache?.dispose();
  return { result: data, seconds };
}

/**
 * What the package loads a case's model with; without a tokenizer, which a prompt of ids needs
 * not.
 */
export const loadOptions = ({ cacheDtype, load }, variant) => ({
  ...load,
  ...(variant !== "text" && { tokenizer: null }),
  ...(cacheDtype && { cacheDtype }),
});

/**
 * `about()` is the reply to `info`; `prepare(request)` makes the package ready for a request, and
 * `open(request)` loads its model. `more` has runs of further ops, `{ OP: { variant, run } }`:
 * `run(model, test)` gives its result and the seconds it took.
 */
export function modelHandlers({ about, prepare, open, more = {} }) {
  let model;
  let loaded;
  let result;

  /** From nothing but what is compiled to the first token. */
  async function first() {
    model?.dispose();
    model = undefined;
    const { case: test, variant } = loaded;
    const start = performance.now();
    model = await open(loaded);
    const prompt = variant === "text" ? test.text : test.prompt;
    const made = await generated(model, prompt, 1);
    return { result: made.result, seconds: (performance.now() - start) / 1000 };
  }

  const runs = {
    model_decode: () => generated(model, loaded.case.prompt, loaded.case.tokens),
    model_prefill: () => prefill(model, loaded.case),
    model_first: first,
  };

  async function run() {
    const { op } = loaded.case;
    const made = await (more[op] ? more[op].run(model, loaded.case) : runs[op]());
    result = made.result;
    return { seconds: made.seconds };
  }

  return {
    info: about,
    variants: ({ case: { op } }) => ({ variants: more[op] ? [more[op].variant] : (VARIANTS[op] ?? []) }),
    async load(request) {
      model?.dispose();
      model = undefined;
      await prepare(request);
      loaded = request;
      if (request.case.op !== "model_first") model = await open(request);
      await run();
    },
    run,
    /** Of a prompt whose case expects ids: what follows it. */
    async answer({ at }) {
      const { op, greedy } = loaded.case;
      if (op !== "model_prefill" || !greedy) return { values: pick(result, at) };
      return { values: pick((await generated(model, idsOf(loaded.case, model), greedy.length)).result, at) };
    },
  };
}
