// The public names of the operators, each with its public type, for every entry (node.ts, browser.ts, workerd.ts, edge-light.ts).

import * as api from "./api.js";
import type * as types from "./types.js";

export const init: typeof types.init = api.init;
export const info: typeof types.info = api.info;
export const setThreads: typeof types.setThreads = api.setThreads;
export const getThreads: typeof types.getThreads = api.getThreads;
export const dispose: typeof types.dispose = api.dispose;
export const createTensor: typeof types.createTensor = api.createTensor;
export const diffAttention: typeof types.diffAttention = api.diffAttention;
export const diffAttentionSync: typeof types.diffAttentionSync = api.diffAttentionSync;
export const diffAttentionMaps: typeof types.diffAttentionMaps = api.diffAttentionMaps;
export const diffAttentionMapsSync: typeof types.diffAttentionMapsSync = api.diffAttentionMapsSync;
export const groupNorm: typeof types.groupNorm = api.groupNorm;
export const groupNormSync: typeof types.groupNormSync = api.groupNormSync;
export const rmsNorm: typeof types.rmsNorm = api.rmsNorm;
export const rmsNormSync: typeof types.rmsNormSync = api.rmsNormSync;
export const applyRope: typeof types.applyRope = api.applyRope;
export const applyRopeSync: typeof types.applyRopeSync = api.applyRopeSync;
export const sequenceDifference: typeof types.sequenceDifference = api.sequenceDifference;
export const sequenceDifferenceSync: typeof types.sequenceDifferenceSync = api.sequenceDifferenceSync;
export const lambdaInit: typeof types.lambdaInit = api.lambdaInit;
export const lambdaFull: typeof types.lambdaFull = api.lambdaFull;
export const KvCache: typeof types.KvCache = api.KvCache;
export const MultiheadDiffAttn: typeof types.MultiheadDiffAttn = api.MultiheadDiffAttn;
export const MultiheadDiffAttnV2: typeof types.MultiheadDiffAttnV2 = api.MultiheadDiffAttnV2;
export const DiffAttnError: typeof types.DiffAttnError = api.DiffAttnError;
