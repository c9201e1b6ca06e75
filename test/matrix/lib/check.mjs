// What is run in every place, the same everywhere: the operators of the README's example, the
// trained model of examples/model, and what the package says of itself. Gives what came out;
// judge.mjs knows what is right. Imports nothing and names nothing of any runtime, so that a place
// brings the package, and the model, by its own means: `import`, `require`, a bundler, an import
// map.

/**
 * `library`: what "diffattn" exports; `models`: what "diffattn/models" does. `source`: the model's
 * folder or address, `load`: options of `DiffLlama.load`. `isSync`: whether the sync form is there
 * without `init`. `prompt`: ids where there is no tokenizer.
 */
async function check({ library, models, source, load = {}, isSync = true, prompt = "Returns the number of" }) {
  const q = { data: Float32Array.of(1, 0, 0, 1, 0, 1, 1, 0), shape: [1, 2, 2, 2] };
  const v = { data: Float32Array.of(1, 2, 3, 4), shape: [1, 1, 2, 2] };
  const options = { lambda: 0.5, isCausal: true };
  const y = await library.diffAttention(q, q, v, options);
  if (!isSync) await library.init();
  const sync = library.diffAttentionSync(q, q, v, options);
  const model = await models.DiffLlama.load(source, load);
  const ids = [];
  let text = "";
  for await (const token of model.generate(prompt, { maxNewTokens: 6 })) {
    ids.push(token.id);
    text += token.text;
  }
  model.dispose();
  return {
    y: Array.from(y.data),
    sync: Array.from(sync.data),
    ids,
    text: typeof prompt === "string" ? text : undefined,
    info: library.info(),
  };
}

export { check };
