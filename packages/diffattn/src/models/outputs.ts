// Reads the outputs of models' requests. Knows no operator.

import type { Output } from "../backend.js";
import { internal } from "../errors.js";
import { result } from "../tensor.js";
import type { Tensor } from "../types.js";

const tooFew = (): Error => internal("a call with too few outputs");

/** An output's memory. */
export const bufferOf = (output: Output | undefined): ArrayBuffer => {
  if (!output) throw tooFew();
  return output.buffer ?? new ArrayBuffer(0);
};

/** An output that is JSON. */
export const jsonOf = (output: Output | undefined): unknown => JSON.parse(new TextDecoder().decode(bufferOf(output)));

export const int32Of = (output: Output | undefined): Int32Array<ArrayBuffer> => new Int32Array(bufferOf(output));

/** An output that is float32. */
export function tensorOf(output: Output | undefined): Tensor {
  if (!output) throw tooFew();
  return result(output, undefined, false) as Tensor;
}
