// Llamas some of whose heads were made differential, through the public API, on every backend:
// logits against float64, the ids of the Llama that they were, caches, maps of heads of both kinds,
// what an inspection says.

import { describe, expect, test } from "vitest";
import { models, onEachIsa, refused } from "./backends.js";
import { sameBits, within } from "./compare.js";
import { file, path, writtenIds } from "./language-models.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const VOCAB = 59;

/** Each checkpoint, and whether it gives what the Llama gives that it was. */
const CONVERTED: readonly [string, boolean][] = [
  ["v2_mirror", true],
  ["v2_mirror_lambda_0_3", true],
  ["share_third", true],
  ["share_half", true],
  ["share_half_moved", false],
  ["v1_mirror_half", true],
  ["v1_zero_scalars", true],
  ["v1_zero_vectors", true],
  ["v2_mix_0", true],
  ["v2_mix_0_25", false],
  ["v2_mix_1_0", false],
  ["dex_zero", true],
  ["dex_trained", false],
];

onEachIsa(() => {
  describe("a converted Llama", () => {
    test.each(CONVERTED)("%s: logits, and what comes after them", async (name, isLlama) => {
      const expected = readFixture(file(`diffattn_llama/${name}/expected.safetensors`));
      const [B = 0, L = 0] = stored(expected, "input_ids").shape;
      const ids = integers(stored(expected, "input_ids"));
      using model = await models.LanguageModel.load(path(`diffattn_llama/${name}`));
      expect(model.family).toBe("diffattn_llama");
      const y = await model.forward({ data: Int32Array.from(ids), shape: [B, L] });
      expect(y.shape).toEqual([B, L, VOCAB]);
      const want = float64(stored(expected, "expected.logits"));
      within(y.data, want, () => 2e-5 * (Math.max(...want) - Math.min(...want)));
      if (!isLlama) return;
      using llama = await models.LanguageModel.load(path("llama"));
      const prompt = ids.slice(0, L);
      const next = { maxNewTokens: 24, stopIds: [] };
      expect(await writtenIds(model, prompt, next)).toEqual(await writtenIds(llama, prompt, next));
    });

    test.each(["share_half_moved", "v1_mirror_half", "dex_trained"])("%s: a cache, by pieces, exported and imported", async (name) => {
      const expected = readFixture(file(`diffattn_llama/${name}/expected.safetensors`));
      const text = integers(stored(expected, "input_ids")).slice(0, 21);
      using model = await models.LanguageModel.load(path(`diffattn_llama/${name}`));
      const whole = await model.forward(text);
      const rows = (from: number, to: number) => ({ data: whole.data.slice(from * VOCAB, to * VOCAB), dtype: "float32" as const });
      const cache = await model.createCache();
      sameBits(await model.forward(text.slice(0, 5), { cache }), rows(0, 5));
      for (let at = 5; at < 20; at++) sameBits(await model.forward([text[at] ?? 0], { cache }), rows(at, at + 1));
      const state = structuredClone(await cache.export());
      const keys = name.startsWith("v1") ? 4 : 2;
      for (const tensor of state.keys) expect(tensor.shape).toEqual([keys, 20, 8]);
      for (const tensor of state.values) expect(tensor.shape).toEqual([2, 20, 8]);
      const copy = await model.importCache(state);
      sameBits(await model.forward([text[20] ?? 0], { cache: copy }), rows(20, 21));
    });

    test("maps: of a head with one map, the second is zeros", async () => {
      using model = await models.LanguageModel.load(path("diffattn_llama/share_half_moved"));
      const text = [5, 8, 13, 21, 34];
      for (const [layer, differential] of [
        [0, [0, 2, 4]],
        [1, [3, 4, 5]],
      ] as const) {
        const { map1, map2, diff } = await model.maps(text, layer);
        if (!map1 || !map2) throw new Error("no maps");
        expect(diff.shape).toEqual([1, 6, 5, 5]);
        for (let head = 0; head < 6; head++) {
          const of = (map: { data: ArrayLike<number> }): number[] => Array.from(map.data).slice(head * 25, (head + 1) * 25);
          const isDifferential = (differential as readonly number[]).includes(head);
          expect(of(map2).some((x) => x !== 0)).toBe(isDifferential);
          if (!isDifferential) expect(of(diff)).toEqual(of(map1));
        }
      }
      using dex = await models.LanguageModel.load(path("diffattn_llama/dex_trained"));
      expect((await dex.maps(text, 1)).maps).toHaveLength(1);
    });

    test("what an inspection says", async () => {
      const found = await models.inspectCheckpoint(path("diffattn_llama/share_half"));
      expect(found).toMatchObject({
        architecture: "diffattn_llama",
        layers: [],
        plainLayers: [],
        missing: [],
        unexpected: [],
        warnings: [],
      });
      expect(found.convertedLayers).toEqual(
        [
          [0, 2, 4],
          [3, 4, 5],
        ].map((differentialHeads, depth) => ({
          prefix: `model.layers.${depth}.self_attn.`,
          depth,
          embedDim: 48,
          numHeads: 6,
          numKvHeads: 2,
          headDim: 8,
          rope: { interleaved: false, theta: 10000 },
          isCausal: true,
          kind: "v2",
          lambda: "sigmoid",
          differentialHeads,
        })),
      );
    });

    test("what is refused is one sentence", async () => {
      const folder = "diffattn_llama/share_half";
      const config = JSON.parse(new TextDecoder().decode(file(`${folder}/config.json`))) as { diff_attention: object };
      const load = async (entries: object): Promise<string> => {
        const changed = { ...config, diff_attention: { ...config.diff_attention, ...entries } };
        const { code, message } = await refused(() =>
          models.LanguageModel.load({
            "config.json": new TextEncoder().encode(JSON.stringify(changed)),
            "model.safetensors": file(`${folder}/model.safetensors`),
          }),
        );
        return `${code} ${message}`;
      };
      expect(await load({ kind: "v3" })).toBe('FILE config.diff_attention.kind: expected "v2" or "v1" or "dex", got "v3"');
      expect(await load({ heads: [[0], [7]] })).toBe(
        "FILE config.diff_attention.heads[1]: expected numbers of heads below 6, ascending, got [7]",
      );
      expect(await load({ heads: [[0], [1]] })).toMatch(/^FILE weights\.model\.layers\.0\.self_attn\.q_proj\.weight: .* got \[72, 48\]$/);
    });
  });
});
