// A plain Llama through the public API, on every backend: logits against float64, the same text
// everywhere, caches, maps of one term, what an inspection says, what is refused.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa } from "./backends.js";
import { sameBits, within } from "./compare.js";
import { changed, file, path, sentence } from "./language-models.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const expected = readFixture(file("llama/expected.safetensors"));
const [B = 0, L = 0] = stored(expected, "input_ids").shape;
const ids = integers(stored(expected, "input_ids"));
const VOCAB = 59;
/** What follows each text, the likeliest id each time: computed once, in float64. */
const GREEDY = [
  [20, 32, 46, 14, 42, 17, 38, 29, 9, 46, 34, 20, 46, 37, 56, 46, 57, 37, 42, 46, 37, 56, 37, 3],
  [58, 29, 42, 52, 21, 56, 4, 18, 6, 42, 52, 56, 4, 18, 41, 33, 6, 18, 53, 16, 52, 7, 51, 9],
];

async function generated(
  model: modelTypes.LanguageModel,
  prompt: Parameters<modelTypes.LanguageModel["generate"]>[0],
  options: modelTypes.GenerateOptions,
): Promise<[number[], string]> {
  const [list, texts]: [number[], string[]] = [[], []];
  for await (const { id, text } of model.generate(prompt, options)) {
    list.push(id);
    texts.push(text);
  }
  return [list, texts.join("")];
}

test("a language model goes by both names", () => {
  expect(models.DiffLlama).toBe(models.LanguageModel);
});

onEachIsa(() => {
  describe("a plain Llama", () => {
    let model: modelTypes.LanguageModel;
    beforeAll(async () => {
      model = await models.LanguageModel.load(path("llama"));
    });
    afterAll(() => model.dispose());

    test("its family and its configuration, with defaults", async () => {
      expect(model.family).toBe("llama");
      expect(model.config).toMatchObject({ model_type: "llama", num_attention_heads: 6, head_dim: 8, mlp_bias: false, rope_theta: 10000 });
      expect(model.tokenizer).toBeNull();
      using other = await models.DiffLlama.load(path("diffllama_gqa"));
      expect(other.family).toBe("diffllama");
      expect(other).toBeInstanceOf(models.LanguageModel);
    });

    test("logits, and the last ones alone", async () => {
      const y = await model.forward({ data: Int32Array.from(ids), shape: [B, L] }, { hiddenStates: true });
      const want = float64(stored(expected, "expected.logits"));
      expect(y.shape).toEqual([B, L, VOCAB]);
      const spread = Math.max(...want) - Math.min(...want);
      within(y.data, want, () => 2e-5 * spread);
      expect(y.hiddenStates?.shape).toEqual([3, B, L, 48]);
      const last = await model.forward({ data: Int32Array.from(ids), shape: [B, L] }, { logits: "last" });
      const rows = Array.from({ length: B }, (_, b) => [...y.data.subarray(((b + 1) * L - 1) * VOCAB, (b + 1) * L * VOCAB)]);
      sameBits(last, { data: Float32Array.from(rows.flat()), dtype: "float32" });
    });

    test("the likeliest ids, alone and in a batch, with a cache and without", async () => {
      const prompts = [ids.slice(0, L), ids.slice(L)];
      const options = { maxNewTokens: 24, stopIds: [] };
      const together: number[][] = [[], []];
      for await (const { id, index } of model.generate(prompts, options)) together[index]?.push(id);
      expect(together).toEqual(GREEDY);
      for (const [index, prompt] of prompts.entries()) {
        expect((await generated(model, prompt, options))[0]).toEqual(GREEDY[index]);
        const cache = await model.createCache();
        const [begun] = await generated(model, prompt, { ...options, maxNewTokens: 10, cache });
        const [rest] = await generated(model, [...prompt, ...begun], { ...options, maxNewTokens: 14, cache });
        expect([...begun, ...rest]).toEqual(GREEDY[index]);
      }
    });

    test("texts, stop strings and the config's own end", async () => {
      const own: modelTypes.Tokenizer = {
        encode: (text) => Array.from(text, (letter) => letter.charCodeAt(0) - 64),
        decode: (list) => String.fromCharCode(...Array.from(list, (id) => id + 64)),
      };
      using spoken = await models.LanguageModel.load(path("llama"), { tokenizer: own });
      const prompt = own.decode(ids.slice(0, L));
      const text = own.decode(GREEDY[0] ?? []);
      expect(await generated(spoken, prompt, { maxNewTokens: 24, stopIds: [] })).toEqual([GREEDY[0], text]);
      const stop = text.slice(6, 8);
      const [, stopped] = await generated(spoken, prompt, { maxNewTokens: 24, stopIds: [], stop });
      expect(stopped).toBe(text.slice(0, text.indexOf(stop)));
      using ending = await models.LanguageModel.load({
        ...changed({}, "llama"),
        "generation_config.json": new TextEncoder().encode(JSON.stringify({ eos_token_id: [GREEDY[0]?.[4] ?? 0] })),
      });
      const first = (GREEDY[0] ?? []).indexOf(GREEDY[0]?.[4] ?? 0);
      expect((await generated(ending, ids.slice(0, L), {}))[0]).toEqual(GREEDY[0]?.slice(0, first + 1));
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
      expect([...state.ids]).toEqual(text);
      for (const tensor of [...state.keys, ...state.values]) expect(tensor.shape).toEqual([2, L, 8]);
      const copy = await model.importCache(state);
      const [a, b] = await Promise.all([model.forward([3], { cache }), model.forward([3], { cache: copy })]);
      sameBits(a, b);
      using other = await models.DiffLlama.load(path("diffllama_gqa"));
      expect(await sentence(() => other.importCache(state))).toMatch(/^SHAPE state\.layers/);
      expect(await sentence(() => other.forward([3], { cache }))).toMatch(/^SHAPE caches?: /);
    });

    test("a head has one map", async () => {
      const text = ids.slice(0, L);
      for (const layer of [0, 1]) {
        const { map1, map2, maps = [], diff } = await model.maps(text, layer);
        expect([map1, map2, maps.length]).toEqual([undefined, undefined, 1]);
        expect(diff.shape).toEqual([1, 6, L, L]);
        const [map] = maps;
        if (!map) throw new Error("no map");
        sameBits(map, diff);
        for (let row = 0; row < 6 * L; row++) {
          const values: number[] = Array.from(map.data.subarray(row * L, (row + 1) * L));
          expect(values.reduce((sum, x) => sum + x, 0)).toBeCloseTo(1, 5);
          expect(values.slice((row % L) + 1).every((x) => x === 0)).toBe(true);
        }
      }
      expect(await sentence(() => model.maps(text, 2))).toBe("OPTION mapLayers: expected layers from 0 to 1, got 2");
    });

    test("what an inspection says", async () => {
      const found = await models.inspectCheckpoint(path("llama"));
      expect(found).toMatchObject({ architecture: "llama", layers: [], missing: [], unexpected: [], warnings: [] });
      expect(found.plainLayers).toEqual(
        [0, 1].map((depth) => ({
          prefix: `model.layers.${depth}.self_attn.`,
          depth,
          embedDim: 48,
          numHeads: 6,
          numKvHeads: 2,
          headDim: 8,
          rope: { interleaved: false, theta: 10000 },
          isCausal: true,
        })),
      );
      expect((await models.inspectCheckpoint(path("diffllama_gqa"))).plainLayers).toEqual([]);
    });

    test("other element types, and no other layout", async () => {
      const { file: half } = await models.convertCheckpoint(path("llama"), { dtype: "BF16" });
      if (!half) throw new Error("no file");
      using narrow = await models.LanguageModel.load({ "config.json": file("llama/config.json"), "model.safetensors": half });
      expect((await narrow.forward(ids.slice(0, L))).shape).toEqual([1, L, VOCAB]);
      expect(await sentence(() => models.convertCheckpoint(path("llama"), { layout: "unilm" }))).toBe(
        "FILE source: expected a checkpoint with layers of differential attention, got one in which none is known",
      );
    });

    test("what is refused is one sentence", async () => {
      const load = (entries: object, of = "llama"): Promise<string> => sentence(() => models.LanguageModel.load(changed(entries, of)));
      expect(await load({ model_type: "mistral" })).toBe(
        'FILE config.model_type: expected one of "diffllama", "llama", "diffattn_llama", "motif", "phi4flash", got "mistral"',
      );
      expect(await load({ num_key_value_heads: 4 })).toBe(
        "FILE config.num_key_value_heads: expected a number that divides num_attention_heads 6, got 4",
      );
      expect(await load({ rope_scaling: { rope_type: "llama3", factor: 8 } })).toBe(
        "FILE config.rope_scaling.low_freq_factor: expected a number for rope_type llama3, got none",
      );
      expect(await load({ num_hidden_layers: 3 })).toMatch(/^FILE weights\.model\.layers\.2\.self_attn\.q_proj\.weight: .* got none$/);
      // Each family's weights under the other's name.
      expect(await load({ model_type: "diffllama" })).toMatch(/^FILE weights\.model\.layers\.0\.self_attn\.lambda_q1: .* got none$/);
      expect(await load({ model_type: "llama" }, "diffllama_gqa")).toBe(
        'FILE config.model_type: expected "diffllama", as the weights have λ (model.layers.0.self_attn.lambda_k1), got "llama"',
      );
      expect(await sentence(() => models.DiffViT.load(path("llama")))).toMatch(
        /^FILE config\.architecture: .* got the configuration of a Llama, a language model: LanguageModel loads it, and the commands generate and maps$/,
      );
      expect(await sentence(() => models.LanguageModel.load(path("diff_vit")))).toMatch(
        /^FILE config\.model_type: .* got the configuration of a DIFF vision transformer: DiffViT loads it/,
      );
      expect(await sentence(() => model.forward([59]))).toBe("OPTION ids: expected ids from 0 to 58, got 59 at 0");
      expect(await sentence(() => model.generate("a").next())).toMatch(/^UNAVAILABLE tokenizer: /);
    });
  });
});
