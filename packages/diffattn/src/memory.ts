// Tensors in a backend's own memory.

import type { BackendMemory } from "./backend.js";
import { DTYPES, isArray, oneOf, show } from "./check.js";
import { fail } from "./errors.js";
import { local } from "./local.js";
import { Owned, resourceOf } from "./owned.js";
import { elements } from "./tensor.js";
import type * as types from "./types.js";

/** Tensors that a view of their memory keeps alive. */
const owners = new WeakMap<object, object>();

class MemoryTensor extends Owned<BackendMemory> implements types.BackendTensor {
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
    const data = elements(this.dtype, resourceOf<BackendMemory>(this).bytes(), true);
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
  return new MemoryTensor([...shape], dtype, local().createMemory(bytes));
}
