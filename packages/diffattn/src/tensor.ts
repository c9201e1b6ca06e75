// Result tensors from a backend's outputs. Checks no argument of an operator.

import type { Output } from "./backend.js";
import { DTYPES } from "./check.js";
import { internal } from "./errors.js";
import type * as types from "./types.js";

type HalfArray = new (buffer: ArrayBufferLike, offset?: number, length?: number) => types.Float16ArrayLike;
const { Float16Array } = globalThis as { Float16Array?: HalfArray };

/**
 * Elements over bytes. `half`: whether float16 is wanted as a Float16Array, where the runtime has
 * one.
 */
export function elements(dtype: types.DType, { buffer, byteOffset, byteLength }: Uint8Array, half: boolean): types.TensorData {
  if (dtype === "float32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  const Half = dtype === "float16" && half && Float16Array ? Float16Array : Uint16Array;
  return new Half(buffer, byteOffset, byteLength / 2);
}

/**
 * A result in the form of ours and of onnxruntime; typed by its caller, who knows the element type.
 */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function result({ kind, shape, buffer }: Output, out: types.TensorData | undefined, half: boolean): types.Tensor<any> {
  const dtype = DTYPES[kind - 1];
  if (dtype === undefined) throw internal(`an output of kind ${kind}`);
  const data = out ?? elements(dtype, new Uint8Array(buffer ?? new ArrayBuffer(0)), half);
  return { data, shape, dims: shape, dtype, type: dtype };
}
