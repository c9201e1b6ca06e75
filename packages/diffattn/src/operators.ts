// The requests of operators and layers, from the arguments of the public functions.

import type { Stream } from "./atoms.js";
import type { Handle } from "./backend.js";
import { isAbsent, show } from "./check.js";
import { type Differing, encode } from "./encode.js";
import { fail } from "./errors.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

/**
 * Compiles where nothing differs; else the error names the options that only one side has, or whose
 * types differ.
 */
type Same<Difference extends never> = Difference;
type Call = keyof (types.CallOptions & types.OutOptions);
type In<Name extends keyof typeof requests, T, Besides = never> = Differing<(typeof requests)[Name], T, Call | Besides>;

/** The tables of requests and types.ts have the same options. */
export type Documented = [
  Same<In<"diffAttention", types.DiffAttentionOptions>>,
  Same<In<"diffAttentionMaps", types.DiffAttentionMapsOptions, "norm" | "returnLse">>,
  Same<In<"groupNorm", types.GroupNormOptions>>,
  Same<In<"rmsNorm", types.RmsNormOptions>>,
  Same<In<"applyRope", types.RopeOptions>>,
  Same<In<"sequenceDifference", types.SequenceDifferenceOptions>>,
  Same<In<"diffAttentionBackward", types.DiffAttentionBackwardOptions, "returnLse">>,
  Same<In<"rmsNormBackward", types.RmsNormBackwardOptions>>,
  Same<In<"groupNormBackward", types.GroupNormBackwardOptions>>,
  Same<In<"applyRopeBackward", types.RopeOptions>>,
  Same<In<"sequenceDifferenceBackward", types.SequenceDifferenceOptions>>,
  Same<In<"lambdaFullBackward", types.LambdaFullBackwardOptions>>,
  Same<In<"forward", types.LayerForwardOptions, "cache">>,
  Same<In<"layerVjp", types.LayerVjpOptions>>,
  Same<In<"layerBackward", types.CallOptions>>,
  Same<In<"layerMaps", types.CallOptions>>,
  Same<In<"lambdaFull", Parameters<typeof types.lambdaFull>[0]>>,
  Same<In<"createKvCache", types.KvCacheOptions>>,
  Same<In<"append", NonNullable<Parameters<types.KvCache["append"]>[2]>>>,
  Same<In<"createMultiheadDiffAttn", types.MultiheadDiffAttnOptions>>,
  Same<In<"createMultiheadDiffAttnV2", types.MultiheadDiffAttnV2Options>>,
];

/** Options that are no part of a request (run.ts). */
const CALL = ["signal", "onProgress", "transfer"];
const CALL_OUT = ["out", "signal", "onProgress", "transfer"];

/** A tensor of the caller; what it is, is for its writer to say. */
type Given = types.TensorLike;

export const groupNorm = (x: unknown, options: unknown): Stream => encode(requests.groupNorm, { x: x as Given }, options, CALL_OUT);

export const rmsNorm = (x: unknown, options: unknown): Stream => encode(requests.rmsNorm, { x: x as Given }, options, CALL_OUT);

export const applyRope = (x: unknown, options: unknown): Stream => encode(requests.applyRope, { x: x as Given }, options, CALL_OUT);

export const sequenceDifference = (x: unknown, options: unknown): Stream =>
  encode(requests.sequenceDifference, { x: x as Given }, options, CALL_OUT);

export function diffAttention(q: unknown, k: unknown, v: unknown, options: unknown, cache: Handle | undefined): Stream {
  if (cache && !isAbsent(v)) fail("OPTION", "v", "null beside a KvCache", show(v));
  const source = cache ? { cache } : { tensors: { k: k as Given, v: v as Given } };
  return encode(requests.diffAttention, { q: q as Given, source }, options, CALL_OUT);
}

export const diffAttentionMaps = (q: unknown, k: unknown, options: unknown, cache: Handle | undefined): Stream =>
  encode(requests.diffAttentionMaps, { q: q as Given, source: cache ? { cache } : { tensors: { k: k as Given } } }, options, CALL, [
    "norm",
    "returnLse",
  ]);

/** Of dy, q, k and v. */
export const diffAttentionBackward = ([dy, q, k, v]: readonly [unknown, unknown, unknown, unknown], options: unknown): Stream =>
  encode(requests.diffAttentionBackward, { dy: dy as Given, q: q as Given, k: k as Given, v: v as Given }, options, CALL_OUT, [
    "returnLse",
  ]);

export const rmsNormBackward = (dy: unknown, x: unknown, options: unknown): Stream =>
  encode(requests.rmsNormBackward, { dy: dy as Given, x: x as Given }, options, CALL_OUT);

export const groupNormBackward = (dy: unknown, x: unknown, options: unknown): Stream =>
  encode(requests.groupNormBackward, { dy: dy as Given, x: x as Given }, options, CALL_OUT);

export const applyRopeBackward = (dy: unknown, options: unknown): Stream =>
  encode(requests.applyRopeBackward, { dy: dy as Given }, options, CALL_OUT);

export const sequenceDifferenceBackward = (dy: unknown, options: unknown): Stream =>
  encode(requests.sequenceDifferenceBackward, { dy: dy as Given }, options, CALL_OUT);

export const lambdaFullBackward = (dlambda: unknown, vectors: unknown): Stream =>
  encode(requests.lambdaFullBackward, { dlambda: dlambda as number }, vectors, CALL);

export const createLayerVjp = (): Stream => encode(requests.createLayerVjp, {});

export const layerVjp = (vjp: Handle, layer: Handle, x: unknown, options: unknown): Stream =>
  encode(requests.layerVjp, { vjp, layer, x: x as Given }, options, CALL);

export const layerBackward = (vjp: Handle, dy: unknown, options: unknown): Stream =>
  encode(requests.layerBackward, { vjp, dy: dy as Given }, options, CALL);

export const lambdaInit = (layer: unknown): Stream => encode(requests.lambdaInit, { layer: layer as number });

export const lambdaFull = (vectors: unknown): Stream => encode(requests.lambdaFull, {}, vectors);

export const createKvCache = (options: unknown): Stream => encode(requests.createKvCache, {}, options);

export const createMultiheadDiffAttn = (options: unknown): Stream => encode(requests.createMultiheadDiffAttn, {}, options);

export const createMultiheadDiffAttnV2 = (options: unknown): Stream => encode(requests.createMultiheadDiffAttnV2, {}, options);

export const cacheLength = (cache: Handle): Stream => encode(requests.length, { cache });

export const append = (cache: Handle, k: unknown, v: unknown, options: unknown): Stream =>
  encode(requests.append, { cache, k: k as Given, v: v as Given }, options);

export const rewind = (cache: Handle, length: unknown): Stream => encode(requests.rewind, { cache, length: length as number });

export const forward = (layer: Handle, x: unknown, cache: Handle | undefined, options: unknown): Stream =>
  encode(requests.forward, { layer, x: x as Given, cache }, options, ["cache", ...CALL_OUT]);

export const setWeights = (layer: Handle, weights: unknown): Stream => encode(requests.setWeights, { layer }, { weights });

export const layerMaps = (layer: Handle, x: unknown, options: unknown): Stream =>
  encode(requests.layerMaps, { layer, x: x as Given }, options, CALL);
