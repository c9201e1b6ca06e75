// The small models of test/models and examples/model, in memory, and a tokenizer of a caller's own.
// Attacks nothing.

import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = new URL("../../../", import.meta.url);
export const folder = (path) => fileURLToPath(new URL(path, root));

/** The files of a model by name, but for what only the tests of values need. */
export function filesOf(path) {
  const names = readdirSync(folder(path)).filter((name) => /json$|^model\.safetensors$/.test(name));
  return Object.fromEntries(names.map((name) => [name, new Uint8Array(readFileSync(folder(`${path}/${name}`)))]));
}

/** A Llama in a GGUF file, and the bytes of its header, about. */
export const gguf = new Uint8Array(readFileSync(folder("test/models/gguf/q4_1/model.gguf")));
export const GGUF_HEADER = 4480;

export const LLAMA = "test/models/diffllama_gqa";
export const VIT = "test/models/diff_vit";

/** One letter, one id. */
export const letters = {
  encode: (text) => Array.from(String(text), (letter) => (letter.codePointAt(0) ?? 0) % 97),
  decode: (ids) => Array.from(ids, (id) => "abcdefghij"[id % 10] ?? "?").join(""),
};

/** The trained model's own tokenizer, which knows more ids than the small models. */
export const tokenizerFiles = { "tokenizer.json": new Uint8Array(readFileSync(folder("examples/model/tokenizer.json"))) };

/** A picture of a size. */
export const image = (random, width = 32, height = 32) => ({
  data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 255)),
  width,
  height,
});
