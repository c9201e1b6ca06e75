// What becomes of a call's outputs: a tensor, tensors by name, or maps.

import type { Output, Request } from "./backend.js";
import type { Stream } from "./atoms.js";
import { internal } from "./errors.js";
import type { Plan } from "./run.js";
import { result } from "./tensor.js";
import type * as types from "./types.js";

/**
 * The plan of a call with one result of its input's element type, and of what follows it, by their
 * names.
 */
export function tensorPlan(
  request: Stream,
  options: (types.CallOptions & types.OutOptions) | null | undefined,
  names: readonly string[] = [],
) {
  // Now: a draft or a proxy may be revoked once the call is under way.
  const out = options?.out ?? undefined;
  return {
    request,
    options,
    outs: out === undefined ? [] : [{ argument: "out", array: out, dtype: request.dtype }],
    // The element type of `data` follows the input's, which the public types say.
    // eslint-disable-next-line @typescript-eslint/no-explicit-any
    finish([first, ...others]: Output[]): any {
      if (!first) throw internal("a call without outputs");
      const tensor = result(first, out, request.half);
      // (A small call feels what is made of nothing.)
      return others.length > 0 ? Object.assign(tensor, named(names, others)) : tensor;
    },
  } satisfies Plan<types.Tensor>;
}

/** Outputs as tensors, by their names. */
export const named = <N extends string>(names: readonly N[], outputs: readonly Output[]): Partial<Record<N, types.Tensor>> =>
  Object.fromEntries(outputs.map((output, i) => [names[i], result(output, undefined, false)])) as Partial<Record<N, types.Tensor>>;

/** Maps of a call's outputs: one per term, then their difference. */
export function mapsOf(outputs: readonly Output[]): types.AttentionMaps {
  const maps = outputs.map((output): types.Tensor => result(output, undefined, false) as types.Tensor);
  const diff = maps.pop();
  if (!diff) throw internal("a call without outputs");
  const [map1, map2] = maps;
  return map1 && map2 && maps.length === 2 ? { map1, map2, diff } : { maps, diff };
}

/** The plan of a call for maps. */
export function mapsPlan(request: Request, options: types.CallOptions | null | undefined): Plan<types.AttentionMaps> {
  return { request, options, finish: mapsOf };
}
