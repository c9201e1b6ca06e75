// A plain Llama at the command line: written with, looked at, inspected, and called what it is.

import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseHTML } from "linkedom";
import { expect, test } from "vitest";
import { LanguageModel } from "./models.js";
import { diffattn, folder, modelOf } from "./run.js";

// The checkpoint with a tokenizer: one letter per token.
const model = join(folder(), "llama");
cpSync(modelOf("llama"), model, { recursive: true });
const letters = Array.from({ length: 59 }, (_, id) => String.fromCharCode(64 + id));
const tokenizer = {
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: { type: "Fuse" },
  model: { type: "BPE", vocab: Object.fromEntries(letters.map((letter, id) => [letter, id])), merges: [] },
};
writeFileSync(join(model, "tokenizer.json"), JSON.stringify(tokenizer));
const prompt = "HELLO";

test("generate writes what the library writes", async () => {
  using llama = await LanguageModel.load(model);
  const ids: number[] = [];
  for await (const { id } of llama.generate(prompt, { maxNewTokens: 12 })) ids.push(id);
  const { code, out, err } = await diffattn(["generate", model, prompt, "-n", "12", "--json"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(JSON.parse(out)).toMatchObject({ prompt, ids, text: llama.decode(ids), promptTokens: 5 });
});

test("maps show each head's one map", async () => {
  const json = await diffattn(["maps", model, prompt, "--layer", "1", "--format", "json"]);
  expect(json).toMatchObject({ code: 0, err: "" });
  const told = JSON.parse(json.out) as Record<string, unknown> & { diff: number[][][] };
  expect(Object.keys(told)).toEqual(["layer", "heads", "tokens", "ids", "diff"]);
  expect(told).toMatchObject({ layer: 1, heads: [0, 1, 2, 3, 4, 5], tokens: Array.from(prompt) });
  using llama = await LanguageModel.load(model);
  expect(Float32Array.from(told.diff.flat(2))).toEqual((await llama.maps(llama.encode(prompt), 1)).diff.data);

  const { code, out } = await diffattn(["maps", model, prompt]);
  expect(code).toBe(0);
  expect(parseHTML(out).document.querySelectorAll("svg")).toHaveLength(6);
  // Before the model is read.
  expect(await diffattn(["maps", model, prompt, "--layer", "2"])).toMatchObject({
    code: 1,
    err: "diffattn: --layer: expected a layer below 2, got 2\n",
  });
  expect(await diffattn(["maps", model, prompt, "--format", "svg"])).toMatchObject({
    code: 2,
    err: "diffattn: an SVG file shows one head: choose --head 0 to 5\n",
  });
});

test("inspect says what it is", async () => {
  const { code, out, err } = await diffattn(["inspect", model]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(out.split("\n").slice(0, 7)).toEqual([
    "architecture   llama",
    "parameters     36,624",
    "element types  F32: 21 tensors, 36,624 parameters, 146.5 KB",
    "layers         2 with plain attention",
    "  0–1: 6 heads of 8; 2 k/v heads; rope half-split, θ 10,000; causal",
    "missing: none",
    "unexpected: none",
  ]);
});

test("a command that takes pictures calls it what it is", async () => {
  expect((await diffattn(["classify", model, join(model, "config.json")])).err).toMatch(
    /^diffattn: .*llama: it is a Llama, a language model; "diffattn generate", "diffattn maps" and "diffattn bench" take it\n$/,
  );
});

test("other element types are written and loaded", async () => {
  const half = `${model}-bf16`;
  expect(await diffattn(["convert", model, half, "--dtype", "bf16"])).toMatchObject({ code: 0, err: "" });
  expect((await diffattn(["generate", half, prompt, "-n", "3"])).out).toHaveLength(3);
});
