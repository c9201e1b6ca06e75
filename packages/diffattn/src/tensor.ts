// Result tensors from a backend's outputs, and tensors in a backend's own memory. Checks no argument of an operator.

import type { BackendMemory, Output } from "./backend.js";
import { DTYPES, isArray, oneOf, show } from "./check.js";
import { fail, internal } from "./errors.js";
import { backend } from "./init.js";
import { Owned, resourceOf, throughProxies } from "./owned.js";
import type * as types from "./types.js";

type HalfArray = new (buffer: ArrayBufferLike, offset?: number, length?: number) => types.Float16ArrayLike;
const { Float16Array } = globalThis as { Float16Array?: HalfArray };

/** Elements over bytes. `half`: whether float16 is wanted as a Float16Array, where the runtime has one. */
function elements(dtype: types.DType, { buffer, byteOffset, byteLength }: Uint8Array, half: boolean): types.TensorData {
  if (dtype === "float32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  const Half = dtype === "float16" && half && Float16Array ? Float16Array : Uint16Array;
  return new Half(buffer, byteOffset, byteLength / 2);
}

/** A result in the form of ours and of onnxruntime; typed by its caller, who knows the element type. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function result({ kind, shape, buffer }: Output, out: types.TensorData | undefined, half: boolean): types.Tensor<any> {
  const dtype = DTYPES[kind - 1];
  if (dtype === undefined) throw internal(`an output of kind ${kind}`);
  const data = out ?? elements(dtype, new Uint8Array(buffer ?? new ArrayBuffer(0)), half);
  return { data, shape, dims: shape, dtype, type: dtype };
}

/** Tensors that a view of their memory keeps alive. */
const owners = new WeakMap<object, object>();

class MemoryTensor extends Owned<BackendMemory> implements types.BackendTensor {
  static {
    throughProxies(this);
  }

  readonly shape: readonly number[];
  readonly dims: readonly number[];
  readonly dtype: types.DType;
  readonly type: types.DType;

  constructor(shape: readonly number[], dtype: types.DType, memory: BackendMemory) {
    super("tensor", memory, () => memory.release(), memory.leaks);
    this.shape = this.dims = shape;
    this.dtype = this.type = dtype;
  }

  get data(): types.TensorData {
    const data = elements(this.dtype, resourceOf(this).bytes(), true);
    // Else the memory could be given away under a view whose tensor was forgotten.
    owners.set(data, this);
    return data;
  }
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function createTensor(shape: readonly number[], dtype: types.DType = "float32"): any {
  if (!DTYPES.includes(dtype)) fail("DTYPE", "dtype", oneOf(DTYPES), show(dtype));
  // (By its places, up to the first that is none: an array of nothing may have any length.)
  const isShape = (x: unknown): x is readonly number[] => {
    if (!isArray(x)) return false;
    for (let i = 0; i < x.length; i++) if (!(Number.isInteger(x[i]) && (x[i] as number) >= 0)) return false;
    return true;
  };
  if (!isShape(shape)) fail("SHAPE", "shape", "an array of counts", show(shape));
  const bytes = shape.reduce((product, extent) => product * extent, dtype === "float32" ? 4 : 2);
  if (!Number.isSafeInteger(bytes)) fail("SHAPE", "shape", "a shape whose element count fits this machine", show(shape));
  return new MemoryTensor([...shape], dtype, backend().createMemory(bytes));
}
