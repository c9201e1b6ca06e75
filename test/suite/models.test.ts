// Whole models through the public API, on every backend: against float64, the same text everywhere,
// caches, batches, aborts, ends.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { api, backend, isas, isNative, models, onEachIsa, refused } from "./backends.js";
import { sameBits, within } from "./compare.js";
import { uniform } from "./random.js";
import { float32, float64, integers, readFixture, stored, type Fixture } from "./safetensors.js";

type Llama = modelTypes.DiffLlama;
type GenerateOptions = modelTypes.GenerateOptions;

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const llamas = readdirSync(path("test/models")).filter((name) => name.startsWith("diffllama_"));
const expectedOf = (folder: string): Fixture => readFixture(readFileSync(path(`${folder}/expected.safetensors`)));

/** What an element may be off: 2e-5 of what the values spread over. */
function spread(values: ArrayLike<number>): number {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) [low, high] = [Math.min(low, values[i] ?? NaN), Math.max(high, values[i] ?? NaN)];
  return 2e-5 * (high - low);
}

function close(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  const bound = spread(expected);
  within(actual, expected, () => bound);
}

/** The ids and the text that a model gives. */
async function generated(model: Llama, prompt: Parameters<Llama["generate"]>[0], options: GenerateOptions): Promise<[number[], string]> {
  const ids: number[] = [];
  let text = "";
  for await (const token of model.generate(prompt, options)) {
    ids.push(token.id);
    text += token.text;
  }
  return [ids, text];
}

const trained = "examples/model";
interface Case {
  prompt: string;
  continuation: string;
}
const cases = expectedOf(trained);
const texts = cases.options as unknown as Case[];

test("the cases are there", () => {
  expect(llamas.length).toBeGreaterThanOrEqual(4);
  expect(texts.length).toBe(4);
});

onEachIsa((isa) => {
  describe.each(llamas)("%s", (name) => {
    const expected = expectedOf(`test/models/${name}`);
    let model: Llama;
    beforeAll(async () => {
      model = await models.DiffLlama.load(path(`test/models/${name}`));
    });
    afterAll(() => model.dispose());

    test("logits and the hidden states of every layer", async () => {
      const input = stored(expected, "input_ids");
      const ids = { data: Int32Array.from(integers(input)), shape: input.shape as [number, number] };
      const y = await model.forward(ids, { hiddenStates: true });
      const logits = stored(expected, "expected.logits");
      expect(y.shape).toEqual(logits.shape);
      close(y.data, float64(logits));
      const { hiddenStates } = y;
      if (!hiddenStates) throw new Error("no hidden states");
      const [states = 0, ...shape] = hiddenStates.shape;
      const size = hiddenStates.data.length / states;
      for (let layer = 0; layer < states; layer++) {
        const want = stored(expected, `expected.hidden_${layer}`);
        expect(shape).toEqual(want.shape);
        close(hiddenStates.data.subarray(layer * size, (layer + 1) * size), float64(want));
      }
      const last = await model.forward(ids, { logits: "last" });
      const [B = 0, L = 0, vocab = 0] = y.shape;
      expect(last.shape).toEqual([B, 1, vocab]);
      for (let b = 0; b < B; b++) {
        const row = y.data.slice(((b + 1) * L - 1) * vocab, (b + 1) * L * vocab);
        sameBits({ data: last.data.slice(b * vocab, (b + 1) * vocab), dtype: "float32" }, { data: row, dtype: "float32" });
      }
    });

    test("the highest logits, one after the other", async () => {
      const greedy = integers(stored(expected, "expected.greedy"));
      const [, L = 0] = stored(expected, "input_ids").shape;
      const prompt = integers(stored(expected, "input_ids")).slice(0, L);
      expect(greedy.slice(0, L)).toEqual(prompt);
      const [ids] = await generated(model, prompt, { maxNewTokens: greedy.length - L, stopIds: [] });
      expect(ids).toEqual(greedy.slice(L));
    });
  });

  describe("the trained model", () => {
    let model: Llama;
    beforeAll(async () => {
      model = await models.DiffLlama.load(path(trained));
    });
    afterAll(() => model.dispose());

    test("its configuration, with defaults", () => {
      expect(model.config).toMatchObject({ model_type: "diffllama", hidden_size: 256, num_hidden_layers: 8, eos_token_id: 0 });
    });

    test.each(texts.map((text, index) => [index, text] as const))("prompt %i", async (index, { prompt, continuation }) => {
      const ids = integers(stored(cases, `${index}.input_ids`));
      expect(model.encode(prompt)).toEqual(ids);
      expect(model.decode(ids)).toBe(prompt);
      const y = await model.forward(ids);
      close(y.data, float64(stored(cases, `${index}.logits`)));
      const greedy = integers(stored(cases, `${index}.greedy`)).slice(ids.length);
      const [given, text] = await generated(model, prompt, { maxNewTokens: 48, stopIds: [] });
      expect(given).toEqual(greedy);
      expect(text).toBe(continuation);
    });

    test("a batch gives each text what it gets alone", async () => {
      const options = { maxNewTokens: 20, stopIds: [] };
      const prompts = texts.map(({ prompt }) => prompt);
      const together = prompts.map(() => ({ ids: [] as number[], text: "", finish: [] as (string | null)[] }));
      const order: number[] = [];
      for await (const { id, text, index, finish } of model.generate(prompts, options)) {
        const one = together[index];
        one?.ids.push(id);
        if (one) one.text += text;
        one?.finish.push(finish);
        order.push(index);
      }
      for (const [index, prompt] of prompts.entries()) {
        const [ids, text] = await generated(model, prompt, options);
        expect(together[index]).toEqual({ ids, text, finish: [...Array<null>(19).fill(null), "length"] });
      }
      expect(order).toEqual(Array.from({ length: 80 }, (_, i) => i % 4));
    });

    test("stop strings, stop ids and the number of tokens end a text", async () => {
      const [{ prompt, continuation } = { prompt: "", continuation: "" }] = texts;
      const stop = ["Examples\n", "VecDeque"];
      const at = Math.min(...stop.map((text) => continuation.indexOf(text)));
      const tokens: modelTypes.GeneratedToken[] = [];
      for await (const token of model.generate(prompt, { maxNewTokens: 48, stopIds: [], stop })) tokens.push(token);
      expect(tokens.map(({ text }) => text).join("")).toBe(continuation.slice(0, at));
      expect(tokens.at(-1)).toMatchObject({ finish: "stop" });
      expect(tokens.slice(0, -1).every(({ finish }) => finish === null)).toBe(true);

      const [all] = await generated(model, prompt, { maxNewTokens: 48, stopIds: [] });
      const stopId = all[9] ?? -1;
      const first = all.indexOf(stopId);
      const ids: modelTypes.GeneratedToken[] = [];
      for await (const token of model.generate(prompt, { stopIds: [stopId] })) ids.push(token);
      expect(ids.map(({ id }) => id)).toEqual(all.slice(0, first + 1));
      expect(ids.at(-1)?.finish).toBe("stop");
      expect(await generated(model, prompt, { maxNewTokens: 0 })).toEqual([[], ""]);
    });

    test("a stop string ends its text of a batch alone, and what the backend computed past it is forgotten", async () => {
      const prompts = texts.map(({ prompt }) => prompt);
      const options = { maxNewTokens: 30, stopIds: [], stop: ["Examples\n", "VecDeque", "self"] };
      const alone = [];
      for (const prompt of prompts) alone.push(await generated(model, prompt, options));
      const together = prompts.map((): [number[], string] => [[], ""]);
      for await (const { id, text, index } of model.generate(prompts, options)) {
        together[index]?.[0].push(id);
        if (together[index]) together[index][1] += text;
      }
      expect(together).toEqual(alone);
      expect(new Set(alone.map(([ids]) => ids.length)).size).toBeGreaterThan(1);

      const cache = await model.createCache();
      for (const [index, prompt] of prompts.entries()) {
        expect(await generated(model, prompt, { ...options, cache })).toEqual(alone[index]);
        const ids = [...model.encode(prompt), ...(alone[index]?.[0] ?? [])];
        expect([...(await cache.export()).ids]).toEqual(ids.slice(0, -1));
      }
    });

    test("a seed decides the text, the same one on every backend", async () => {
      const options = {
        temperature: 0.9,
        topK: 50,
        topP: 0.95,
        repetitionPenalty: 1.1,
        seed: 7,
        maxNewTokens: 24,
        stopIds: [],
        deterministic: true,
      };
      const [{ prompt } = { prompt: "" }] = texts;
      const [ids] = await generated(model, prompt, options);
      expect(await generated(model, prompt, options)).toEqual([ids, model.decode(ids)]);
      expect((await generated(model, prompt, { ...options, seed: 8 }))[0]).not.toEqual(ids);
      expect(ids).toEqual(SAMPLED);
    });

    test("maps are the last layers' attention", async () => {
      const ids = model.encode(texts[0]?.prompt ?? "");
      for (const layer of [0, 7]) {
        const { map1, map2, diff } = await model.maps(ids, layer);
        for (const map of [map1, map2, diff]) expect(map?.shape).toEqual([1, 4, ids.length, ids.length]);
        const L = ids.length;
        for (const map of [map1, map2]) {
          for (let row = 0; row < 4 * L; row++) {
            const values: number[] = Array.from(map?.data.subarray(row * L, (row + 1) * L) ?? []);
            expect(values.reduce((sum, x) => sum + x, 0)).toBeCloseTo(1, 5);
            // Nothing of the future is seen.
            expect(values.slice((row % L) + 1).every((x) => x === 0)).toBe(true);
          }
        }
      }
      expect((await refused(() => model.maps(ids, 8))).message).toContain("layer");
    });

    test("a cache: forward by pieces, rewind, export and import", async () => {
      const ids = model.encode(texts[1]?.prompt ?? "");
      const whole = await model.forward(ids);
      const vocab = whole.shape[2] ?? 0;
      const cache = await model.createCache({ capacity: 16 });
      expect(cache.length).toBe(0);
      const some = model.forward(ids.slice(0, 3), { cache });
      const rest = model.forward(ids.slice(3), { cache, logits: "all" });
      const joined = Float32Array.from([...(await some).data, ...(await rest).data]);
      sameBits({ data: joined, dtype: "float32" }, whole);
      expect(cache.length).toBe(ids.length);

      await cache.rewind(4);
      expect(cache.length).toBe(4);
      sameBits(await model.forward(ids.slice(4), { cache }), {
        data: whole.data.slice(4 * vocab),
        dtype: "float32",
      });
      const state = structuredClone(await cache.export());
      expect([...state.ids]).toEqual(ids);
      expect(state).toMatchObject({ discarded: 0, window: null });
      expect(state.keys.length).toBe(8);
      const copy = await model.importCache(state);
      expect(copy.length).toBe(ids.length);
      const [a, b] = await Promise.all([model.forward([5], { cache }), model.forward([5], { cache: copy })]);
      sameBits(a, b);
      await copy.rewind(2);
      sameBits(await model.forward(ids.slice(2, 4), { cache: copy }), { data: whole.data.slice(2 * vocab, 4 * vocab), dtype: "float32" });

      const error = await refused(() => cache.rewind(100));
      expect(error.message).toBe(`length: expected at most ${ids.length + 1}, the tokens held, got 100`);
      cache.dispose();
      cache.dispose();
      expect(await refused(() => cache.length)).toMatchObject({ code: "DISPOSED" });
      expect(await refused(() => model.forward([1], { cache }))).toMatchObject({ code: "DISPOSED" });
      expect(copy.length).toBe(4);
    });

    test("texts of a batch have a cache each, of any lengths", async () => {
      const [first = [], second = []] = texts.map(({ prompt }) => model.encode(prompt));
      const caches = [await model.createCache(), await model.createCache()] as const;
      await model.forward(first, { cache: caches[0] });
      await model.forward(second, { cache: caches[1] });
      const next = { data: Int32Array.of(10, 11), shape: [2, 1] as const };
      const y = await model.forward(next, { cache: caches });
      const alone = [await model.forward([...first, 10], { logits: "last" }), await model.forward([...second, 11], { logits: "last" })];
      sameBits(y, { data: Float32Array.from(alone.flatMap(({ data }) => [...data])), dtype: "float32" });
      expect(caches.map(({ length }) => length)).toEqual([first.length + 1, second.length + 1]);
      expect(await refused(() => model.forward(next, { cache: [caches[0], caches[0]] }))).toMatchObject({ code: "OPTION" });
    });

    test("generate goes on with a cache, and computes the prompt's beginning once", async () => {
      const [{ prompt } = { prompt: "" }] = texts;
      const [all, text] = await generated(model, prompt, { maxNewTokens: 24, stopIds: [] });
      const cache = await model.createCache();
      const [begun] = await generated(model, prompt, { maxNewTokens: 12, stopIds: [], cache });
      const held = model.encode(prompt).length + 11;
      // The last token was chosen, not computed.
      expect(cache.length).toBe(held);
      const [rest] = await generated(model, [...model.encode(prompt), ...begun], { maxNewTokens: 12, stopIds: [], cache });
      expect([...begun, ...rest]).toEqual(all);
      // Another text that begins the same.
      expect(await generated(model, prompt, { maxNewTokens: 24, stopIds: [], cache })).toEqual([all, text]);

      const running = model.generate(prompt, { cache });
      await running.next();
      for (const use of [
        () => cache.rewind(1),
        () => model.forward([1], { cache }),
        () => cache.export(),
        () => model.generate("A", { cache }).next(),
      ])
        expect(await refused(use)).toMatchObject({
          code: "OPTION",
          message: "cache: expected one that no generate() is using, got one in use",
        });
      await running.return();
      await cache.rewind(1);
      expect(cache.length).toBe(1);
      expect(await refused(() => model.generate(["A", "B"], { cache }).next())).toMatchObject({ code: "OPTION" });
      expect(await refused(() => model.forward([1], { cache: 5 as never }))).toMatchObject({ code: "OPTION" });
    });

    test("a window: what a cache with one gives is what one call with it gives", async () => {
      const ids = Array.from({ length: 40 }, (_, i) => (i * 37) % 4096);
      const whole = await model.forward(ids, { window: 8, logits: "last" });
      const cache = await model.createCache({ window: 8 });
      for (let at = 0; at < 39; at += 13) await model.forward(ids.slice(at, at + 13), { cache, logits: "last" });
      sameBits(await model.forward(ids.slice(39), { cache, logits: "last" }), whole);
      expect((await cache.export()).window).toBe(8);
      expect(await refused(() => model.forward(ids, { cache, window: 8 }))).toMatchObject({ code: "OPTION" });
      const free = await model.forward(ids, { logits: "last" });
      expect(Buffer.compare(new Uint8Array(free.data.buffer), new Uint8Array(whole.data.buffer))).not.toBe(0);
    });

    test("an abort ends generation and forward, and the model goes on", async () => {
      const reason = new Error("enough");
      const controller = new AbortController();
      const seen: number[] = [];
      const error = await refused(async () => {
        for await (const { id } of model.generate(texts[0]?.prompt ?? "", { signal: controller.signal, maxNewTokens: 200 })) {
          seen.push(id);
          if (seen.length === 3) controller.abort(reason);
        }
      });
      expect(error).toMatchObject({ code: "ABORTED", name: "AbortError", cause: reason });
      expect(seen.length).toBe(3);

      const long = Array.from({ length: 480 }, (_, i) => i);
      const second = new AbortController();
      const cache = await model.createCache();
      const call = model.forward(long, { cache, signal: second.signal, onProgress: () => second.abort(reason) });
      expect(await refused(() => call)).toMatchObject({ code: "ABORTED", cause: reason });
      expect(cache.length).toBe(0);
      expect(await refused(() => model.forward([1], { signal: AbortSignal.abort(reason) }))).toMatchObject({ code: "ABORTED" });
      expect((await model.forward([1], { cache })).shape).toEqual([1, 1, 4096]);
      expect(cache.length).toBe(1);
    });

    test("leaving the loop ends generation, and so does the cache's loan", async () => {
      const cache = await model.createCache();
      for await (const token of model.generate(texts[0]?.prompt ?? "", { cache })) {
        expect(token.index).toBe(0);
        break;
      }
      expect(cache.length).toBe(4);
      expect((await cache.export()).ids.length).toBe(4);
    });

    test("progress of forward", async () => {
      const told: { done: number; total: number }[] = [];
      await model.forward(
        Array.from({ length: 200 }, (_, i) => i),
        { onProgress: (progress) => told.push(progress) },
      );
      expect(told.length).toBeGreaterThan(1);
      expect(told.every(({ done, total }, i) => done <= total && done >= (told[i - 1]?.done ?? 0))).toBe(true);
    });

    test("what is wrong is named", async () => {
      const named = async (body: () => unknown): Promise<string> => {
        const { code, message } = await refused(body);
        return `${code} ${message}`;
      };
      expect(await named(() => model.forward([4096]))).toMatch(/^OPTION ids.*4096/);
      expect(await named(() => model.forward([1.5]))).toBe("OPTION ids[0]: expected a token id, got 1.5");
      expect(await named(() => model.forward("text" as never))).toMatch(/^DTYPE ids: expected token ids/);
      expect(await named(() => model.forward({ data: Int32Array.of(1), shape: [1, 2] }))).toBe(
        "SHAPE ids: expected 2 ids for [1, 2], got 1",
      );
      expect(await named(() => model.forward([1], { what: 1 } as never))).toMatch(/^OPTION options: expected only .*, got "what"/);
      expect(await named(() => model.forward([1], { logits: "none" as never }))).toBe(
        'OPTION logits: expected "all" or "last", got "none"',
      );
      expect(await named(() => model.generate([]).next())).toMatch(/^OPTION prompt/);
      expect(await named(() => model.generate("A", { topP: 2 }).next())).toMatch(/^OPTION topP/);
      expect(await named(() => model.generate("A", { topK: 0 }).next())).toMatch(/^OPTION topK/);
      expect(await named(() => model.generate("A", { seed: -1 }).next())).toMatch(/^OPTION seed/);
      expect(await named(() => model.generate("A", { maxNewTokens: 1.5 }).next())).toMatch(/^OPTION maxNewTokens/);
      expect(await named(() => model.generate("A", { stop: "" }).next())).toMatch(/^OPTION stop/);
      expect(await named(() => model.createCache({ window: 0 }))).toMatch(/^OPTION window/);
      expect(await named(() => model.importCache({} as never))).toMatch(/^DTYPE state.ids/);
    });
  });

  test("a model is gone after dispose, and after the backend's end", async () => {
    const folder = path("test/models/diffllama_gqa");
    const model = await models.DiffLlama.load(folder);
    const cache = await model.createCache();
    const running = model.generate([1, 2], { stopIds: [] });
    await running.next();
    const open = model.forward([1, 2, 3]);
    model.dispose();
    model.dispose();
    expect((await open).shape).toEqual([1, 3, 97]);
    for (const use of [() => model.forward([1]), () => running.next(), () => model.createCache(), () => model.maps([1], 0)])
      expect(await refused(use)).toMatchObject({ code: "DISPOSED" });
    expect(cache.length).toBe(0);
    cache.dispose();

    const other = await models.DiffLlama.load(folder);
    api.dispose();
    expect(await refused(() => other.forward([1]))).toMatchObject({ code: "UNAVAILABLE" });
    await api.init({ backend, isa });
    const again = await models.DiffLlama.load(folder);
    expect((await again.forward([1])).shape).toEqual([1, 1, 97]);
    again.dispose();
  });

  test("operators and models side by side", async () => {
    const model = await models.DiffLlama.load(path("test/models/diffllama_mha"));
    const x = { data: Float32Array.of(3, 4), shape: [1, 2] };
    const [logits, y] = await Promise.all([model.forward([1, 2, 3]), api.rmsNorm(x, { eps: 0 })]);
    expect(logits.shape).toEqual([1, 3, 97]);
    sameBits(y, api.rmsNormSync(x, { eps: 0 }));
    model.dispose();
  });

  describe("diff_vit", () => {
    const expected = expectedOf("test/models/diff_vit");
    let model: modelTypes.DiffViT;
    beforeAll(async () => {
      model = await models.DiffViT.load(path("test/models/diff_vit"));
    });
    afterAll(() => model.dispose());
    const pixels = stored(expected, "image");
    const logits = stored(expected, "expected.logits");
    const image = (seed: number, width: number, height: number, channels: number): modelTypes.ImageLike => {
      const next = uniform(seed);
      return { width, height, data: Uint8Array.from({ length: width * height * channels }, () => Math.floor(next() * 256)) };
    };

    test("logits of pixels", async () => {
      const shape = pixels.shape;
      const y = await model.forward({ data: float32(pixels), shape, dims: shape, dtype: "float32", type: "float32" });
      expect(y.shape).toEqual(logits.shape);
      close(y.data, float64(logits));
    });

    test("classes of an image: the softmax of its logits, the likeliest first", async () => {
      const one = image(1, 90, 70, 3);
      const y = await model.forward(one);
      const sum = y.data.reduce((sum, x) => sum + Math.exp(x), 0);
      const top = [...y.data.entries()].sort(([, a], [, b]) => b - a).slice(0, 3);
      const classes = await model.classify(one, { top: 3 });
      expect(classes.map(({ index }) => index)).toEqual(top.map(([index]) => index));
      classes.forEach(({ probability, label }, i) => {
        expect(probability).toBeCloseTo(Math.exp(top[i]?.[1] ?? NaN) / sum, 6);
        expect(label).toBeNull();
      });
      expect((await model.classify(one)).length).toBe(5);
    });

    test("RGB and RGBA, several images, and each as alone", async () => {
      const rgb = image(2, 64, 64, 3);
      const rgba = new Uint8ClampedArray(64 * 64 * 4).map((_, i) => (i % 4 === 3 ? 255 : (rgb.data[Math.floor(i / 4) * 3 + (i % 4)] ?? 0)));
      const other = image(3, 40, 120, 4);
      const both = await model.forward([{ ...rgb, data: rgba }, other]);
      expect(both.shape).toEqual([2, 10]);
      const [a, b] = [await model.forward(rgb), await model.forward(other)];
      sameBits(both, { data: Float32Array.from([...a.data, ...b.data]), dtype: "float32" });
    });

    test("maps: each row of a map sums to one", async () => {
      const { map1, map2, diff } = await model.maps(image(4, 64, 64, 3), 1);
      const N = 17;
      for (const map of [map1, map2, diff]) expect(map?.shape).toEqual([1, 2, N, N]);
      for (const map of [map1, map2]) {
        for (let row = 0; row < 2 * N; row++) {
          expect(map?.data.subarray(row * N, (row + 1) * N).reduce((sum, x) => sum + x, 0)).toBeCloseTo(1, 5);
        }
      }
    });

    test("labels come from the configuration", async () => {
      const files = ["config.json", "model.safetensors"].map((name) => [name, readFileSync(path(`test/models/diff_vit/${name}`))] as const);
      const config = JSON.parse(files[0]?.[1].toString() ?? "") as Record<string, unknown>;
      const names = Array.from({ length: 10 }, (_, i) => `class ${i}`);
      for (const labels of [{ label_names: names }, { id2label: Object.fromEntries(names.entries()) }]) {
        const source = { ...Object.fromEntries(files), "config.json": new TextEncoder().encode(JSON.stringify({ ...config, ...labels })) };
        const labelled = await models.DiffViT.load(source);
        for (const { index, label } of await labelled.classify(image(5, 64, 64, 3))) expect(label).toBe(`class ${index}`);
        labelled.dispose();
      }
    });

    test("what is no image", async () => {
      const named = async (body: () => unknown): Promise<string> => {
        const { code, message } = await refused(body);
        return `${code} ${message}`;
      };
      expect(await named(() => model.forward({ width: 2, height: 2, data: new Uint8Array(13) }))).toBe(
        "SHAPE image: expected 2 × 2 × 3 bytes (RGB) or × 4 (RGBA), got 13 bytes",
      );
      expect(await named(() => model.forward({ width: 0, height: 2, data: new Uint8Array(0) }))).toMatch(/^SHAPE image.width/);
      expect(await named(() => model.classify(new Uint8Array(5) as never))).toMatch(/^DTYPE image/);
      expect(await named(() => model.classify(image(1, 8, 8, 3), { top: 11 }))).toMatch(/^OPTION top/);
      expect(await named(() => model.maps(image(1, 8, 8, 3), 3))).toMatch(/^OPTION layer/);
    });
  });
});

test("the kinds of models are told apart", async () => {
  await api.init({ backend, isa: isas[0] });
  expect((await refused(() => models.DiffLlama.load(path("test/models/diff_vit")))).code).toBe("FILE");
  expect((await refused(() => models.DiffViT.load(path(trained)))).code).toBe("FILE");
  expect(isNative).toBe(api.info().backend === "native");
  api.dispose();
});

/** What seed 7 gives, unfused: computed once, on native. */
const SAMPLED = [2702, 333, 273, 647, 412, 199, 0, 199, 445, 273, 70, 1266, 63, 84, 64, 1233, 3217, 277, 578, 356, 270, 283, 2016, 344];
