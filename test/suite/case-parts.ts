// What checks of reference cases are made of: tensors of a case, attention's options in the words of
// the public API, bounds. Runs in Node and in browsers alike.

import type * as types from "../../packages/diffattn/src/types.js";
import { type Bound, largest } from "./compare.js";
import { type Fixture, float32, integers, type Stored, stored } from "./safetensors.js";

export type Api = typeof types;
export type Anything = Record<string, unknown>;
export type Result = Pick<types.Tensor<types.TensorData>, "data" | "dtype">;

/** One comparison: how to compute it in both forms, and what is expected. */
export interface Check {
  name: string;
  run(api: Api): Promise<Result>;
  runSync(api: Api): Result;
  expected: Float64Array;
  bound: Bound;
}

const DTYPES: Record<string, types.DType> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

export function tensor(x: Stored): types.TensorLike {
  const dtype = DTYPES[x.dtype];
  if (dtype === undefined) throw new Error(`no operator takes ${x.dtype}`);
  const { buffer } = x.bytes.slice();
  return { data: dtype === "float32" ? new Float32Array(buffer) : new Uint16Array(buffer), shape: x.shape, dtype };
}

export const given = (fixture: Fixture, name: string): types.TensorLike => tensor(stored(fixture, name));
export const vector = (fixture: Fixture, name: string): Float32Array | undefined => {
  const found = fixture.tensors.get(name);
  return found && float32(found);
};
const whole = (fixture: Fixture, name: string): number[] | undefined => {
  const found = fixture.tensors.get(name);
  return found && integers(found);
};

/** Attention's options in the words of the public API. */
export function attentionOptions(fixture: Fixture): types.DiffAttentionOptions & Anything {
  const { options: c, tensors } = fixture;
  const lambda = c["lambda"];
  const lambdas = tensors.get("lambda");
  const mask = tensors.get("mask");
  const bias = tensors.get("bias");
  const sinks = tensors.get("sinks");
  const blocks = tensors.get("block_mask");
  const all: Anything = {
    lambda: lambdas ? { data: float32(lambdas), shape: lambdas.shape } : lambda,
    coefficients: c["coefficients"],
    pairing: c["heads"] ? undefined : c["pairing"],
    heads: c["heads"],
    ratio: c["ratio"],
    kvRepeat: c["kv_repeat"],
    layout: c["layout"],
    scale: c["scale"],
    isCausal: c["causal"],
    softcap: c["softcap"],
    window: c["window"],
    attnMask: mask && { data: mask.bytes, shape: mask.shape },
    attnBias: bias && { data: float32(bias), shape: bias.shape },
    sinks: sinks && { data: float32(sinks), shape: sinks.shape },
    blockMask: blocks && { data: blocks.bytes, shape: blocks.shape },
    keyLengths: whole(fixture, "key_lengths"),
    queryOffset: whole(fixture, "query_offset"),
    cuSeqlensQ: tensors.has("cu_seqlens_q") ? Int32Array.from(integers(stored(fixture, "cu_seqlens_q"))) : undefined,
    cuSeqlensK: tensors.has("cu_seqlens_k") ? Int32Array.from(integers(stored(fixture, "cu_seqlens_k"))) : undefined,
  };
  return all;
}

/** 2e-6 of the largest expected value: what a float32 computation of these sizes reaches. */
export const relative =
  (expected: Float64Array, factor = 2e-6): Bound =>
  () =>
    factor * largest(expected);

export function check<R extends Result>(
  name: string,
  expected: Float64Array,
  bound: Bound,
  run: (api: Api) => Promise<R>,
  runSync: (api: Api) => R,
): Check {
  return { name, expected, bound, run, runSync };
}
