// Quantised weights at the command line: written out of a GGUF file and out of floats, inspected,
// written with.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { LanguageModel } from "./models.js";
import { diffattn, folder, modelOf } from "./run.js";

const gguf = join(modelOf("gguf/q4_1"), "model.gguf");

test("convert of a GGUF file writes a folder that writes the same", async () => {
  const target = join(folder(), "model-q4");
  const { code, err } = await diffattn(["convert", gguf, target, "--dtype", "q4"]);
  expect({ code, err }).toMatchObject({ code: 0 });
  expect(err).toMatch(/written: .*model\.safetensors \(\d+\.\d KB\)\n$/);
  const config = JSON.parse(readFileSync(join(target, "config.json"), "utf8")) as Record<string, unknown>;
  expect(config["quantization"]).toEqual({
    group_size: 32,
    bits: 4,
    mode: "affine",
    "model.embed_tokens": { group_size: 32, bits: 8 },
  });
  const inspected = await diffattn(["inspect", target]);
  expect(inspected.out).toContain("quantised      MLX, 4 bits in groups of 32: 14 weights, 61,440 parameters, 38.4 KB\n");
  using first = await LanguageModel.load(gguf);
  const { text } = JSON.parse((await diffattn(["generate", target, "the cat", "-n", "12", "--json"])).out) as { text: string };
  let wanted = "";
  for await (const token of first.generate("the cat", { maxNewTokens: 12 })) wanted += token.text;
  expect(text).toBe(wanted);
});

test("convert of floats, both spellings, and what stands alone", async () => {
  const target = join(folder(), "model-q8");
  expect(await diffattn(["convert", modelOf("llama"), target, "--dtype", "q8"])).toMatchObject({ code: 0 });
  const back = join(folder(), "model-float32");
  expect(await diffattn(["convert", target, back, "--dtype", "float32"])).toMatchObject({ code: 0 });
  expect(JSON.parse(readFileSync(join(back, "config.json"), "utf8"))).not.toHaveProperty("quantization");
  const both = await diffattn(["convert", modelOf("llama"), join(folder(), "x"), "--to", "diff", "--dtype", "q4"]);
  expect(both.code).toBe(2);
  expect(both.err).toContain("stand alone");
});
