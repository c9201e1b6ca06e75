// Work and memory in proportion to the bytes given: an empty tensor may say any other extents, and
// so may options of which nothing is backed by bytes. Every operator, both forms, layers, caches
// and models: at once, and with the shape that was asked for.

import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, models, onEachIsa, refused } from "./backends.js";

/** Milliseconds that a call over nothing may take; a loop over its extents takes seconds. */
const LIMIT = 100;

/** Runs it three times at most; the fastest counts, since other programs run beside tests. */
async function atOnce<R>(run: () => R | Promise<R>): Promise<R> {
  let best = Infinity;
  for (let time = 0; ; time++) {
    const start = performance.now();
    const result = await run();
    best = Math.min(best, performance.now() - start);
    if (best < LIMIT) return result;
    if (time === 2) throw new Error(`${best.toFixed(0)} ms over nothing`);
  }
}

const HUGE = 2 ** 30;
const empty = (...shape: number[]): types.TensorLike => {
  expect(shape).toContain(0);
  return { data: new Float32Array(0), shape };
};

/** Shapes of four axes, each with a zero beside what is huge. */
const VAST = [
  [1, 0, 1, 2 ** 26],
  [0, 1, 1, 2 ** 24],
  [1, 1, 0, 2 ** 24],
  [HUGE, 0, HUGE, 8],
  [HUGE, HUGE, 0, HUGE],
  [HUGE, HUGE, HUGE, 0],
];

type Anything = Record<string, unknown>;

/** Operators of one tensor, with the options that an axis decides. */
const OPERATORS: Record<string, (shape: readonly number[]) => Anything[]> = {
  applyRope: () => [
    {},
    { layout: "bshd", interleaved: false },
    { scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 } },
    { scaling: { rope_type: "llama3", factor: 4, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 } },
  ],
  sequenceDifference: () => [{ order: 64 }, { order: 64, layout: "bshd" }],
  rmsNorm: () => [{}],
  groupNorm: ([, second = 0, , last = 0]) => [
    { numGroups: 1 },
    { numGroups: Math.max(second, 1) },
    { numGroups: Math.max(last, 1), layout: "nhwc", activation: "silu" },
  ],
};

/** Shapes of q, k and v, and of the result. */
const ATTENTION = [
  [
    [HUGE, 2, 0, 8],
    [HUGE, 2, 0, 8],
    [HUGE, 1, 0, 8],
    [HUGE, 1, 0, 8],
  ],
  [
    [0, 2, HUGE, 8],
    [0, 2, 2 ** 20, 8],
    [0, 1, 2 ** 20, HUGE],
    [0, 1, HUGE, HUGE],
  ],
  [
    [1, 2, 0, HUGE],
    [1, 2, 0, HUGE],
    [1, 1, 0, HUGE],
    [1, 1, 0, HUGE],
  ],
  [
    [HUGE, 2 ** 13, 0, 1],
    [HUGE, 2 ** 13, 0, 1],
    [HUGE, 2 ** 12, 0, 1],
    [HUGE, 2 ** 12, 0, 1],
  ],
] as const;

onEachIsa(() => {
  // The worker's start is no work over nothing.
  beforeAll(async () => {
    await api.rmsNorm(empty(0, 1));
  });

  describe.each(Object.keys(OPERATORS))("%s", (name) => {
    const operators = api as unknown as Record<string, (x: types.TensorLike, options: Anything) => types.Tensor | Promise<types.Tensor>>;
    test.each(VAST.map((shape) => ({ shape })))("of $shape", async ({ shape }) => {
      for (const options of OPERATORS[name]?.(shape) ?? []) {
        for (const form of [`${name}Sync`, name]) {
          const y = await atOnce(() => operators[form]?.(empty(...shape), options));
          expect(y?.shape).toEqual(shape);
          expect(y?.data.length).toBe(0);
        }
      }
    });
  });

  test.each(ATTENTION.map(([q, k, v, y]) => ({ q, k, v, y })))("attention of q $q", async ({ q, k, v, y }) => {
    const options = { lambda: 0.5, returnLse: true };
    for (const run of [api.diffAttentionSync, api.diffAttention] as (typeof api.diffAttention)[]) {
      const result = (await atOnce(() => run(empty(...q), empty(...k), empty(...v), options))) as types.Tensor & { lse?: types.Tensor };
      expect(result.shape).toEqual(y);
      expect(result.lse?.shape).toEqual([y[0], y[1], 2, y[2]]);
    }
    for (const run of [api.diffAttentionMapsSync, api.diffAttentionMaps] as (typeof api.diffAttentionMaps)[]) {
      const { diff } = await atOnce(() => run(empty(...q), empty(...k), { lambda: 0.5, rows: [0, q[2]] }));
      expect(diff.shape).toEqual([y[0], y[1], q[2], k[2]]);
    }
  });

  test("a result of zeros is not wider than something answers for", async () => {
    const q = { data: new Float32Array(2), shape: [1, 2, 1, 1] };
    const error = await refused(() => atOnce(() => api.diffAttention(q, empty(1, 2, 0, 1), empty(1, 1, 0, HUGE), { lambda: 0.5 })));
    expect(`${error.code} ${error.message}`).toBe(`SHAPE v: expected at most 65536 channels where there are no keys, got ${HUGE}`);
  });

  test("caches: heads of any width before the first token, and no more heads than there may be", async () => {
    const error = await refused(() => atOnce(() => new api.KvCache({ groups: HUGE, headDim: 1, valueDim: 1 })));
    expect(`${error.code} ${error.message}`).toBe(
      `SHAPE groups: expected at most 1048576 heads in all (batch · terms · groups), got 1 · 2 · ${HUGE}`,
    );
    const batch = 2 ** 18;
    const cache = await atOnce(() => new api.KvCache({ batch, groups: 1, headDim: 2 ** 24, valueDim: 2 ** 24 }));
    await atOnce(() => cache.append(empty(batch, 2, 0, 2 ** 24), empty(batch, 1, 0, 2 ** 24)));
    expect(cache.length).toBe(0);
    const y = await atOnce(() => api.diffAttention(empty(batch, 2, 0, 2 ** 24), cache, null, { lambda: 0.5 }));
    expect(y.shape).toEqual([batch, 1, 0, 2 ** 24]);
    cache.dispose();
  });

  test("memory of the backend", async () => {
    const tensor = await atOnce(() => api.createTensor([HUGE, 0]));
    expect(tensor.data.length).toBe(0);
    expect((await atOnce(() => api.rmsNorm(tensor))).shape).toEqual([HUGE, 0]);
    tensor.dispose();
  });

  test("layers", async () => {
    const zeros = (...shape: number[]): types.TensorLike => ({ data: new Float32Array(shape.reduce((a, b) => a * b, 1)), shape });
    const projections = Object.fromEntries(["q_proj", "k_proj", "v_proj", "out_proj"].map((name) => [`${name}.weight`, zeros(8, 8)]));
    const lambda = Object.fromEntries(["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"].map((name) => [name, zeros(4)]));
    const weights = { ...projections, ...lambda } as unknown as types.MultiheadDiffAttnOptions["weights"];
    for (const more of [{}, { rope: {}, sequence: { share: 1, fusion: 0.5 } }]) {
      const layer = new api.MultiheadDiffAttn({ embedDim: 8, depth: 0, numHeads: 1, weights, ...more });
      for (const [B, L] of [
        [HUGE, 0],
        [0, HUGE],
      ] as const) {
        expect((await atOnce(() => layer.forwardSync(empty(B, L, 8)) as types.Tensor)).shape).toEqual([B, L, 8]);
        expect((await atOnce(() => layer.forward(empty(B, L, 8)) as Promise<types.Tensor>)).shape).toEqual([B, L, 8]);
        expect((await atOnce(() => layer.mapsSync(empty(B, L, 8)))).diff.shape).toEqual([B, 1, L, L]);
        expect((await atOnce(() => layer.maps(empty(B, L, 8)))).diff.shape).toEqual([B, 1, L, L]);
      }
      layer.dispose();
    }
  });

  describe("models", () => {
    const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
    let llama: modelTypes.DiffLlama;
    let vit: modelTypes.DiffViT;
    beforeAll(async () => {
      llama = await models.DiffLlama.load(path("test/models/diffllama_gqa"));
      vit = await models.DiffViT.load(path("test/models/diff_vit"));
    });
    afterAll(() => {
      llama.dispose();
      vit.dispose();
    });
    const ids = (B: number, L: number) => ({ data: new Int32Array(0), shape: [B, L] as const });

    test("texts without ids", async () => {
      for (const [B, L] of [
        [2 ** 25, 0],
        [0, 2 ** 25],
      ] as const) {
        const y = await atOnce(() => llama.forward(ids(B, L), { hiddenStates: true }));
        expect(y.shape.slice(0, 2)).toEqual([B, L]);
        expect((await atOnce(() => llama.maps(ids(B, L), 0))).diff.shape.filter((_, axis) => axis !== 1)).toEqual([B, L, L]);
      }
    });

    test("generation of any number of texts without ids, and of an array of nothing", async () => {
      const first = (prompt: unknown) => atOnce(() => llama.generate(prompt as number[], { maxNewTokens: 1 }).next());
      const error = await refused(() => first(ids(2 ** 25, 0)));
      expect(`${error.code} ${error.message}`).toBe("OPTION prompt: expected 1 id or more, got none");
      // (A list of a length, and nothing in it.)
      const nothing = await refused(() => first(new Array<number>(2 ** 32 - 1)));
      expect(`${nothing.code} ${nothing.message}`).toBe("OPTION prompt[0]: expected a token id or a text, got nothing");
      const holes = await refused(() => atOnce(() => llama.forward(new Array<number>(2 ** 32 - 1))));
      expect(`${holes.code} ${holes.message}`).toBe("OPTION ids[0]: expected a token id, got undefined");
    });

    test("images", async () => {
      const pixels = (...shape: number[]) => empty(...shape) as types.Tensor;
      expect((await refused(() => atOnce(() => vit.forward(pixels(2 ** 25, 0, 64, 64))))).code).toBe("SHAPE");
      expect((await refused(() => atOnce(() => vit.forward(pixels(0, 3, HUGE, HUGE))))).code).toBe("SHAPE");
      expect((await atOnce(() => vit.forward(pixels(0, 3, 64, 64)))).shape).toEqual([0, 10]);
      expect((await atOnce(() => vit.maps(pixels(0, 3, 64, 64), 0))).diff.shape).toEqual([0, 2, 17, 17]);
    });
  });
});
