// What becomes of the outputs of a call for gradients: tensors by name, those that are there.

import type { Output, Request } from "../backend.js";
import { internal } from "../errors.js";
import { named } from "../plans.js";
import type { Plan } from "../run.js";
import type * as types from "../types.js";

/** The plan of a call that has all of these. */
export const namedPlan = <T>(
  request: Request,
  options: types.CallOptions | null | undefined,
  names: readonly (keyof T & string)[],
): Plan<T> => ({
  request,
  options,
  finish: (outputs) => named(names, outputs) as T,
});

/** The plan of a call whose first output says, a byte for each, which of these follow. */
export const gradientsPlan = <T>(
  request: Request,
  options: types.CallOptions | null | undefined,
  names: readonly (keyof T & string)[],
): Plan<T> => ({
  request,
  options,
  finish([given, ...outputs]: Output[]) {
    if (!given?.buffer) throw internal("gradients without a list of them");
    const flags = new Uint8Array(given.buffer);
    return named(
      names.filter((_, i) => flags[i] === 1),
      outputs,
    ) as T;
  },
});
