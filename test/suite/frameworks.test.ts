// Objects, tensors and options that a framework holds: behind the proxies of Vue, MobX and Immer,
// behind anybody's proxy, frozen. Each works as it does alone, or is refused by an error that says
// how to keep it as it is.

import { isProxy, reactive, readonly, ref, shallowReactive, shallowRef } from "@vue/reactivity";
import { produce } from "immer";
import { autorun, observable, runInAction } from "mobx";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, isas, models, refused } from "./backends.js";
import { sameBits } from "./compare.js";
import { normal, qkv } from "./random.js";

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const [q, k, v] = qkv(1, { Lq: 12, H: 1, d: 4 });
const x = normal(4, 1, 3, 16);
const options: types.DiffAttentionOptions = { lambda: Float32Array.of(0.3), window: [3, 0], norm: { eps: 1e-5 } };

const weight = (seed: number): types.TensorLike => normal(seed, 16, 16);
const layers = {
  MultiheadDiffAttn: () =>
    new api.MultiheadDiffAttn({
      embedDim: 16,
      depth: 0,
      numHeads: 2,
      norm: { affine: false },
      weights: {
        "q_proj.weight": weight(1),
        "k_proj.weight": weight(2),
        "v_proj.weight": weight(3),
        "out_proj.weight": weight(4),
        ...Object.fromEntries(["q1", "k1", "q2", "k2"].map((name, i) => [`lambda_${name}`, normal(5 + i, 4).data])),
      },
    }),
  MultiheadDiffAttnV2: () =>
    new api.MultiheadDiffAttnV2({
      embedDim: 16,
      numHeads: 2,
      headDim: 8,
      weights: {
        "q_proj.weight": normal(1, 32, 16),
        "k_proj.weight": weight(2),
        "v_proj.weight": weight(3),
        "o_proj.weight": weight(4),
        "lambda_proj.weight": normal(5, 2, 16),
      },
    }),
};

/** What keeps an object and gives it back. */
type Keep = <T extends object>(x: T) => T;

/**
 * As the deep proxies of many libraries: every object that is read through it is a proxy again,
 * whatever it is.
 */
const deep: Keep = (x) =>
  new Proxy(x, {
    get(target, key, receiver): unknown {
      const value: unknown = Reflect.get(target, key, receiver);
      const isPlain = typeof value === "object" && value !== null && !ArrayBuffer.isView(value) && !(value instanceof Promise);
      return isPlain ? deep(value) : value;
    },
  });

const keeps: Record<string, Keep> = {
  "Vue's reactive": (x) => (reactive({ x }) as unknown as { x: typeof x }).x,
  "Vue's reactive itself": (x) => reactive(x) as typeof x,
  "Vue's ref": (x) => (ref(x) as unknown as { value: typeof x }).value,
  "Vue's readonly": (x) => (readonly({ x }) as unknown as { x: typeof x }).x,
  "Vue's shallowReactive": (x) => shallowReactive({ x }).x,
  "Vue's shallowRef": (x) => (shallowRef(x) as unknown as { value: typeof x }).value,
  "MobX's observable": (x) => observable({ x }).x,
  "MobX's deep box": (x) => observable.box(x).get(),
  "Immer's produce": (x) => produce({ x, other: 1 }, (draft) => void (draft.other = 2)).x,
  "a proxy": (x) => new Proxy(x, {}),
  "a deep proxy": deep,
  "a frozen object": (x) => Object.freeze({ x }).x,
};

beforeAll(async () => {
  await api.init({ backend, isa: isas[0] });
});
afterAll(() => api.dispose());

test("Vue does make proxies of what is plain", () => {
  expect(isProxy(reactive({ x: q }).x)).toBe(true);
});

describe.each(Object.entries(keeps))("%s", (_, keep) => {
  test("tensors and options", async () => {
    const want = api.diffAttentionSync(q, k, v, options);
    // (Copies: Immer freezes what it is given.)
    const held = [q, k, v].map(({ data, shape }) => keep({ data, shape: [...shape] })) as [typeof q, typeof k, typeof v];
    sameBits(await api.diffAttention(...held, keep({ ...options })), want);
    sameBits(api.diffAttentionSync(...held, keep({ ...options })), want);
    const ids = keep({ data: Int32Array.of(0, 1, 2), shape: [1, 3] });
    sameBits(
      api.applyRopeSync(keep({ ...x, shape: [1, 1, 3, 16] }), keep({ positions: ids })),
      api.applyRopeSync({ ...x, shape: [1, 1, 3, 16] }),
    );
    sameBits(keep(want), want);
  });

  test("KvCache", async () => {
    const want = api.diffAttentionSync(q, k, v, options);
    const cache = keep(new api.KvCache({ groups: 1, headDim: 4, valueDim: 8 }));
    cache.append(k, v);
    expect(cache.length).toBe(12);
    sameBits(api.diffAttentionSync(q, cache, null, options), want);
    sameBits(await api.diffAttention(q, cache, null, options), want);
    cache.rewind(3);
    expect(cache.length).toBe(3);
    cache.dispose();
    cache.dispose();
    expect(await refused(() => cache.length)).toMatchObject({ code: "DISPOSED" });
  });

  test.each(Object.entries(layers))("%s", async (_, make) => {
    const own = make();
    const layer = keep(make());
    const cache = keep(new api.KvCache({ groups: 2, headDim: 4, valueDim: 8, terms: 2 }));
    sameBits(layer.forwardSync(x), own.forwardSync(x));
    sameBits(await layer.forward(keep({ ...x })), own.forwardSync(x));
    if (own instanceof api.MultiheadDiffAttn) sameBits(await layer.forward(x, { cache }), own.forwardSync(x));
    sameBits((await layer.maps(x)).diff, own.mapsSync(x).diff);
    sameBits(layer.mapsSync(x).diff, own.mapsSync(x).diff);
    layer.setWeights(keep({ "k_proj.weight": weight(9) }));
    own.setWeights({ "k_proj.weight": weight(9) });
    sameBits(layer.forwardSync(x), own.forwardSync(x));
    const { dx } = own.vjpSync(x).backward(x);
    const passes = [keep(await layer.vjp(keep({ ...x }))), keep(layer.vjpSync(x))];
    for (const pass of passes) {
      sameBits((await pass.backward(keep({ ...x }))).dx, dx);
      pass.dispose();
      expect(await refused(() => pass.backward(x))).toMatchObject({ code: "DISPOSED" });
    }
    layer.dispose();
    expect(await refused(() => layer.forward(x))).toMatchObject({ code: "DISPOSED" });
    for (const object of [own, cache]) object.dispose();
  });

  test("a tensor of createTensor", async () => {
    const own = api.createTensor([1, 3, 16]);
    const tensor = keep(own);
    tensor.data.set(x.data);
    sameBits(api.rmsNormSync(tensor), api.rmsNormSync(x));
    sameBits(await api.rmsNorm(tensor), api.rmsNormSync(x));
    tensor.dispose();
    expect(await refused(() => tensor.data)).toMatchObject({ code: "DISPOSED" });
    expect(await refused(() => own.data)).toMatchObject({ code: "DISPOSED" });
  });

  test("DiffLlama and its caches", async () => {
    const own = await models.DiffLlama.load(path("test/models/diffllama_gqa"));
    const model = keep(await models.DiffLlama.load(path("test/models/diffllama_gqa")));
    const want = await own.forward([1, 5, 9]);
    sameBits(await model.forward([1, 5, 9]), want);
    sameBits(await model.forward(keep([1, 5, 9])), want);
    const given = async (of: modelTypes.DiffLlama, generating?: modelTypes.GenerateOptions): Promise<number[]> => {
      const ids: number[] = [];
      for await (const { id } of of.generate([1, 2], { maxNewTokens: 3, stopIds: [], ...generating })) ids.push(id);
      return ids;
    };
    const cache = keep(await model.createCache());
    expect(await given(model, { cache })).toEqual(await given(own));
    expect(cache.length).toBe(4);
    await cache.rewind(1);
    sameBits(await model.forward([2], { cache }), { ...want, data: (await own.forward([1, 2])).data.slice(-97) });
    const again = keep(await model.importCache(keep(await cache.export())));
    expect(again.length).toBe(2);
    sameBits((await model.maps([1, 5], 0)).diff, (await own.maps([1, 5], 0)).diff);
    expect(model.config["vocab_size"]).toBe(97);
    for (const object of [again, cache, model, own]) object.dispose();
    expect(await refused(() => model.forward([1]))).toMatchObject({ code: "DISPOSED" });
    expect(await refused(() => cache.length)).toMatchObject({ code: "DISPOSED" });
  });

  test("DiffViT and images", async () => {
    const own = await models.DiffViT.load(path("test/models/diff_vit"));
    const model = keep(await models.DiffViT.load(path("test/models/diff_vit")));
    const image = { width: 64, height: 64, data: Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7) % 256) };
    sameBits(await model.forward(keep({ ...image })), await own.forward(image));
    expect(await model.classify(keep({ ...image }), { top: 2 })).toEqual(await own.classify(image, { top: 2 }));
    sameBits((await model.maps(image, 0)).diff, (await own.maps(image, 0)).diff);
    for (const object of [model, own]) object.dispose();
    expect(await refused(() => model.forward(image))).toMatchObject({ code: "DISPOSED" });
  });

  test("an open file, and files by name", async () => {
    const bytes = readFileSync(path("test/models/diffllama_gqa/model.safetensors"));
    const file = keep(await models.openSafetensors(keep({ "model.safetensors": bytes })));
    const [name = ""] = file.names;
    const read = await file.read(name);
    sameBits(await file.readFloat32(name), { data: new Float32Array(read.data.slice().buffer), dtype: "float32" });
    expect(await models.inspectCheckpoint(file)).toMatchObject({ architecture: "diffllama" });
    const saved = await models.saveSafetensors(keep({ [name]: keep({ ...read }) }), keep({ metadata: { a: "b" } }));
    expect((await models.openSafetensors(saved as Uint8Array)).metadata).toEqual({ a: "b" });
    file.dispose();
    expect(await refused(() => file.read(name))).toMatchObject({ code: "DISPOSED" });
  });
});

test("drafts that are revoked while a call is under way", async () => {
  const want = api.diffAttentionSync(q, k, v, options);
  const tensors = structuredClone({ q, k, v });
  const state = { tensors, options: { ...options, out: new Float32Array(want.data.length) } };
  let call: Promise<types.Tensor> | undefined;
  produce(state, (draft) => {
    const { tensors } = draft;
    call = api.diffAttention(tensors.q, tensors.k, tensors.v, draft.options as types.DiffAttentionOptions);
  });
  const y = (await call) as types.Tensor;
  expect(y.data).toBe(state.options.out);
  sameBits(y, want);
  // Immer froze it.
  expect(Object.isFrozen(produce(state, (draft) => void (draft.options.scale = 1)).options)).toBe(true);
});

test("what is observed may change a tensor between two calls", () => {
  const state = observable({ tensor: { data: x.data, shape: [1, 3, 16] } });
  const seen: number[][] = [];
  const stop = autorun(() => seen.push([...api.rmsNormSync(state.tensor).shape]));
  runInAction(() => (state.tensor.shape = [3, 16]));
  stop();
  expect(seen).toEqual([
    [1, 3, 16],
    [3, 16],
  ]);
});

describe("where an object cannot be got at", () => {
  /** Wraps functions and what they give, too. */
  const membrane = (x: unknown): unknown =>
    (typeof x === "object" && x !== null) || typeof x === "function"
      ? new Proxy(x, {
          get: (target, key) => membrane(Reflect.get(target, key)),
          apply: (target, self, args) => membrane(Reflect.apply(target as () => unknown, self, args)),
        })
      : x;
  const sentence = /: expected the object itself, or a proxy that leads to it \(Vue: markRaw keeps it as it is\), got /;

  test("an error says so, in the form that the method has", async () => {
    const cache = membrane(new api.KvCache({ groups: 1, headDim: 4, valueDim: 8 })) as types.KvCache;
    for (const use of [() => cache.append(k, v), () => cache.dispose(), () => api.diffAttentionSync(q, cache, null, options)])
      expect(await refused(use)).toMatchObject({ code: "OPTION", message: expect.stringMatching(sentence) as unknown });
    const model = await models.DiffLlama.load(path("test/models/diffllama_gqa"));
    const behind = membrane(model) as modelTypes.DiffLlama;
    const error = await refused(() => behind.encode("a"));
    expect(error).toMatchObject({ code: "OPTION", message: expect.stringMatching(sentence) as unknown });
    // A method without its object.
    const { forward, dispose } = model as unknown as Record<string, (ids?: number[]) => Promise<unknown>>;
    if (!forward || !dispose) throw new Error("no methods");
    let rejected: unknown;
    await forward([1]).catch((error: unknown) => (rejected = error));
    expect(rejected).toMatchObject({ code: "OPTION", message: expect.stringMatching(/^this.*got undefined$/) as unknown });
    expect(await refused(() => dispose())).toMatchObject({ code: "OPTION" });
    model.dispose();
  });
});
