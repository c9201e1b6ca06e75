// A model by ids alone, from the folder of the first argument. The tokenizers' package is not
// installed here.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { dispose, DiffAttnError, info } from "diffattn";
import { DiffLlama, LanguageModel } from "diffattn/models";

assert.equal(createRequire(import.meta.url)("diffattn/models").DiffLlama, DiffLlama);
assert.equal(LanguageModel, DiffLlama);
const model = await DiffLlama.load(process.argv[2]);
const ids = [];
// "A thread is"
for await (const { id, text } of model.generate([33, 784, 305], { maxNewTokens: 4 })) {
  ids.push(id);
  assert.equal(text, "");
}
assert.deepEqual(ids, [399, 199, 10, 47]);
const missing = (error) =>
  error instanceof DiffAttnError && error.code === "UNAVAILABLE" && error.message.includes("npm install @huggingface/tokenizers");
assert.throws(() => model.encode("A thread is"), missing);
await assert.rejects(model.generate("A thread is").next(), missing);
await assert.rejects(model.generate([33], { stop: "." }).next(), missing);
// One state: the models' backend is the operators', and ends with it.
assert.ok(["native", "wasm"].includes(info().backend));
dispose();
await assert.rejects(model.forward([33]), { code: "UNAVAILABLE" });
