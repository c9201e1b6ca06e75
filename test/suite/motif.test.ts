// Motif through the public API, on every backend: logits, hidden states and the likeliest ids
// against float64, caches, maps, what an inspection says, what is refused.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa } from "./backends.js";
import { sameBits } from "./compare.js";
import { changed, file, nearFixture, path, sentence, writtenIds } from "./language-models.js";
import { integers, readFixture, stored } from "./safetensors.js";

/** Heads: signal, noise, pairs of k and v. */
const MODELS = [
  ["motif_v1", 4, 4, 4],
  ["motif_v1_bf16", 4, 4, 4],
  ["motif_v1_gqa", 4, 4, 2],
  ["motif_gda", 8, 2, 2],
  ["motif_gda_shared_kv", 8, 4, 2],
] as const;

onEachIsa(() => {
  describe.each(MODELS)("%s", (name, signal, noise, pairs) => {
    const expected = readFixture(file(`${name}/expected.safetensors`));
    const [B = 0, L = 0] = stored(expected, "input_ids").shape;
    const ids = integers(stored(expected, "input_ids"));
    const greedy = integers(stored(expected, "expected.greedy"));
    const [prompt, rest] = [greedy.slice(0, -16), greedy.slice(-16)];
    const VOCAB = 97;
    let model: modelTypes.LanguageModel;
    beforeAll(async () => {
      model = await models.LanguageModel.load(path(name));
    });
    afterAll(() => model.dispose());

    test("its family and its configuration, with defaults", () => {
      expect(model.family).toBe("motif");
      expect(model.config).toMatchObject({
        num_attention_heads: signal + noise,
        num_noise_heads: noise,
        num_key_value_heads: 2 * pairs,
        hidden_act: "poly_norm",
        // (Those of the configuration for generation.)
        eos_token_id: [1, 5],
      });
    });

    test("logits and hidden states", async () => {
      const y = await model.forward({ data: Int32Array.from(ids), shape: [B, L] }, { hiddenStates: true });
      expect(y.shape).toEqual([B, L, VOCAB]);
      nearFixture(y, expected);
    });

    test("the likeliest ids, with a cache and without", async () => {
      const options = { maxNewTokens: 16, stopIds: [] };
      expect(await writtenIds(model, prompt, options)).toEqual(rest);
      const cache = await model.createCache();
      const begun = await writtenIds(model, prompt, { ...options, maxNewTokens: 6, cache });
      const ended = await writtenIds(model, [...prompt, ...begun], { ...options, maxNewTokens: 10, cache });
      expect([...begun, ...ended]).toEqual(rest);
    });

    test("a cache: by pieces, rewound, exported and imported", async () => {
      const text = ids.slice(0, L);
      const whole = await model.forward(text);
      const rows = (from: number, to = L) => ({ data: whole.data.slice(from * VOCAB, to * VOCAB), dtype: "float32" as const });
      const cache = await model.createCache();
      sameBits(await model.forward(text.slice(0, 5), { cache }), rows(0, 5));
      for (let at = 5; at < L; at++) sameBits(await model.forward([text[at] ?? 0], { cache }), rows(at, at + 1));
      await cache.rewind(7);
      sameBits(await model.forward(text.slice(7), { cache }), rows(7));
      const state = structuredClone(await cache.export());
      for (const tensor of state.keys) expect(tensor.shape.slice(0, 2)).toEqual([2 * pairs, L]);
      for (const tensor of state.values) expect(tensor.shape.slice(0, 2)).toEqual([pairs, L]);
      const copy = await model.importCache(state);
      const [a, b] = await Promise.all([model.forward([3], { cache }), model.forward([3], { cache: copy })]);
      sameBits(a, b);
    });

    test("maps of every layer", async () => {
      const text = ids.slice(0, L);
      const layers = Number(model.config["num_hidden_layers"]);
      for (let layer = 0; layer < layers; layer++) {
        const { map1, map2, diff } = await model.maps(text, layer);
        expect(diff.shape).toEqual([1, signal, L, L]);
        if (!map1 || !map2) throw new Error("two maps");
        // The noise head of a group is that of all its signal heads.
        const ratio = signal / noise;
        for (let head = 0; head < signal; head++) {
          const of = (at: number): number[] => Array.from(map2.data.subarray(at * L * L, (at + 1) * L * L));
          expect(of(head)).toEqual(of(head - (head % ratio)));
        }
        for (const map of [map1, map2])
          for (let row = 0; row < signal * L; row++) {
            const values: number[] = Array.from(map.data.subarray(row * L, (row + 1) * L));
            expect(values.reduce((sum, x) => sum + x, 0)).toBeCloseTo(1, 5);
          }
      }
    });

    test("what an inspection says", async () => {
      const found = await models.inspectCheckpoint(path(name));
      expect(found).toMatchObject({ architecture: "motif", plainLayers: [], missing: [], unexpected: [], warnings: [] });
      expect(found.layers[0]).toMatchObject({
        prefix: "model.layers.0.self_attn.",
        depth: 0,
        version: 1,
        pairing: signal === noise ? "interleaved" : "grouped",
        ratio: signal === noise ? null : signal / noise,
        numHeads: signal,
        numKvHeads: pairs,
        normWeight: true,
      });
      expect(found.layers[0]?.["lambdaInit"]).toBeCloseTo(0.8 - 0.6 * Math.exp(0.3), 12);
    });
  });

  describe("a Motif", () => {
    test("its other spelling", async () => {
      using model = await models.LanguageModel.load(changed({ model_type: "Motif" }, "motif_gda"));
      expect(model.family).toBe("motif");
    });

    test("other element types, and no other layout", async () => {
      const { file: half } = await models.convertCheckpoint(path("motif_gda"), { dtype: "BF16" });
      if (!half) throw new Error("no file");
      using narrow = await models.LanguageModel.load({ "config.json": file("motif_gda/config.json"), "model.safetensors": half });
      expect((await narrow.forward([1, 2, 3])).shape).toEqual([1, 3, 97]);
      for (const layout of ["unilm", "diffllama"] as const)
        expect(await sentence(() => models.convertCheckpoint(path("motif_gda"), { layout }))).toMatch(
          /^OPTION layout: expected the layout that the layer has, /,
        );
    });

    test("what is refused is one sentence", async () => {
      const load = (entries: object): Promise<string> => sentence(() => models.LanguageModel.load(changed(entries, "motif_gda")));
      expect(await load({ k_ratio: 2 })).toBe("FILE config.k_ratio: expected 1, as each noise key goes with one signal key, got 2");
      expect(await load({ hidden_act: "silu" })).toBe('FILE config.hidden_act: expected "poly_norm", got "silu"');
      expect(await load({ head_dim: null })).toMatch(/^FILE config\.head_dim: .* as there is num_noise_heads, got none$/);
      expect(await load({ num_noise_heads: 5 })).toMatch(/^FILE config\.num_key_value_heads: /);
      expect(await load({ num_hidden_layers: 3 })).toMatch(/^FILE weights\.model\.layers\.2\.self_attn\.q_proj\.weight: .* got none$/);
      expect(await load({ model_type: "llama" })).toMatch(/^FILE config\.hidden_act: /);
      expect(await sentence(() => models.DiffViT.load(path("motif_gda")))).toMatch(/got the configuration of a Motif, a language model: /);
    });
  });
});
