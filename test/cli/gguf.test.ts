// A Llama in a GGUF file at the command line: inspected, and written with by the file's own tokenizer.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { LanguageModel } from "./models.js";
import { diffattn, folder, modelOf } from "./run.js";

const file = join(modelOf("gguf/q4_1"), "model.gguf");

test("inspect says what it is", async () => {
  const { code, out, err } = await diffattn(["inspect", file]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(out.split("\n").slice(0, 9)).toEqual([
    "architecture   llama",
    "parameters     67,968",
    "element types  Q4_1: 14 tensors, 61,440 parameters, 38.4 KB",
    "               Q8_0: 1 tensor, 6,208 parameters, 6.6 KB",
    "               F32: 5 tensors, 320 parameters, 1.3 KB",
    "layers         2 with plain attention",
    "  0–1: 4 heads of 16; 2 k/v heads; rope half-split, θ 10,000; causal",
    "missing: none",
    "unexpected: none",
  ]);
  const split = join(modelOf("gguf/split"), "model-00002-of-00002.gguf");
  const listed = await diffattn(["inspect", split, "--tensors"]);
  expect(listed).toMatchObject({ code: 0, err: "" });
  expect(listed.out).toMatch(/^lm_head\.weight +Q8_0 +\[97, 64\] +6\.6 KB +model-0000[12]-of-00002\.gguf$/m);
  const json = await diffattn(["inspect", file, "--tensors", "--json"]);
  expect((JSON.parse(json.out) as { tensors: unknown[] }).tensors).toHaveLength(20);
});

test("generate writes what the library writes, by the tokenizer in the file", async () => {
  using llama = await LanguageModel.load(file);
  const prompt = "the cat";
  const ids: number[] = [];
  for await (const { id } of llama.generate(prompt, { maxNewTokens: 12 })) ids.push(id);
  const { code, out, err } = await diffattn(["generate", file, prompt, "-n", "12", "--json"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(JSON.parse(out)).toMatchObject({ prompt, ids, text: llama.decode(ids), promptTokens: llama.encode(prompt).length });
});

test("what cannot be read is told in a sentence", async () => {
  const half = join(folder(), "half.gguf");
  writeFileSync(half, readFileSync(file).subarray(0, 2000));
  const { code, err } = await diffattn(["generate", half, "x"]);
  expect(code).toBe(1);
  expect(err).toMatch(
    /^diffattn: half\.gguf, tokenizer\.ggml\.token_type: expected a list within the \d+ bytes behind it, got 97 values \(.*\)\n$/,
  );
});
