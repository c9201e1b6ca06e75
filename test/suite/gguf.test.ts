// Llamas in GGUF files through the public API, on every backend: logits and ids against float64, ids
// of texts against other readers, what an inspection says, what is refused.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { within } from "./compare.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const CASES = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "untied", "rope_freqs", "split"];
const SPLIT = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"] as const;
const path = (name: string): string => fileURLToPath(new URL(`../../test/models/gguf/${name}`, import.meta.url));
const file = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(path(name)));
const first = (name: string): string => `${name}/${name === "split" ? SPLIT[0] : "model.gguf"}`;
const VOCAB = 97;
const NEW = 16;

const sentence = async (body: () => unknown): Promise<string> => {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
};

async function written(model: modelTypes.LanguageModel, prompt: number[]): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of model.generate(prompt, { maxNewTokens: NEW, stopIds: [] })) ids.push(id);
  return ids;
}

const lastLogits = async (source: Parameters<typeof models.LanguageModel.load>[0]): Promise<number[]> => {
  using model = await models.LanguageModel.load(source, { tokenizer: null });
  return [...(await model.forward([3, 4, 5], { logits: "last" })).data];
};

onEachIsa(() => {
  describe("a Llama in a GGUF file", () => {
    test.each(CASES)("%s: logits, the likeliest ids, ids of texts", async (name) => {
      const { options, tensors } = readFixture(file(`${name}/expected.safetensors`));
      const fixture = { options, tensors };
      const notices: string[] = [];
      using model = await models.LanguageModel.load(path(first(name)), { onNotice: (text) => notices.push(text) });
      expect(notices).toEqual([]);
      expect(model.family).toBe("llama");
      const { shape } = stored(fixture, "input_ids");
      const ids = integers(stored(fixture, "input_ids"));
      const y = await model.forward({ data: Int32Array.from(ids), shape });
      const want = float64(stored(fixture, "expected.logits"));
      expect(y.shape).toEqual([...shape, VOCAB]);
      const spread = Math.max(...want) - Math.min(...want);
      within(y.data, want, () => 2e-5 * spread);
      const greedy = integers(stored(fixture, "expected.greedy"));
      expect(await written(model, greedy.slice(0, -NEW))).toEqual(greedy.slice(-NEW));
      const { texts, decoded, chat } = options as { texts: string[]; decoded: string[]; chat: string };
      for (const [i, text] of texts.entries()) {
        const encoded = integers(stored(fixture, `expected.encode_${i}`));
        expect(model.encode(text)).toEqual(encoded);
        expect(model.decode(encoded)).toBe(decoded[i]);
      }
      expect(model.encode(chat, { addSpecialTokens: false })).toEqual(integers(stored(fixture, "expected.encode_chat")));
    });

    test("from a folder, bytes, a Blob, files by name, whichever of several is named", async () => {
      const want = await lastLogits(path("q4_0/model.gguf"));
      const bytes = file("q4_0/model.gguf");
      for (const source of [path("q4_0"), bytes, new Blob([bytes]), { "any.gguf": bytes }]) expect(await lastLogits(source)).toEqual(want);
      const split = await lastLogits(path(`split/${SPLIT[0]}`));
      const parts = Object.fromEntries(SPLIT.map((name) => [name, file(`split/${name}`)]));
      for (const source of [path("split"), path(`split/${SPLIT[1]}`), parts]) expect(await lastLogits(source)).toEqual(split);
    });

    test("a tokenizer of known expressions, and none", async () => {
      using known = await models.LanguageModel.load(path("f16/model.gguf"), { tokenizerRegex: "known" });
      expect(known.encode("the cat")).toEqual(known.encode("the cat"));
      using none = await models.LanguageModel.load(path("f16/model.gguf"), { tokenizer: null });
      expect(none.tokenizer).toBeNull();
    });

    test("its inspection", async () => {
      const found = await models.inspectCheckpoint(path("q4_1/model.gguf"));
      expect(found).toMatchObject({ architecture: "llama", missing: [], unexpected: [], warnings: [] });
      expect(found.dtypes.map(({ dtype, tensors }) => [dtype, tensors])).toEqual([
        ["Q4_1", 14],
        ["Q8_0", 1],
        ["F32", 5],
      ]);
      expect(found.dtypes[0]?.bytes).toBe(((found.dtypes[0]?.parameters ?? 0) / 32) * 20);
      expect(found.plainLayers).toHaveLength(2);
      expect(await models.inspectCheckpoint(file("q4_1/model.gguf"))).toEqual(found);
    });

    test("what is refused, and the next load is right", async () => {
      const bytes = file("q8_0/model.gguf");
      const load = (source: Parameters<typeof models.LanguageModel.load>[0]): Promise<string> =>
        sentence(() => models.LanguageModel.load(source));
      expect(await load({ "m.gguf": bytes.slice(0, 1000) })).toMatch(/^FILE m\.gguf: expected .* within the 1000 bytes of the file/);
      expect(await load({ "m.gguf": bytes.slice(0, -1) })).toMatch(/^FILE m\.gguf, tensor "blk\.1\..*expected its bytes within/);
      expect(await load({ "m.gguf": file("f16/expected.safetensors") })).toMatch(/^FILE m\.gguf: expected a GGUF file/);
      expect(await load({ [SPLIT[0]]: file(`split/${SPLIT[0]}`) })).toMatch(/^FILE model-00002-of-00002\.gguf: expected a file/);
      expect(await load(file(`split/${SPLIT[0]}`))).toBe("FILE source: expected the 2 files of its model (split.count), got 1");
      const other = bytes.slice();
      const at = Buffer.from(other).indexOf("smollm");
      other.set(new TextEncoder().encode("tekken"), at);
      expect(await load({ "m.gguf": other })).toMatch(/^FILE m\.gguf, tokenizer\.ggml\.pre: expected one of .*, got "tekken"$/);
      expect(await lastLogits({ "m.gguf": other })).toEqual(await lastLogits(bytes));
      expect(await sentence(() => models.openSafetensors(path("f16/model.gguf")))).toMatch(/expected a safetensors file, got a GGUF file/);
      expect(await sentence(() => models.DiffViT.load(path("f16/model.gguf")))).toMatch(/^FILE config\./);
    });
  });
});
