// The public names of the operators, each with its public type, for every entry (node.ts,
// browser.ts, workerd.ts, edge-light.ts). An operator is a request, run on whatever backend there
// is. Who imports one name loads nothing of the others. No arithmetic.

import * as caches from "./cache.js";
import * as errors from "./errors.js";
import * as state from "./init.js";
import * as layers from "./layers.js";
import { local } from "./local.js";
import * as memory from "./memory.js";
import * as requests from "./operators.js";
import { mapsPlan, tensorPlan } from "./plans.js";
import { runAsync } from "./run.js";
import { runSync } from "./run-sync.js";
import type * as types from "./types.js";

// (Names of our own, not those of other files: bundlers that believe that entries do nothing would
// pass by an entry that only hands on, and with it what it does first.)
export const init: typeof types.init = state.init;
export const info: typeof types.info = state.info;
export const setThreads: typeof types.setThreads = state.setThreads;
export const getThreads: typeof types.getThreads = state.getThreads;
export const dispose: typeof types.dispose = state.dispose;
export const createTensor: typeof types.createTensor = memory.createTensor;
export const KvCache: typeof types.KvCache = caches.KvCache;
export const MultiheadDiffAttn: typeof types.MultiheadDiffAttn = layers.MultiheadDiffAttn;
export const MultiheadDiffAttnV2: typeof types.MultiheadDiffAttnV2 = layers.MultiheadDiffAttnV2;
export const DiffAttnError: typeof types.DiffAttnError = errors.DiffAttnError;

// The element type of a result follows the input's, which the public types say.
/* eslint-disable @typescript-eslint/no-unsafe-return */

// What an operator refuses at once is thrown by its sync form and rejects the promise of the other.

type Source = types.TensorLike | types.KvCache;

function attention(q: types.TensorLike, k: Source, v: types.TensorLike | null, options: types.DiffAttentionOptions | null) {
  const request = requests.diffAttention(q, k, v, options, caches.handleOf("k", k));
  const names: string[] = [];
  if (options?.returnLse) names.push("lse");
  if (options?.returnPreNorm) names.push("preNorm");
  return tensorPlan(request, options, names);
}
export const diffAttention: typeof types.diffAttention = async (q, k, v, options) => runAsync(attention(q, k, v, options));
export const diffAttentionSync: typeof types.diffAttentionSync = (q, k, v, options) => runSync(attention(q, k, v, options));

const maps = (q: types.TensorLike, k: Source, options: types.DiffAttentionMapsOptions) =>
  mapsPlan(requests.diffAttentionMaps(q, k, options, caches.handleOf("k", k)), options);
export const diffAttentionMaps: typeof types.diffAttentionMaps = async (q, k, options) => runAsync(maps(q, k, options));
export const diffAttentionMapsSync: typeof types.diffAttentionMapsSync = (q, k, options) => runSync(maps(q, k, options));

const group = (x: types.TensorLike, options: types.GroupNormOptions) => tensorPlan(requests.groupNorm(x, options), options);
export const groupNorm: typeof types.groupNorm = async (x, options) => runAsync(group(x, options));
export const groupNormSync: typeof types.groupNormSync = (x, options) => runSync(group(x, options));

const rms = (x: types.TensorLike, options: types.RmsNormOptions | undefined) => tensorPlan(requests.rmsNorm(x, options), options);
export const rmsNorm: typeof types.rmsNorm = async (x, options) => runAsync(rms(x, options));
export const rmsNormSync: typeof types.rmsNormSync = (x, options) => runSync(rms(x, options));

const rope = (x: types.TensorLike, options: types.RopeOptions | undefined) => tensorPlan(requests.applyRope(x, options), options);
export const applyRope: typeof types.applyRope = async (x, options) => runAsync(rope(x, options));
export const applyRopeSync: typeof types.applyRopeSync = (x, options) => runSync(rope(x, options));

const difference = (x: types.TensorLike, options: types.SequenceDifferenceOptions | undefined) =>
  tensorPlan(requests.sequenceDifference(x, options), options);
export const sequenceDifference: typeof types.sequenceDifference = async (x, options) => runAsync(difference(x, options));
export const sequenceDifferenceSync: typeof types.sequenceDifferenceSync = (x, options) => runSync(difference(x, options));

export const lambdaInit: typeof types.lambdaInit = (layer) => local().query(requests.lambdaInit(layer));
export const lambdaFull: typeof types.lambdaFull = (vectors) => local().query(requests.lambdaFull(vectors));
