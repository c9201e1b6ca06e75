// Layers with their backward pass, and with new weights, beyond their reference cases
// (fixtures.test.ts): the same bits everywhere, which weights a call sees, what is kept and for how
// long, aborts, refusals.

import { afterAll, describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, isas, onEachIsa, refused } from "./backends.js";
import { hash, sameBits } from "./compare.js";
import { normal } from "./random.js";

type Plain = ReturnType<typeof normal>;
type Weights = Record<string, Plain>;

/** A tensor of small values, as weights are. */
const small = (seed: number, ...shape: number[]): Plain => {
  const { data } = normal(seed, ...shape);
  return { data: data.map((x) => 0.3 * x), shape };
};

const ofV1 = (seed: number): Weights => ({
  "q_proj.weight": small(seed, 24, 24),
  "q_proj.bias": small(seed + 1, 24),
  "k_proj.weight": small(seed + 2, 24, 24),
  "v_proj.weight": small(seed + 3, 24, 24),
  "out_proj.weight": small(seed + 4, 24, 24),
  lambda_q1: small(seed + 5, 6),
  lambda_k1: small(seed + 6, 6),
  lambda_q2: small(seed + 7, 6),
  lambda_k2: small(seed + 8, 6),
  "subln.weight": normal(seed + 9, 12),
});
const ofV2 = (seed: number): Weights => ({
  "q_proj.weight": small(seed, 48, 24),
  "k_proj.weight": small(seed + 1, 12, 24),
  "v_proj.weight": small(seed + 2, 12, 24),
  "o_proj.weight": small(seed + 3, 24, 24),
  "lambda_proj.weight": small(seed + 4, 4, 24),
  "lambda_proj.bias": small(seed + 5, 4),
});
const rope = { interleaved: true };
const layers: Record<string, { weights: (seed: number) => Weights; make: (weights: types.LayerWeights) => types.DiffAttnLayer }> = {
  MultiheadDiffAttn: {
    weights: ofV1,
    make: (weights) => new api.MultiheadDiffAttn({ embedDim: 24, depth: 1, numHeads: 2, rope, weights }),
  },
  "MultiheadDiffAttn with differences": {
    weights: ofV1,
    make: (weights) =>
      new api.MultiheadDiffAttn({ embedDim: 24, depth: 1, numHeads: 2, rope, weights, sequence: { order: 2, share: 0.5, fusion: 0.25 } }),
  },
  MultiheadDiffAttnV2: {
    weights: ofV2,
    make: (weights) => new api.MultiheadDiffAttnV2({ embedDim: 24, numHeads: 4, numKvHeads: 2, headDim: 6, rope, weights }),
  },
};

const x = normal(60, 2, 70, 24);
const dy = normal(61, 2, 70, 24);
/** What each of 70 tokens sees besides itself: every third one. */
const attnMask = {
  data: Uint8Array.from({ length: 70 * 70 }, (_, i) => Number(i % 3 === 0 || Math.floor(i / 70) === i % 70)),
  shape: [1, 1, 70, 70],
};

/** The tensors of a pass and its gradients, in order. */
const all = (y: types.Tensor, { dx, weights }: types.LayerGradients): types.Tensor[] => [y, dx, ...Object.values(weights)];

function same(a: readonly types.Tensor[], b: readonly types.Tensor[]): void {
  expect(a.length).toBe(b.length);
  for (const [i, one] of a.entries()) {
    expect(one.shape).toEqual(b[i]?.shape);
    sameBits(one, b[i] as types.Tensor);
  }
}

function passSync(layer: types.DiffAttnLayer, options?: types.LayerVjpOptions): types.Tensor[] {
  const { y, backward, dispose } = layer.vjpSync(x, options);
  const tensors = all(y, backward(dy));
  dispose();
  return tensors;
}

async function pass(layer: types.DiffAttnLayer, options?: types.LayerVjpOptions): Promise<types.Tensor[]> {
  const { y, backward, dispose } = await layer.vjp(x, options);
  const tensors = all(y, await backward(dy));
  dispose();
  return tensors;
}

describe("between instruction sets", () => {
  afterAll(() => api.dispose());

  /** The hash of passes of every layer on some backend. */
  async function hashOn(other: types.InitOptions): Promise<string> {
    await api.init(other);
    return hash(
      Object.values(layers).flatMap(({ make, weights }) => {
        const layer = make(weights(1));
        const tensors = [...passSync(layer), ...passSync(layer, { attnMask })];
        layer.dispose();
        return tensors;
      }),
    );
  }

  test.each(isas)("%s has the bits of those that fuse as it does", async (isa) => {
    const own = await hashOn({ backend, isa });
    const unfused = await hashOn({ backend: "native", isa: "scalar" });
    expect(await hashOn({ backend: "wasm", isa: "simd128" })).toBe(unfused);
    if (isa === "scalar" || isa === "simd128") expect(own).toBe(unfused);
    // (What relaxed SIMD fuses is for the engine to say.)
    else if (process.arch === "x64") expect(own).toBe(await hashOn({ backend: "native", isa: "avx2" }));
  });
});

onEachIsa((isa) => {
  describe.each(Object.entries(layers))("%s", (_, { make, weights }) => {
    /** A layer for `body`, which is disposed of then. */
    async function on(body: (layer: types.DiffAttnLayer) => unknown, seed = 1): Promise<void> {
      const layer = make(weights(seed));
      try {
        await body(layer);
      } finally {
        layer.dispose();
      }
    }

    test("both forms have the same bits, y those of forward; gradients have the names and shapes of the weights", () =>
      on(async (layer) => {
        const [y, dx, ...gradients] = passSync(layer);
        sameBits(y as types.Tensor, layer.forwardSync(x));
        expect(dx?.shape).toEqual(x.shape);
        same(await pass(layer), passSync(layer));
        expect(gradients.every(({ dtype }) => dtype === "float32")).toBe(true);
        const { backward, dispose } = await layer.vjp(x);
        const found = (await backward(dy)).weights;
        dispose();
        const shapes = (tensors: Record<string, { shape: readonly number[] }>): object =>
          Object.fromEntries(Object.entries(tensors).map(([name, { shape }]) => [name, shape]));
        expect(shapes(found)).toEqual(shapes(weights(1)));
      }));

    test("a mask is that of forward", () =>
      on(async (layer) => {
        const masked = passSync(layer, { attnMask });
        sameBits(masked[0] as types.Tensor, layer.forwardSync(x, { attnMask }));
        same(await pass(layer, { attnMask }), masked);
      }));

    test("thread count and batch change no bit of what belongs to a row", () =>
      on(async (first) => {
        const expected = passSync(first);
        for (const threads of [1, 2, 3]) {
          await api.init({ backend, isa, threads });
          await on(async (layer) => same(await pass(layer), expected));
        }
        await api.init({ backend, isa, threads: 2 });
        await on((layer) => {
          const half = ({ data }: { data: Float32Array }) => ({ data: data.slice(70 * 24), shape: [1, 70, 24] });
          const { y, backward } = layer.vjpSync(half(x));
          const { dx } = backward(half(dy));
          for (const [i, one] of [y, dx].entries()) {
            const of = expected[i] as types.Tensor;
            sameBits(one, { data: of.data.slice(70 * 24), dtype: "float32" });
          }
        });
      }));

    test("several passes are kept at once, each for any number of backward passes; a layer may go before them", async () => {
      const layer = make(weights(1));
      const kept = await Promise.all([layer.vjp(x), layer.vjp(x, { attnMask })]);
      const expected = [passSync(layer), passSync(layer, { attnMask })];
      const now = layer.vjpSync(x);
      layer.dispose();
      const twice = [...kept, ...kept];
      const gradients = await Promise.all(twice.map(({ backward }) => backward(dy)));
      for (const [i, one] of gradients.entries()) same(all((twice[i] as types.LayerVjp).y, one), expected[i % 2] as types.Tensor[]);
      same(all(now.y, now.backward(dy)), expected[0] as types.Tensor[]);
      for (const { dispose } of [...kept, now]) dispose();
    });

    test("new weights are those of a layer that is made of them, in every form", () =>
      on(async (layer) => {
        const [old, next] = [weights(1), weights(30)];
        const [fresh, other] = [make(next), make({ ...next, "k_proj.weight": old["k_proj.weight"] })];
        const expected = passSync(fresh);
        // (Once before anything else has the layer, once after everything has.)
        layer.setWeights(next);
        for (let round = 0; round < 2; round++) {
          sameBits(layer.forwardSync(x), fresh.forwardSync(x));
          sameBits(await layer.forward(x), fresh.forwardSync(x));
          sameBits((await layer.maps(x)).diff, fresh.mapsSync(x).diff);
          same(passSync(layer), expected);
          same(await pass(layer), expected);
          layer.setWeights(old);
          layer.setWeights({ "q_proj.weight": null, ...next, "k_proj.weight": undefined });
          sameBits(layer.forwardSync(x), other.forwardSync(x));
          same(await pass(layer), passSync(other));
          layer.setWeights({ "k_proj.weight": next["k_proj.weight"] });
        }
        for (const one of [fresh, other]) one.dispose();
      }));

    test("calls that were made before go on with the weights that they began with", () =>
      on(async (layer) => {
        const [expected, y] = [passSync(layer), layer.forwardSync(x)];
        const kept = [await layer.vjp(x), layer.vjpSync(x)];
        const open = [layer.forward(x), layer.forward(x), layer.vjp(x)] as const;
        layer.setWeights(weights(30));
        const [first, second, third] = await Promise.all(open);
        for (const one of [first, second, third.y]) sameBits(one, y);
        for (const { y, backward, dispose } of [...kept, third]) {
          same(all(y, await backward(dy)), expected);
          dispose();
        }
        await on((fresh) => sameBits(layer.forwardSync(x), fresh.forwardSync(x)), 30);
      }));

    test("the caller's arrays are taken as they are when a call is made", () =>
      on(async (layer) => {
        const expected = passSync(layer);
        const [own, ofY] = [x, dy].map(({ data, shape }) => ({ data: data.slice(), shape })) as [Plain, Plain];
        const open = layer.vjp(own);
        own.data.fill(NaN);
        const { y, backward, dispose } = await open;
        own.data.fill(0);
        const gradients = backward(ofY);
        ofY.data.fill(NaN);
        same(all(y, await gradients), expected);
        dispose();
        const next = weights(30);
        layer.setWeights(next);
        for (const { data } of Object.values(next)) data.fill(NaN);
        await on(async (fresh) => same(await pass(layer), passSync(fresh)), 30);
      }));

    test("steps along the gradients lower the loss", () =>
      on(async (layer) => {
        const own = weights(1);
        const wanted = normal(62, ...x.shape).data.map((x) => 0.2 * x);
        const losses: number[] = [];
        for (let step = 0; step < 8; step++) {
          const { y, backward, dispose } = await layer.vjp(x);
          const d = y.data.map((y, i) => y - (wanted[i] ?? NaN));
          losses.push(d.reduce((sum, x) => sum + x * x, 0) / 2);
          const gradients = await backward({ data: d, shape: y.shape });
          dispose();
          for (const [name, { data }] of Object.entries(gradients.weights))
            own[name]?.data.forEach((x, i, to) => (to[i] = x - 5e-5 * (data[i] ?? NaN)));
          layer.setWeights(own);
        }
        for (const [i, loss] of losses.entries()) if (i > 0) expect(loss).toBeLessThan(losses[i - 1] ?? NaN);
      }));

    test("nothing comes of nothing", () =>
      on(async (layer) => {
        const empty = { data: new Float32Array(0), shape: [1, 0, 24] };
        for (const { y, backward } of [await layer.vjp(empty), layer.vjpSync(empty)]) {
          expect(y.shape).toEqual([1, 0, 24]);
          const { dx, weights } = await backward(empty);
          expect(dx.shape).toEqual([1, 0, 24]);
          expect(Object.values(weights).every(({ data }) => data.every((x) => x === 0))).toBe(true);
        }
      }));
  });

  const layer = (): types.DiffAttnLayer => (layers["MultiheadDiffAttnV2"] as (typeof layers)[string]).make(ofV2(1));

  test("what was disposed of", async () => {
    const own = layer();
    const [later, now] = [await own.vjp(x), own.vjpSync(x)];
    for (const kept of [later, now]) {
      kept.dispose();
      kept.dispose();
      kept[Symbol.dispose]();
      const error = await refused(() => kept.backward(dy));
      expect(error).toMatchObject({ code: "DISPOSED", message: "vjp: expected a live object, got one that was disposed of" });
    }
    same(await pass(own), passSync(own));
    own.dispose();
    for (const body of [() => own.vjp(x), () => own.vjpSync(x), () => own.setWeights(ofV2(1))])
      expect(await refused(body)).toMatchObject({ code: "DISPOSED", message: /^layer: / });
  });

  test("abort: before and while it is at work; the next call works", async () => {
    const own = layer();
    const signal = AbortSignal.abort(new Error("enough"));
    expect((await refused(() => own.vjp(x, { signal }))).code).toBe("ABORTED");
    expect((await refused(() => own.vjpSync(x, { signal }))).code).toBe("ABORTED");
    const long = normal(63, 1, 3000, 24);
    const controller = new AbortController();
    const open = own.vjp(long, { signal: controller.signal, onProgress: () => controller.abort() });
    expect((await refused(() => open)).code).toBe("ABORTED");
    const { backward, dispose } = await own.vjp(x);
    expect((await refused(() => backward(dy, { signal }))).code).toBe("ABORTED");
    same([(await backward(dy)).dx], [passSync(own)[1] as types.Tensor]);
    dispose();
    own.dispose();
  });

  const anything = (x: unknown): never => x as never;
  const V1 = (more: object): types.MultiheadDiffAttn =>
    new api.MultiheadDiffAttn({ embedDim: 24, depth: 1, numHeads: 2, weights: ofV1(1), ...more });
  const kept = (): types.LayerVjpSync => layer().vjpSync(x);
  test.each<[string, types.ErrorCode, string | RegExp, () => unknown]>([
    ["x of two axes", "SHAPE", "x: expected 3 axes, got 2", () => layer().vjp(normal(1, 70, 24))],
    ["x of another width", "SHAPE", "x: expected 24 channels, got 23", () => layer().vjpSync(normal(1, 2, 70, 23))],
    ["no tensor", "DTYPE", "x: expected a tensor { data, shape }, got 5", () => layer().vjp(anything(5))],
    [
      "halves",
      "DTYPE",
      "x: expected float32, got float16",
      () => layer().vjp(anything({ data: new Uint16Array(24), shape: [1, 1, 24], dtype: "float16" })),
    ],
    [
      "a mask of another shape",
      "SHAPE",
      /^attnMask: expected shape \[2\|1, 4\|1, 70\|1, 70\], got \[1, 1, 70, 69\]$/,
      () => layer().vjp(x, { attnMask: { data: new Uint8Array(70 * 69), shape: [1, 1, 70, 69] } }),
    ],
    ["a cache", "OPTION", /^options: expected only .*, got "cache"/, () => layer().vjp(x, anything({ cache: null }))],
    ["dy of another shape", "SHAPE", "dy: expected y's shape [2, 70, 24], got [1, 70, 24]", () => kept().backward(normal(1, 1, 70, 24))],
    [
      "dy as halves",
      "DTYPE",
      "dy: expected float32, got bfloat16",
      () => kept().backward(anything({ data: new Uint16Array(2 * 70 * 24), shape: x.shape, dtype: "bfloat16" })),
    ],
    ["an option of backward", "OPTION", /got "attnMask"/, () => kept().backward(dy, anything({ attnMask }))],
    ["no weights", "OPTION", /^weights: expected an object/, () => layer().setWeights(anything(undefined))],
    [
      "a weight of another shape",
      "SHAPE",
      "weights.k_proj.weight: expected shape [12, 24], got [12, 23]",
      () => layer().setWeights({ "k_proj.weight": normal(1, 12, 23) }),
    ],
    ["a weight that is none", "DTYPE", /^k_proj.weight: expected .*, got 5$/, () => layer().setWeights({ "k_proj.weight": anything(5) })],
    ["a weight of no layer", "OPTION", /^weights: expected only .*, got "w"/, () => layer().setWeights({ w: x })],
    [
      "a weight of the other layer",
      "OPTION",
      /^weights: expected names among .*, got "lambda_q1"$/,
      () => layer().setWeights({ lambda_q1: normal(1, 6) }),
    ],
    [
      "a bias where there is none",
      "OPTION",
      "weights.k_proj.bias: expected none, as the layer has, got one",
      () => layer().setWeights({ "k_proj.weight": normal(1, 12, 24), "k_proj.bias": normal(1, 12) }),
    ],
    [
      "a bias alone",
      "OPTION",
      "weights.k_proj.weight: expected a tensor of shape [12, 24], got none",
      () => layer().setWeights({ "k_proj.bias": normal(1, 12) }),
    ],
    [
      "a weight without its bias",
      "OPTION",
      "weights.q_proj.bias: expected one, as the layer has, got none",
      () => V1({}).setWeights({ "q_proj.weight": normal(1, 24, 24) }),
    ],
    [
      "a part of λ",
      "OPTION",
      "weights.lambda_k1: expected a tensor of shape [6], got none",
      () => V1({}).setWeights({ lambda_q1: normal(1, 6) }),
    ],
    [
      "both names of one",
      "OPTION",
      "weights: expected one of out_proj.weight and o_proj.weight, got both",
      () => layer().setWeights({ "o_proj.weight": normal(1, 24, 24), "out_proj.weight": normal(1, 24, 24) }),
    ],
    [
      "λ of the other form",
      "OPTION",
      "weights.lambda_a: expected none unless lambdaForm is scalars, got one",
      () => V1({}).setWeights({ lambda_a: normal(1, 1) }),
    ],
    [
      "a norm's weight where there is none",
      "OPTION",
      "weights.subln.weight: expected none where the layer has none, got one",
      () => V1({ norm: null, weights: { ...ofV1(1), "subln.weight": null } }).setWeights({ "subln.weight": normal(1, 12) }),
    ],
    ["a norm's weight without a norm", "OPTION", "weights.subln.weight: expected none without a norm, got one", () => V1({ norm: null })],
    ["a valueDim of halves", "SHAPE", "valueDim: expected a multiple of 2, not 0, got 5", () => V1({ valueDim: 5, pairing: "halves" })],
  ])("%s", async (_, code, sentence, body) => {
    const error = await refused(body);
    expect(error.code).toBe(code);
    if (typeof sentence === "string") expect(error.message).toBe(sentence);
    else expect(error.message).toMatch(sentence);
    const own = layer();
    same(await pass(own), passSync(own));
    own.dispose();
  });

  test("what is refused changes nothing", async () => {
    const own = layer();
    const before = passSync(own);
    await pass(own);
    await refused(() => own.setWeights({ ...ofV2(30), "lambda_proj.bias": normal(1, 5) }));
    same(passSync(own), before);
    same(await pass(own), before);
    own.dispose();
  });

  test("a backend that ended takes its passes with it", async () => {
    const own = layer();
    const [later, now] = [await own.vjp(x), own.vjpSync(x)];
    api.dispose();
    await api.init({ backend, isa });
    for (const kept of [later, now]) {
      const error = await refused(() => kept.backward(dy));
      expect(error).toMatchObject({
        code: "UNAVAILABLE",
        message: "vjp: expected an object of a live instance, got one of an instance that ended",
      });
      kept.dispose();
    }
    const next = layer();
    same(await pass(next), passSync(next));
    next.dispose();
  });
});
