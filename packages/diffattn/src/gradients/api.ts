// The public names of gradients, each with its public type, for every entry of the operators. Who
// imports none of them has neither this code nor the modules that compute them. No arithmetic.

import type { Stream } from "../atoms.js";
import * as requests from "../operators.js";
import { tensorPlan } from "../plans.js";
import { type Plan, runAsync } from "../run.js";
import { runSync } from "../run-sync.js";
import type * as types from "../types.js";
import { training, trainingNow } from "./backend.js";
import { gradientsPlan } from "./plans.js";

type Given = types.TensorLike;

const attention = (dy: Given, q: Given, k: Given, v: Given, options: types.DiffAttentionBackwardOptions) =>
  gradientsPlan<types.AllAttentionGradients>(requests.diffAttentionBackward([dy, q, k, v], options), options, [
    "dq",
    "dk",
    "dv",
    "dlambda",
    "dcoefficients",
    "dnormWeight",
    "dattnBias",
    "dsinks",
  ]);
export const diffAttentionBackward: typeof types.diffAttentionBackward = async (dy, q, k, v, options) =>
  runAsync(attention(dy, q, k, v, options), training);
export const diffAttentionBackwardSync: typeof types.diffAttentionBackwardSync = (dy, q, k, v, options) =>
  runSync(attention(dy, q, k, v, options), trainingNow);

const rms = (dy: Given, x: Given, options: types.RmsNormBackwardOptions | undefined) =>
  gradientsPlan<types.RmsNormGradients>(requests.rmsNormBackward(dy, x, options), options, ["dx", "dweight"]);
export const rmsNormBackward: typeof types.rmsNormBackward = async (dy, x, options) => runAsync(rms(dy, x, options), training);
export const rmsNormBackwardSync: typeof types.rmsNormBackwardSync = (dy, x, options) => runSync(rms(dy, x, options), trainingNow);

const group = (dy: Given, x: Given, options: types.GroupNormBackwardOptions) =>
  gradientsPlan<types.GroupNormGradients>(requests.groupNormBackward(dy, x, options), options, ["dx", "dweight", "dbias"]);
export const groupNormBackward: typeof types.groupNormBackward = async (dy, x, options) => runAsync(group(dy, x, options), training);
export const groupNormBackwardSync: typeof types.groupNormBackwardSync = (dy, x, options) => runSync(group(dy, x, options), trainingNow);

/** The plan of a gradient alone, float32 whatever dy is. */
const gradientPlan = (request: Stream, options: (types.CallOptions & types.OutOptions) | undefined): Plan<types.Tensor> =>
  tensorPlan({ ...request, dtype: "float32", half: false }, options);

const rope = (dy: Given, options: types.RopeOptions | undefined) => gradientPlan(requests.applyRopeBackward(dy, options), options);
export const applyRopeBackward: typeof types.applyRopeBackward = async (dy, options) => runAsync(rope(dy, options), training);
export const applyRopeBackwardSync: typeof types.applyRopeBackwardSync = (dy, options) => runSync(rope(dy, options), trainingNow);

const difference = (dy: Given, options: types.SequenceDifferenceOptions | undefined) =>
  gradientPlan(requests.sequenceDifferenceBackward(dy, options), options);
export const sequenceDifferenceBackward: typeof types.sequenceDifferenceBackward = async (dy, options) =>
  runAsync(difference(dy, options), training);
export const sequenceDifferenceBackwardSync: typeof types.sequenceDifferenceBackwardSync = (dy, options) =>
  runSync(difference(dy, options), trainingNow);

const lambda = (dlambda: number | types.Float32Like, vectors: types.LambdaFullBackwardOptions) =>
  gradientsPlan<types.LambdaFullGradients>(requests.lambdaFullBackward(dlambda, vectors), vectors, ["dq1", "dk1", "dq2", "dk2"]);
export const lambdaFullBackward: typeof types.lambdaFullBackward = async (dlambda, vectors) => runAsync(lambda(dlambda, vectors), training);
export const lambdaFullBackwardSync: typeof types.lambdaFullBackwardSync = (dlambda, vectors) =>
  runSync(lambda(dlambda, vectors), trainingNow);
