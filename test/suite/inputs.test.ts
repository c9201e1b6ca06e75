// Inputs of async calls that are written to right after the call began: every one but memory of
// createTensor is what it was at the call. Memory of createTensor belongs to the call until it
// settles: the result is anything then, and nothing crashes.

import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, models, onEachIsa } from "./backends.js";
import { sameBits } from "./compare.js";
import { normal, qkv } from "./random.js";

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));

/** Writes nonsense over all that can be written to, deep down. */
function spoil(x: unknown): void {
  if (typeof x !== "object" || x === null) return;
  if (ArrayBuffer.isView(x)) new Uint8Array(x.buffer, x.byteOffset, x.byteLength).fill(0xff);
  else if (Array.isArray(x)) x.forEach((item, i) => (typeof item === "object" ? spoil(item) : (x[i] = -7)));
  else for (const value of Object.values(x)) spoil(value);
}

/**
 * The result of a call that is left alone, and of one whose arguments are spoilt as soon as it
 * began.
 */
async function twice<R, A extends unknown[]>(make: () => A, call: (...args: A) => Promise<R>): Promise<[R, R]> {
  const want = await call(...make());
  const args = make();
  // Something before it, so that it waits for its turn.
  const before = api.diffAttention(...qkv(50, { Lq: 300 }), { lambda: 0.1 });
  const got = call(...args);
  spoil(args);
  await before;
  return [want, await got];
}

const all = (y: types.TensorWithLse | types.Tensor): types.Tensor[] => ("lse" in y ? [y, y.lse] : [y]);

onEachIsa(() => {
  test("attention, with every option that is an array", async () => {
    const [B, H, L] = [2, 2, 33];
    const make = (): [types.TensorLike<Float32Array>, types.TensorLike, types.TensorLike, types.DiffAttentionOptions] => [
      ...qkv(1, { B, H, Lq: L }),
      {
        lambda: { data: normal(4, B, L, H).data, shape: [B, L, H] },
        attnMask: { data: Uint8Array.from({ length: B * L * L }, (_, i) => Number(i % 3 > 0)), shape: [B, 1, L, L] },
        attnBias: normal(5, B, 1, L, L),
        keyLengths: Int32Array.of(30, 21),
        queryOffset: [1, 2],
        window: [20, 3],
        norm: { weight: normal(6, 32).data, eps: 1e-5 },
        returnLse: true,
      },
    ];
    const [want, got] = await twice(make, (q, k, v, options) => api.diffAttention(q, k, v, options));
    expect(all(want).length).toBe(2);
    for (const [i, tensor] of all(want).entries()) sameBits(all(got)[i] as types.Tensor, tensor);
  });

  test("a plan's heads, coefficients, lambda by heads, packed sequences, maps", async () => {
    const packed = (): [types.TensorLike<Float32Array>, types.TensorLike, types.TensorLike, types.DiffAttentionOptions] => [
      ...qkv(1, { Lq: 30 }),
      { lambda: normal(2, 2).data, cuSeqlensQ: Int32Array.of(0, 11, 30), cuSeqlensK: Int32Array.of(0, 11, 30) },
    ];
    const [want, got] = await twice(packed, (q, k, v, options) => api.diffAttention(q, k, v, options));
    sameBits(got, want);
    const planned = (): [types.TensorLike<Float32Array>, types.TensorLike, types.TensorLike, types.DiffAttentionOptions] => [
      ...qkv(1, { Lq: 30 }),
      { heads: [{ q: [0, 1], k: [1, 0], v: [1], coefficients: [1, -0.25] }] },
    ];
    const [wanted, given] = await twice(planned, (q, k, v, options) => api.diffAttention(q, k, v, options));
    sameBits(given, wanted);
    const mapped = (): [types.TensorLike, types.TensorLike, types.DiffAttentionMapsOptions] => {
      const [q, k] = qkv(3, { Lq: 30 });
      return [q, k, { coefficients: [1, -0.4], rows: [3, 20] }];
    };
    const [first, second] = await twice(mapped, (q, k, options) => api.diffAttentionMaps(q, k, options));
    sameBits(second.diff, first.diff);
  });

  test("norms, rope, differences, of halves too", async () => {
    const x = (): types.TensorLike<Float32Array> => normal(1, 2, 8, 6, 16);
    const bits = (): types.TensorLike<Uint16Array> => ({
      data: Uint16Array.from({ length: 64 }, (_, i) => 0x3f80 + i),
      shape: [4, 16],
      dtype: "bfloat16",
    });
    for (const [want, got] of [
      await twice(
        () => [x(), { numGroups: 4, weight: normal(2, 8), bias: normal(3, 8).data }] as const,
        (x, options) => api.groupNorm(x, options),
      ),
      await twice(
        () => [x(), { weight: normal(2, 16).data }] as const,
        (x, options) => api.rmsNorm(x, options),
      ),
      await twice(
        () => [x(), { positions: { data: Int32Array.from({ length: 12 }, (_, i) => i), shape: [2, 6] } }] as const,
        (x, options) => api.applyRope(x, options),
      ),
      await twice(
        () => [x(), { firstPosition: Int32Array.of(3, 4) }] as const,
        (x, options) => api.applyRope(x, options),
      ),
      await twice(
        () => [x()] as const,
        (x) => api.sequenceDifference(x),
      ),
      await twice(
        () => [bits()] as const,
        (x) => api.rmsNorm(x) as Promise<types.Tensor<never>>,
      ),
    ])
      sameBits(got, want);
  });

  test("weights of a layer, what a cache was given, x and masks of forward", async () => {
    const weights = (): types.LayerWeights => ({
      "q_proj.weight": normal(1, 32, 16),
      "k_proj.weight": normal(2, 16, 16),
      "v_proj.weight": normal(3, 16, 16),
      "o_proj.weight": normal(4, 16, 16),
      "lambda_proj.weight": normal(5, 2, 16),
    });
    const make = (): [types.LayerWeights, types.TensorLike<Float32Array>, types.LayerForwardOptions] => [
      weights(),
      normal(6, 1, 5, 16),
      { attnMask: { data: Uint8Array.from({ length: 25 }, (_, i) => Number(i % 4 > 0)), shape: [1, 1, 5, 5] } },
    ];
    const [want, got] = await twice(make, (weights, x, options) => {
      const layer = new api.MultiheadDiffAttnV2({ embedDim: 16, numHeads: 2, headDim: 8, weights });
      return layer.forward(x, options).finally(() => layer.dispose());
    });
    sameBits(got, want);

    const given = (): [types.TensorLike<Float32Array>, types.TensorLike, types.TensorLike] => qkv(7, { Lq: 20 });
    const [appended, spoilt] = await twice(given, (q, k, v) => {
      const cache = new api.KvCache({ groups: 2, headDim: 16, valueDim: 32 });
      cache.append(k, v);
      return api.diffAttention(q, cache, null, { lambda: 0.3 }).finally(() => cache.dispose());
    });
    sameBits(spoilt, appended);
  });

  test("ids, images, pixels and states of a cache", async () => {
    const llama = await models.DiffLlama.load(path("test/models/diffllama_gqa"));
    const vit = await models.DiffViT.load(path("test/models/diff_vit"));
    for (const ids of [
      () => [1, 5, 9],
      () => Int32Array.of(1, 5, 9),
      () => ({ data: Int32Array.of(1, 5, 9, 3), shape: [2, 2] as [number, number] }),
    ]) {
      const [want, got] = await twice(
        () => [ids()] as [modelTypes.TokenIds],
        (ids) => llama.forward(ids),
      );
      sameBits(got, want);
      // The prompt is that of the call, though nothing is done before the first token is asked for.
      const [text, same] = await twice(
        () => [ids()] as [modelTypes.TokenIds],
        async (ids) => {
          const generated: number[] = [];
          const tokens = llama.generate(ids, { maxNewTokens: 3, stopIds: [] });
          await Promise.resolve();
          for await (const { id } of tokens) generated.push(id);
          return generated;
        },
      );
      expect(same).toEqual(text);
    }
    const [batch, spoiltBatch] = await twice(
      () => [[[1, 2], [3]]] as [number[][]],
      async (ids) => {
        const tokens = llama.generate(ids, { maxNewTokens: 2, stopIds: [] });
        await Promise.resolve();
        const generated: number[] = [];
        for await (const { id } of tokens) generated.push(id);
        return generated;
      },
    );
    expect(spoiltBatch).toEqual(batch);

    const image = (): modelTypes.ImageLike => ({
      width: 64,
      height: 64,
      data: Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7) % 256),
    });
    const [logits, spoiltLogits] = await twice(
      () => [[image(), image()]] as [modelTypes.ImageLike[]],
      (images) => vit.forward(images),
    );
    sameBits(spoiltLogits, logits);
    const [classes, spoiltClasses] = await twice(
      () => [image()] as const,
      (image) => vit.classify(image),
    );
    expect(spoiltClasses).toEqual(classes);
    const [pixels, spoiltPixels] = await twice(
      () => [normal(1, 1, 3, 64, 64)] as const,
      (x) => vit.forward(x as unknown as types.Tensor),
    );
    sameBits(spoiltPixels, pixels);

    const cache = await llama.createCache();
    await llama.forward([1, 5, 9], { cache });
    const state = await cache.export();
    const [continued, spoiltContinued] = await twice(
      () => [structuredClone(state)] as [modelTypes.ModelCacheState],
      async (state) => {
        const again = await llama.importCache(state);
        return llama.forward([3], { cache: again }).finally(() => again.dispose());
      },
    );
    sameBits(spoiltContinued, continued);
    for (const object of [cache, llama, vit]) object.dispose();
  });

  test("memory of createTensor: the sync forms and an undisturbed call read it; writing to it meanwhile ends nothing", async () => {
    const inputs = qkv(9, { Lq: 200, d: 32 });
    const want = api.diffAttentionSync(...inputs, { lambda: 0.3 });
    const tensors = inputs.map(({ data, shape }) => {
      const tensor = api.createTensor(shape);
      tensor.data.set(data);
      return tensor;
    }) as [types.BackendTensor<Float32Array>, types.BackendTensor<Float32Array>, types.BackendTensor<Float32Array>];
    sameBits(api.diffAttentionSync(...tensors, { lambda: 0.3 }), want);
    sameBits(await api.diffAttention(...tensors, { lambda: 0.3 }), want);
    for (let round = 0; round < 200; round++) {
      const call = api.diffAttention(...tensors, { lambda: 0.3 });
      for (let i = 0; i < 5; i++) {
        for (const { data } of tensors) data.fill([NaN, Infinity, round, -0, 1e38][i] ?? 0);
        await Promise.resolve();
      }
      if (round % 4 === 0) await new Promise((resolve) => setImmediate(resolve));
      for (const { data } of tensors) data.fill(round);
      expect((await call).shape).toEqual(want.shape);
    }
    // Given back in the middle of a call, too.
    const open = api.diffAttention(...tensors, { lambda: 0.3 });
    for (const tensor of tensors) tensor.dispose();
    expect((await open).shape).toEqual(want.shape);
    sameBits(await api.diffAttention(...inputs, { lambda: 0.3 }), want);
  });
});
