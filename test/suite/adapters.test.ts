// Low-rank adapters through the public API, on every backend: over the Llama that they convert
// first and over the model that was converted already, from a folder and from bytes, and what is
// refused.

import { describe, expect, test } from "vitest";
import { models, onEachIsa, refused } from "./backends.js";
import { within } from "./compare.js";
import { file, path } from "./language-models.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const ADAPTER = "diffattn_llama/adapter";

/** The adapter's files in memory, its configuration as it is to be. */
const filesOf = (changes: object = {}): Record<string, Uint8Array<ArrayBuffer>> => {
  const config = JSON.parse(new TextDecoder().decode(file(`${ADAPTER}/adapter_config.json`))) as object;
  return {
    "adapter_config.json": new TextEncoder().encode(JSON.stringify({ ...config, ...changes })),
    "adapter_model.safetensors": file(`${ADAPTER}/adapter_model.safetensors`),
  };
};

onEachIsa(() => {
  describe("a low-rank adapter", () => {
    test.each([
      ["over the Llama that it converts", "llama", path(ADAPTER)],
      ["over the model that was converted", "diffattn_llama/v2_mirror", path(ADAPTER)],
      ["in memory", "llama", filesOf()],
    ])("%s", async (_, base, adapter) => {
      const expected = readFixture(file(`${ADAPTER}/expected.safetensors`));
      const [B = 0, L = 0] = stored(expected, "input_ids").shape;
      const ids = integers(stored(expected, "input_ids"));
      using model = await models.LanguageModel.load(path(base), { adapter });
      expect(model.family).toBe("diffattn_llama");
      const y = await model.forward({ data: Int32Array.from(ids), shape: [B, L] });
      const want = float64(stored(expected, "expected.logits"));
      within(y.data, want, () => 2e-5 * (Math.max(...want) - Math.min(...want)));
    });

    test("over a quantised Llama it stands beside the codes", async () => {
      // The Llama of the GGUF files is wider than the adapter's: one of its own, of zeros but for A.
      const config = { peft_type: "LORA", r: 2, lora_alpha: 2, diff_attention: { kind: "v2", heads: "all" } };
      const tensor = (shape: number[], value: number) => ({ data: new Float32Array(shape.reduce((a, b) => a * b)).fill(value), shape });
      const tensors = Object.fromEntries(
        [0, 1].flatMap((layer) => {
          const q = `base_model.model.model.layers.${layer}.self_attn.q_proj`;
          return [
            [`${q}.lora_A.weight`, tensor([2, 64], 0.25)],
            [`${q}.lora_B.weight`, tensor([128, 2], 0)],
          ];
        }),
      );
      const weights = (await models.saveSafetensors(tensors)) ?? new Uint8Array();
      const adapter = { "adapter_config.json": new TextEncoder().encode(JSON.stringify(config)), "adapter_model.safetensors": weights };
      using llama = await models.LanguageModel.load(path("gguf/q4_1/model.gguf"), { tokenizer: null });
      using model = await models.LanguageModel.load(path("gguf/q4_1/model.gguf"), { adapter, tokenizer: null });
      const ids = [3, 1, 4, 1, 5, 9, 2, 6];
      const [was, is] = [await llama.forward(ids), await model.forward(ids)];
      const largest = Math.max(...Array.from(was.data as Float32Array, Math.abs));
      within(is.data, Float64Array.from(was.data as Float32Array), () => 2e-6 * largest);
    });

    test("what is refused", async () => {
      const load = (base: string, adapter: unknown) => models.LanguageModel.load(path(base), { adapter: adapter as string });
      for (const [code, words, base, adapter] of [
        ["OPTION", "adapter", "diffattn_llama/share_half", path(ADAPTER)],
        ["FILE", "adapter_config.json", "llama", path("llama")],
        ["FILE", "expected a matrix with 5 on axis 0", "llama", filesOf({ r: 5 })],
        ["FILE", '"IA3"', "llama", filesOf({ peft_type: "IA3" })],
        ["OPTION", "adapter", "llama", 5],
      ] as const) {
        const error = await refused(() => load(base, adapter));
        expect([error.code, error.message]).toEqual([code, expect.stringContaining(words)]);
      }
      // The next call is right.
      using model = await models.LanguageModel.load(path("llama"), { adapter: path(ADAPTER) });
      expect(model.family).toBe("diffattn_llama");
    });
  });
});
