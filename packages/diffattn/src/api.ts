// The operators, written once for both entries: encode, run on whatever backend there is, make results. No arithmetic.

import { handleOf } from "./cache.js";
import * as encode from "./encode.js";
import { backend } from "./init.js";
import { mapsPlan, tensorPlan } from "./plans.js";
import { both } from "./run.js";
import type * as types from "./types.js";

export { KvCache } from "./cache.js";
export { DiffAttnError } from "./errors.js";
export { dispose, getThreads, info, init, setThreads } from "./init.js";
export { MultiheadDiffAttn, MultiheadDiffAttnV2 } from "./layers.js";
export { createTensor } from "./tensor.js";

export const [diffAttention, diffAttentionSync] = both(
  (q: types.TensorLike, k: types.TensorLike | types.KvCache, v: types.TensorLike | null, options: types.DiffAttentionOptions) =>
    tensorPlan(encode.diffAttention(q, k, v, options, handleOf("k", k)), options),
);

export const [diffAttentionMaps, diffAttentionMapsSync] = both(
  (q: types.TensorLike, k: types.TensorLike | types.KvCache, options: types.DiffAttentionMapsOptions) =>
    mapsPlan(encode.diffAttentionMaps(q, k, options, handleOf("k", k)), options),
);

export const [groupNorm, groupNormSync] = both((x: types.TensorLike, options: types.GroupNormOptions) =>
  tensorPlan(encode.groupNorm(x, options), options),
);

export const [rmsNorm, rmsNormSync] = both((x: types.TensorLike, options?: types.RmsNormOptions) =>
  tensorPlan(encode.rmsNorm(x, options), options),
);

export const [applyRope, applyRopeSync] = both((x: types.TensorLike, options?: types.RopeOptions) =>
  tensorPlan(encode.applyRope(x, options), options),
);

export const [sequenceDifference, sequenceDifferenceSync] = both((x: types.TensorLike, options?: types.SequenceDifferenceOptions) =>
  tensorPlan(encode.sequenceDifference(x, options), options),
);

export const lambdaInit = (layer: number): number => backend().query(encode.lambdaInit(layer));

export const lambdaFull = (vectors: Parameters<typeof types.lambdaFull>[0]): number => backend().query(encode.lambdaFull(vectors));
