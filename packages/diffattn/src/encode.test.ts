// Every stream against the order that crates/diffattn-door/PROTOCOL.md writes down.

import { expect, test } from "vitest";
import type { Backend, Handle, Request } from "./backend.js";
import * as encode from "./operators.js";

const f32 = (...shape: number[]) => ({ data: new Float32Array(shape.reduce((a, b) => a * b, 1)), shape });
const handle = (name: Handle["name"]): Handle => ({ name, backend: {} as Backend });
const lengths = ({ operands }: Request): number[] => operands.map(({ byteLength }) => byteLength);
const refuses = (code: string, message: string | RegExp) =>
  expect.objectContaining({
    code,
    message: typeof message === "string" ? message : (expect.stringMatching(message) as unknown),
  }) as unknown as Error;

const q = f32(1, 2, 3, 4);
const Q = [1, 4, 1, 2, 3, 4];
/**
 * Attention options that say nothing: lambda … window absent, no tensors, no lists, norm absent, no
 * flags.
 */
const NOTHING = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/** The same of attention itself, which has returnPreNorm behind them. */
const ATTENTION = [...NOTHING, 0];

test("diffAttention: absent options take one slot each", () => {
  const request = encode.diffAttention(q, q, q, {}, undefined);
  expect(request).toMatchObject({ op: 1, dtype: "float32", half: false, objects: [] });
  expect(request.params).toEqual([...Q, 0, ...Q, ...Q, ...ATTENTION]);
  expect(lengths(request)).toEqual([96, 96, 96]);
});

test("options that an object has from another, and getters, count", () => {
  class Options {
    get isCausal(): boolean {
      return true;
    }
  }
  const plain = encode.diffAttention(q, q, q, { isCausal: true }, undefined).params;
  expect(encode.diffAttention(q, q, q, new Options(), undefined).params).toEqual(plain);
  expect(encode.diffAttention(q, q, q, Object.create({ isCausal: true }), undefined).params).toEqual(plain);
  const bare = Object.assign(Object.create(null) as object, { isCausal: true });
  expect(encode.diffAttention(q, q, q, bare, undefined).params).toEqual(plain);
  const own = Object.defineProperty({}, "isCausal", { enumerable: true, get: () => true });
  expect(encode.diffAttention(q, q, q, own, undefined).params).toEqual(plain);
});

test("diffAttention: every option in its place", () => {
  const request = encode.diffAttention(
    q,
    q,
    q,
    {
      lambda: new Float32Array([0.1, 0.2]),
      coefficients: [1, -0.5],
      pairing: "halves",
      heads: [
        { q: [0, 1], k: [2, 3], v: [4] },
        { q: [5], k: [6], v: [7, 8], coefficients: [0.25] },
      ],
      ratio: 3,
      kvRepeat: "flat",
      layout: "bshd",
      scale: 0.125,
      isCausal: true,
      softcap: 30,
      window: [5, null],
      attnMask: { data: new Uint8Array(9), dims: [1, 1, 3, 3] },
      attnBias: f32(1, 1, 1, 3),
      keyLengths: Int32Array.of(2, 1),
      queryOffset: -4,
      cuSeqlensQ: Int32Array.of(0, 3),
      cuSeqlensK: Int32Array.of(0, 2),
      norm: { eps: 1e-6, weight: new Float32Array(4), scale: 0.8 },
      returnLse: true,
      returnPreNorm: true,
      deterministic: true,
    },
    undefined,
  );
  expect(request.params.slice(3 * Q.length + 1)).toEqual([
    2,
    1,
    1,
    2, // lambda: a float32 tensor of rank 1
    1,
    2,
    1,
    -0.5, // coefficients
    1,
    1, // pairing
    1,
    2,
    2,
    0,
    1,
    2,
    2,
    3,
    1,
    4,
    0,
    1,
    5,
    1,
    6,
    2,
    7,
    8,
    1,
    1,
    0.25, // heads
    1,
    3, // ratio
    1,
    1, // kvRepeat
    1, // layout
    1,
    0.125, // scale
    1, // isCausal
    1,
    30, // softcap
    1,
    1,
    5,
    0, // window
    4,
    4,
    1,
    1,
    3,
    3, // attnMask
    1,
    4,
    1,
    1,
    1,
    3, // attnBias
    1,
    2,
    2,
    1, // keyLengths
    1,
    1,
    -4, // queryOffset
    1,
    2,
    0,
    3, // cuSeqlensQ
    1,
    2,
    0,
    2, // cuSeqlensK
    1,
    1,
    1e-6,
    1,
    1,
    4,
    1,
    0.8, // norm
    1,
    1, // returnLse, deterministic
    0, // sinks
    0, // blockMask
    1, // returnPreNorm
  ]);
  expect(lengths(request)).toEqual([96, 96, 96, 8, 9, 12, 16]);
});

test("a cache takes the place of k and v; its slot is named", () => {
  const cache = handle("cache");
  const request = encode.diffAttention(q, {}, null, { lambda: 0.5 }, cache);
  expect(request.params).toEqual([...Q, 1, 0, 1, 0.5, ...ATTENTION.slice(1)]);
  expect(request.objects).toEqual([{ slot: 7, handle: cache }]);
  expect(() => encode.diffAttention(q, {}, q, { lambda: 0.5 }, cache)).toThrow(refuses("OPTION", /^v: expected null beside a KvCache/));
});

test("diffAttentionMaps", () => {
  const request = encode.diffAttentionMaps(q, q, { lambda: 0.5, numKvHeads: 2, rows: [1, 3] }, undefined);
  expect(request.params).toEqual([...Q, 0, ...Q, 1, 0.5, ...NOTHING.slice(1), 1, 2, 1, 1, 3]);
  expect(() => encode.diffAttentionMaps(q, q, { norm: {} }, undefined)).toThrow(refuses("OPTION", /got "norm"$/));
});

test("norms, rope and differences", () => {
  const half = { data: new Uint16Array(6), shape: [2, 3], dtype: "bfloat16" as const };
  expect(encode.groupNorm(half, { numGroups: 3, bias: new Float32Array(3), activation: "silu", layout: "nhwc" })).toMatchObject({
    op: 3,
    dtype: "bfloat16",
    params: [3, 2, 2, 3, 3, 0, 1, 1, 3, 0, 1, 1, 0],
  });
  expect(encode.rmsNorm(half, { eps: 0, scale: 2 })).toMatchObject({ op: 4, params: [3, 2, 2, 3, 0, 1, 0, 1, 2] });
  expect(encode.applyRope(q, {}).params).toEqual([...Q, 0, 0, 0, 0, 0, 0, 0]);
  expect(
    encode
      .applyRope(q, {
        interleaved: false,
        theta: 500,
        scaling: { rope_type: "yarn", factor: 4, beta_fast: 32, truncate: true },
        layout: "bshd",
        firstPosition: [5],
        rotaryDim: 2,
      })
      .params.slice(Q.length),
  ).toEqual([1, 0, 1, 500, 1, 3, 0, 1, 4, 0, 0, 0, 0, 1, 32, 0, 0, 0, 1, 1, 1, 1, 1, 5, 0, 1, 2]);
  expect(encode.applyRope(q, { positions: { data: Int32Array.of(7, 8, 9), shape: [1, 3] } }).params.slice(Q.length)).toEqual([
    0, 0, 0, 0, 0, 1, 2, 1, 3, 3, 7, 8, 9, 0,
  ]);
  expect(encode.applyRope(q, { positions: [7, 8, 9] }).params.slice(Q.length)).toEqual([0, 0, 0, 0, 0, 1, 1, 3, 3, 7, 8, 9, 0]);
  expect(encode.sequenceDifference(q, { order: 2 })).toMatchObject({ op: 6, params: [...Q, 1, 2, 0] });
});

test("gradients", () => {
  const [dy, vector] = [f32(2, 3), new Float32Array(3)];
  const Dy = [1, 2, 2, 3];
  expect(encode.diffAttentionBackward([dy, q, q, q], { lambda: 0.5 })).toMatchObject({
    op: 128,
    params: [...Dy, ...Q, ...Q, ...Q, 1, 0.5, ...NOTHING.slice(1), 0, 0],
  });
  const said = { lambda: 0.5, norm: {}, result: dy, needs: ["k", "attnBias"] };
  expect(encode.diffAttentionBackward([dy, q, q, q], said).params.slice(-16)).toEqual([
    ...[1, 0, 0, 0, 0, 0, 0, 0], // norm, returnLse … blockMask
    ...Dy,
    ...[1, 2, 1, 6],
  ]);
  expect(() => encode.diffAttentionBackward([dy, q, q, q], { needs: ["k", "w"] })).toThrow(
    refuses("OPTION", /^needs\[1\]: expected "q", "k", "v", "lambda", "coefficients", "normWeight", "attnBias" or "sinks", got "w"$/),
  );
  expect(() => encode.diffAttentionBackward([dy, q, q, q], { returnLse: true })).toThrow(refuses("OPTION", /got "returnLse"/));
  expect(encode.rmsNormBackward(dy, dy, { weight: vector, scale: 2 })).toMatchObject({ op: 129, params: [...Dy, ...Dy, 1, 1, 3, 0, 1, 2] });
  expect(encode.groupNormBackward(dy, dy, { numGroups: 3, layout: "nhwc" })).toMatchObject({
    op: 130,
    params: [...Dy, ...Dy, 3, 0, 0, 0, 1, 0],
  });
  expect(encode.applyRopeBackward(q, { theta: 500, rotaryDim: 2 }).params).toEqual([...Q, 0, 1, 500, 0, 0, 0, 0, 1, 2]);
  expect(encode.sequenceDifferenceBackward(q, { order: 2 })).toMatchObject({ op: 132, params: [...Q, 1, 2, 0] });
  const vectors = { q1: vector, k1: vector, q2: vector, k2: vector };
  expect(encode.lambdaFullBackward(0.5, vectors)).toMatchObject({ op: 133, params: [1, 0.5, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 3] });
  expect(encode.lambdaFullBackward({ data: vector.subarray(0, 1), shape: [] }, vectors).params.slice(0, 3)).toEqual([2, 1, 0]);
});

test("a rope_type that only a model can have", () => {
  const scaled = (rope_type: unknown) => () => encode.applyRope(q, { scaling: { rope_type, factor: 2 } });
  expect(scaled("dynamic")).toThrow(
    'scaling.rope_type: expected "default" up to a model\'s length and "yarn" or "linear" past it, got "dynamic"',
  );
  expect(scaled("longrope")).toThrow('scaling.rope_type: expected "default", "linear", "llama3" or "yarn", got "longrope"');
});

test("lambda", () => {
  const vector = new Float32Array(4);
  expect(encode.lambdaInit(3)).toMatchObject({ op: 32, params: [3] });
  expect(encode.lambdaFull({ q1: vector, k1: vector, q2: vector, k2: vector, init: 0.5 })).toMatchObject({
    op: 33,
    params: [1, 1, 4, 1, 1, 4, 1, 1, 4, 1, 1, 4, 0.5],
  });
});

test("caches", () => {
  const cache = handle("cache");
  expect(encode.createKvCache({ groups: 2, headDim: 8, valueDim: 16, capacity: 32, dtype: "float16" })).toMatchObject({
    op: 40,
    params: [2, 8, 16, 1, 32, 0, 1, 0],
  });
  expect(encode.append(cache, q, q, { layout: "bshd" })).toMatchObject({ op: 41, params: [0, ...Q, ...Q, 1], objects: [{ slot: 0 }] });
  expect(encode.rewind(cache, 4)).toMatchObject({ op: 42, params: [0, 4] });
  expect(encode.cacheLength(cache)).toMatchObject({ op: 43, params: [0] });
});

test("layers: weights in the protocol's order, whatever the caller's", () => {
  const v1 = encode.createMultiheadDiffAttn({
    embedDim: 8,
    depth: 0,
    numHeads: 2,
    rope: { theta: 100 },
    norm: { affine: false },
    lambdaForm: "scalars",
    sequence: { order: 2, share: 0.5, fusion: 1 },
    weights: { "o_proj.weight": f32(8, 8), lambda_b: new Float32Array(2), lambda_a: new Float32Array(1), "q_proj.weight": f32(8, 4) },
  });
  expect(v1.params).toEqual([
    8, 0, 0, 2, 0, 0, 1, 0, 1, 100, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 1, 1, 1, 2, 0.5, 1, 1, 2, 8, 4, 0, 0, 0, 0, 0, 1, 2, 8, 8, 0, 0, 0, 0, 0,
    1, 1, 1, 1, 1, 2, 0,
  ]);
  expect(lengths(v1)).toEqual([128, 256, 4, 8]);
  const norms = [undefined, null, {}].map((norm) => {
    const { params } = encode.createMultiheadDiffAttn({ embedDim: 8, depth: 0, numHeads: 2, valueDim: 4, norm, weights: {} });
    return params.slice(11, 16);
  });
  expect(norms).toEqual([
    [1, 4, 0, 0, 0],
    [1, 4, 1, 0, 0],
    [1, 4, 2, 0, 0],
  ]);

  const v2 = encode.createMultiheadDiffAttnV2({
    embedDim: 8,
    numHeads: 2,
    headDim: 4,
    isCausal: false,
    weights: { "lambda_proj.bias": new Float32Array(2) },
  });
  expect(v2.params).toEqual([8, 2, 0, 4, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2]);

  const both = { "o_proj.weight": f32(8, 8), "out_proj.weight": f32(8, 8) };
  expect(() => encode.createMultiheadDiffAttnV2({ embedDim: 8, numHeads: 2, headDim: 4, weights: both })).toThrow(
    refuses("OPTION", "weights: expected one of out_proj.weight and o_proj.weight, got both"),
  );
  expect(() =>
    encode.createMultiheadDiffAttnV2({ embedDim: 8, numHeads: 2, headDim: 4, weights: { lambda_q1: new Float32Array(1) } }),
  ).toThrow(refuses("OPTION", /^weights: expected only .* got "lambda_q1"$/));
});

test("a layer's kept passes and new weights", () => {
  const [layer, vjp] = [handle("layer"), handle("vjp")];
  const x = f32(1, 2, 8);
  expect(encode.createLayerVjp()).toMatchObject({ op: 134, params: [] });
  expect(encode.layerVjp(vjp, layer, x, null)).toMatchObject({
    op: 135,
    params: [0, 0, 1, 3, 1, 2, 8, 0],
    objects: [
      { slot: 0, handle: vjp },
      { slot: 1, handle: layer },
    ],
  });
  expect(encode.layerBackward(vjp, x, {})).toMatchObject({ op: 136, params: [0, 1, 3, 1, 2, 8], objects: [{ slot: 0, handle: vjp }] });
  const set = encode.setWeights(layer, { "lambda_proj.bias": new Float32Array(2), "q_proj.weight": f32(8, 4) });
  expect(set).toMatchObject({ op: 47, objects: [{ slot: 0, handle: layer }] });
  expect(set.params).toEqual([0, 1, 2, 8, 4, ...Array<number>(15).fill(0), 1, 1, 2]);
  expect(lengths(set)).toEqual([128, 8]);
});

test("a layer's calls", () => {
  const [layer, cache] = [handle("layer"), handle("cache")];
  const x = f32(1, 2, 8);
  const mask = { data: new Uint8Array(4), shape: [1, 1, 2, 2] };
  expect(encode.forward(layer, x, cache, { attnMask: mask })).toMatchObject({
    op: 8,
    params: [0, 1, 3, 1, 2, 8, 1, 0, 4, 4, 1, 1, 2, 2],
    objects: [
      { slot: 0, handle: layer },
      { slot: 7, handle: cache },
    ],
  });
  expect(encode.layerMaps(layer, x, {})).toMatchObject({ op: 9, params: [0, 1, 3, 1, 2, 8] });
});

test.each([
  [{ scale: "1" }, "OPTION", 'scale: expected a number, got "1"'],
  [{ isCausal: 1 }, "OPTION", "isCausal: expected true or false, got 1"],
  [{ pairing: "pairs" }, "OPTION", 'pairing: expected "interleaved", "halves", "grouped" or "shared", got "pairs"'],
  [{ window: [1] }, "OPTION", "window: expected [left, right], got [1]"],
  [{ keyLengths: new Float32Array(1) }, "OPTION", "keyLengths: expected an array, got a Float32Array"],
  [{ coefficients: ["1"] }, "OPTION", 'coefficients: expected a number, got "1"'],
  [{ heads: [{ q: [0], k: [0] }] }, "OPTION", "heads[0].v: expected an array, got undefined"],
  [{ lambda: new Float64Array(1) }, "DTYPE", "lambda: expected a tensor { data, shape }, got a Float64Array"],
  [{ lambda: "0.5" }, "DTYPE", 'lambda: expected a tensor { data, shape }, got "0.5"'],
  [
    { attnMask: { data: new Float32Array(1), shape: [1] } },
    "DTYPE",
    "attnMask: expected a tensor whose data is a Uint8Array, got a Float32Array",
  ],
  [{ lamda: 0.5 }, "OPTION", /^options: expected only lambda, .* got "lamda" \(did you mean lambda\?\)$/],
])("%o is refused in one sentence", (options, code, message) => {
  expect(() => encode.diffAttention(q, q, q, options as object, undefined)).toThrow(refuses(code, message));
});

test("a missing operand is named", () => {
  expect(() => encode.diffAttention(q, undefined, q, {}, undefined)).toThrow(
    refuses("DTYPE", "k: expected a tensor { data, shape }, got undefined"),
  );
  expect(() => encode.groupNorm(q, undefined as never)).toThrow(refuses("OPTION", "numGroups: expected a number, got undefined"));
});
