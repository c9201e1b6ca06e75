// Caches of every type, through the public API: attention sees what is held, bit for bit as over
// tensors of it; caches of models hold what they are asked to, and give it out and take it back.
import { writtenIds } from "./language-models.js";

import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, models, onEachIsa, refused } from "./backends.js";
import { sameBits } from "./compare.js";
import { part, qkv } from "./random.js";

const DTYPES = ["float32", "float16", "bfloat16", "int8"] as const;

const path = (name: string): string => fileURLToPath(new URL(`../../test/models/${name}`, import.meta.url));

type Plain = ReturnType<typeof part>;

const words = new Uint32Array(1);
const float = new Float32Array(words.buffer);

function bfloat16(x: number): number {
  float[0] = x;
  const bits = words[0] ?? 0;
  words[0] = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

/** To the nearest of the numbers `unit` apart, ties to even. */
function toUnit(x: number, unit: number): number {
  const low = Math.floor(x / unit);
  const rest = x / unit - low;
  return (rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low) * unit;
}

/** (No value here is too large.) */
const float16 = (x: number): number => toUnit(x, 2 ** Math.max(Math.floor(Math.log2(Math.abs(x) || 1)) - 10, -24));

/** What a cache of that type holds of a tensor. */
function held({ data, shape }: Plain, dtype: types.CacheDType): Plain {
  const width = shape.at(-1) ?? 1;
  const of = data.map((x, i) => {
    if (dtype === "float32") return x;
    if (dtype === "float16") return float16(x);
    if (dtype === "bfloat16") return bfloat16(x);
    const first = i - (i % width);
    const largest = data.slice(first, first + width).reduce((most, y) => Math.max(most, Math.abs(y)), 0);
    const scale = Math.fround(largest / 127);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    return Math.fround(toUnit(Math.fround(x * inverse), 1) * scale);
  });
  return { data: of, shape };
}

onEachIsa(() => {
  describe.each(DTYPES)("a cache of %s", (dtype) => {
    test("attention sees what it holds, sync and async, one query or many", async () => {
      const L = 290;
      const [q, k, v] = qkv(40, { H: 4, G: 2, Lq: L, d: 24 });
      const seen = [held(k, dtype), held(v, dtype)] as const;
      const options = { lambda: 0.35, isCausal: true };
      const whole = api.diffAttentionSync(q, ...seen, options);
      const rows = (from: number, to: number) => ({ data: part(whole as never, [0, 1], [from, to]).data, dtype: "float32" as const });
      const cache = new api.KvCache({ groups: 2, headDim: 24, valueDim: 48, dtype });
      const step = (from: number, to: number): Plain => {
        cache.append(part(k, [0, 1], [from, to]), part(v, [0, 1], [from, to]));
        return part(q, [0, 1], [from, to]);
      };
      for (const [from, to] of [
        [0, 250],
        [250, 251],
        [251, 254],
        [254, 280],
      ] as const)
        sameBits(api.diffAttentionSync(step(from, to), cache, null, options), rows(from, to));
      // On WASM the content moves to the worker now, as it is held.
      sameBits(await api.diffAttention(part(q, [0, 1], [270, 280]), cache, null, options), rows(270, 280));
      sameBits(await api.diffAttention(step(280, 281), cache, null, options), rows(280, 281));
      cache.rewind(278);
      sameBits(await api.diffAttention(step(278, 290), cache, null, options), rows(278, 290));
      cache.dispose();
    });

    test("of a model: by pieces as at once; what it gives out comes back", async () => {
      using model = await models.LanguageModel.load(path("diffllama_gqa"), { cacheDtype: dtype });
      const text = Array.from({ length: 30 }, (_, i) => (i * 31 + 7) % 90);
      const at = await model.createCache();
      const whole = await model.forward(text, { cache: at });
      const vocab = whole.shape[2] ?? 0;
      const rows = (from: number, to: number) => ({ data: whole.data.slice(from * vocab, to * vocab), dtype: "float32" as const });
      if (dtype === "float32") sameBits(await model.forward(text), whole);
      const cache = await model.createCache({ dtype });
      for (const [from, to] of [
        [0, 1],
        [1, 20],
        [20, 21],
        [21, 30],
      ] as const)
        sameBits(await model.forward(text.slice(from, to), { cache }), rows(from, to));
      const state = structuredClone(await cache.export());
      const isInt8 = dtype === "int8";
      for (const layer of state.layers ?? []) {
        if (layer.kind !== "kv") throw new Error(`a layer of the kind ${layer.kind}`);
        const { keys, values, keyScales } = layer;
        expect([keys.dtype, values.dtype]).toEqual([dtype, dtype]);
        expect(keyScales?.shape).toEqual(isInt8 ? keys.shape.slice(0, 2) : undefined);
      }
      expect(state.layers?.length).toBeGreaterThan(0);
      expect(state.keys.length).toBe(isInt8 ? 0 : state.layers?.length);
      const states: modelTypes.ModelCacheState[] = [state];
      // The shape of before.
      const { ids, discarded, window, keys, values } = state;
      if (!isInt8) states.push({ ids, discarded, window, keys, values });
      const next = await model.forward([5], { cache });
      for (const given of states) {
        const copy = await model.importCache(given);
        sameBits(await model.forward([5], { cache: copy }), next);
        copy.dispose();
      }
      // The model's own caches, of whatever it was loaded with, and one that is given.
      const greedy = { maxNewTokens: 12, stopIds: [] };
      const own = await writtenIds(model, text, greedy);
      await cache.rewind(0);
      expect(await writtenIds(model, text, { ...greedy, cache })).toEqual(own);
      const layers = (await cache.export()).layers ?? [];
      expect(layers.every((layer) => layer.kind === "kv" && layer.keys.dtype === dtype)).toBe(true);
    });
  });

  test("what a cache cannot be is refused", async () => {
    const options = { groups: 1, headDim: 4, valueDim: 4 };
    const error = await refused(() => new api.KvCache({ ...options, dtype: "int4" as "int8" }));
    expect(error).toMatchObject({ code: "OPTION" });
    expect(error.message).toContain("dtype: ");
    const load = await refused(() => models.LanguageModel.load(path("diffllama_gqa"), { cacheDtype: "q8" as "int8" }));
    expect(load).toMatchObject({ code: "OPTION" });
    expect(load.message).toContain("cacheDtype: expected");
    using model = await models.LanguageModel.load(path("diffllama_gqa"), { cacheDtype: "int8" });
    expect(await refused(() => model.createCache({ dtype: "int4" as "int8" }))).toMatchObject({ code: "OPTION" });
    const cache = await model.createCache();
    await model.forward([1, 2, 3], { cache });
    const state = await cache.export();
    const spoilt = (change: (layer: Record<string, unknown>) => void) => {
      const copy = structuredClone(state) as unknown as { layers: Record<string, unknown>[] };
      change(copy.layers[0] ?? {});
      return refused(() => model.importCache(copy as unknown as modelTypes.ModelCacheState));
    };
    expect(await spoilt((layer) => delete layer["keyScales"])).toMatchObject({ code: "DTYPE" });
    expect(await spoilt((layer) => delete layer["values"])).toMatchObject({ code: "DTYPE" });
    expect(await spoilt((layer) => (layer["kind"] = "recurrent"))).toMatchObject({ code: "DTYPE" });
    expect(await spoilt((layer) => (layer["kind"] = "sparse"))).toMatchObject({ code: "OPTION" });
    expect(await spoilt((layer) => (layer["keys"] = 5))).toMatchObject({ code: "DTYPE" });
    expect(await refused(() => model.importCache({ ...state, layers: [] }))).toMatchObject({ code: "SHAPE" });
    cache.dispose();
  });
});
