// What becomes of the outputs of a call for gradients: tensors by name, those that are there, in
// arrays of the caller where it gave some.

import type { Output, Request } from "../backend.js";
import { checkOptions, isAbsent, Kind, unreadable } from "../check.js";
import type { Plan } from "../run.js";
import { result } from "../tensor.js";
import type * as types from "../types.js";

/** Whether the call has the gradient: one that it has not is told as uint8 of rank 0. */
const isThere = ({ kind, shape }: Output): boolean => kind !== Kind.uint8 || shape.length > 0;

/** Gradients by their names, those that are there; in `arrays` where these have a place for one. */
export const gradientsOf = (
  names: readonly string[],
  outputs: readonly Output[],
  arrays: readonly (Float32Array | undefined)[] = [],
): Record<string, types.Tensor> =>
  Object.fromEntries(
    outputs.flatMap((output, i) => (isThere(output) ? [[names[i], result(output, arrays[i], false) as types.Tensor]] : [])),
  ) as Record<string, types.Tensor>;

/** The arrays that the caller gave, in the order of their names. */
function arraysOf(out: object | null | undefined, names: readonly string[]): (Float32Array | undefined)[] {
  if (isAbsent(out)) return [];
  const said = checkOptions<Record<string, Float32Array | null>>("out", out as Record<string, Float32Array>, names);
  try {
    return names.map((name) => said[name] ?? undefined);
  } catch (thrown) {
    return unreadable("OPTION", "out", thrown);
  }
}

/** The plan of a call for gradients of these names, in the protocol's order. */
export function gradientsPlan<T>(
  request: Request,
  options: (types.CallOptions & { readonly out?: object | null | undefined }) | null | undefined,
  names: readonly (keyof T & string)[],
): Plan<T> {
  // Now: what the caller gave may be another thing once the call is under way.
  const arrays = arraysOf(options?.out, names);
  return {
    request,
    options,
    outs: arrays.map((array, i) => (array === undefined ? null : { argument: `out.${names[i]}`, array, dtype: "float32" })),
    finish: (outputs) => gradientsOf(names, outputs, arrays) as T,
  };
}
