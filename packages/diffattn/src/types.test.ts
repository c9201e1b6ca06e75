// The types say what the run time reads: each value below compiles where it is given and is taken
// there; what `@ts-expect-error` marks does not compile, and is refused.

import { expect, test } from "vitest";
import type { Backend, Handle } from "./backend.js";
import { readTensor } from "./check.js";
import * as encode from "./operators.js";
import { idsOf, tensorOfIds } from "./models/ids.js";
import type * as modelTypes from "./models/types.js";
import type * as types from "./types.js";

const layer: Handle = { name: "layer", backend: {} as Backend };
const shared = new SharedArrayBuffer(32);

test("tensors", () => {
  const tensors: types.TensorLike[] = [
    { data: new Float32Array(8), shape: [8] },
    { data: new Float32Array(shared), dims: [8], type: "float32" },
    { data: new Uint16Array(8), shape: [8], dtype: "bfloat16" },
    { data: new Uint16Array(shared, 0, 8), shape: [8] as const, type: "float16" },
    { data: new Float32Array(8), shape: [2, 4], stride: [4, 1], offset: 0 },
    { data: new Float32Array(8), shape: [2, 2], strides: Int32Array.of(2, 1), offset: 4 },
  ];
  for (const x of tensors) {
    expect(encode.rmsNorm(x, {}).operands.length).toBe(1);
    expect(readTensor("x", x).shape.length).toBeGreaterThan(0);
  }
  // @ts-expect-error no element type of ours
  const float64: types.TensorLike = { data: new Float64Array(8), shape: [8] };
  // @ts-expect-error nor is this one
  const bytes: types.TensorLike = { data: new Int8Array(8), shape: [8] };
  for (const x of [float64, bytes]) expect(() => encode.rmsNorm(x, {})).toThrow("expected data in a Float32Array");
});

test("options of attention", () => {
  const q: types.TensorLike = { data: new Float32Array(8), shape: [1, 2, 1, 4] };
  const given: types.DiffAttentionOptions[] = [
    { lambda: 0.5 },
    { lambda: new Float32Array(shared) },
    { lambda: { data: new Float32Array(1), shape: [1], stride: [1] } },
    { attnMask: { data: new Uint8Array(1), shape: [1, 1, 1, 1] } },
    { attnMask: { data: new Uint8ClampedArray(shared, 0, 1), dims: [1, 1, 1, 1], offset: 0 } },
    { attnBias: { data: new Float32Array(1), shape: [1, 1, 1, 1], strides: [1, 1, 1, 1] } },
    { keyLengths: [1], queryOffset: 1, cuSeqlensQ: [0, 1], cuSeqlensK: [0, 1] as const },
    { keyLengths: Int32Array.of(1), queryOffset: Int32Array.of(1), cuSeqlensQ: Int32Array.of(0, 1), cuSeqlensK: Int32Array.of(0, 1) },
    { queryOffset: [1] as const, window: [null, 3], norm: { weight: new Float32Array(4) } },
    { norm: { weight: { data: new Float32Array(4), dims: [4] } }, out: new Float32Array(4) },
  ];
  for (const options of given) expect(encode.diffAttention(q, q, q, options, undefined).params.length).toBeGreaterThan(20);
  // @ts-expect-error a mask is of bytes
  const mask: types.DiffAttentionOptions = { attnMask: { data: new Float32Array(1), shape: [1] } };
  // @ts-expect-error whole numbers of 32 bits
  const lengths: types.DiffAttentionOptions = { keyLengths: new Uint32Array(1) };
  for (const options of [mask, lengths]) expect(() => encode.diffAttention(q, q, q, options, undefined)).toThrow(/expected/);
});

test("positions, and weights that are absent", () => {
  const x: types.TensorLike = { data: new Float32Array(8), shape: [1, 1, 2, 4] };
  const given: types.RopeOptions[] = [
    { positions: [0, 1] },
    { positions: Int32Array.of(0, 1) },
    { positions: { data: [0, 1], shape: [1, 2] } },
    { positions: { data: Int32Array.of(5, 0, 1), dims: [1, 2], stride: [2, 1], offset: 1 } },
    { firstPosition: 1 },
    { firstPosition: [1] },
    { firstPosition: Int32Array.of(1) },
  ];
  for (const options of given) expect(encode.applyRope(x, options).operands.length).toBe(1);
  const weights: types.LayerWeights = { "q_proj.weight": new Float32Array(4), "k_proj.bias": null, "v_proj.bias": undefined };
  expect(encode.createMultiheadDiffAttnV2({ embedDim: 4, numHeads: 1, headDim: 2, weights }).operands.length).toBe(1);
  expect(encode.forward(layer, x, undefined, { attnMask: { data: new Uint8ClampedArray(4), shape: [4] } }).operands.length).toBe(2);
});

test("token ids", () => {
  const given: modelTypes.TokenIds[] = [
    [1, 2],
    [1, 2] as const,
    Int32Array.of(1, 2),
    { data: Int32Array.of(1, 2), shape: [1, 2] },
    { data: Int32Array.of(1, 2), dims: [1, 2] as const },
    { data: Int32Array.of(9, 1, 2), shape: [1, 2], strides: [2, 1], offset: 1 },
  ];
  for (const ids of given) expect([...tensorOfIds("ids", ids).data]).toEqual([1, 2]);
  // @ts-expect-error int32 is what ids are
  const unsigned: modelTypes.TokenIds = Uint32Array.of(1);
  expect(() => idsOf("ids", unsigned)).toThrow("expected token ids");
});
