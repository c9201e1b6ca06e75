// Requests of operators, layers and gradients. Generated from crates/diffattn-door: not edited by hand.

import {
  choice,
  fields,
  flag,
  integer,
  integerTensor,
  list,
  mask,
  nullable,
  number,
  numberOrVector,
  object,
  oneOrMore,
  optional,
  or,
  orNone,
  pair,
  record,
  size,
  tensor,
  variant,
  vector,
  weights,
} from "./atoms.js";

const attention = {
  lambda: numberOrVector,
  coefficients: [optional, [list, number]],
  pairing: [optional, [choice, "interleaved", "halves", "grouped", "shared"]],
  heads: [optional, [list, [record, { q: [list, size], k: [list, size], v: [list, size], coefficients: [optional, [list, number]] }]]],
  ratio: [optional, size],
  kvRepeat: [optional, [choice, "paired", "flat"]],
  layout: [or, "bhsd", [choice, "bhsd", "bshd"]],
  scale: [optional, number],
  isCausal: [or, false, flag],
  softcap: [optional, number],
  window: [optional, [pair, "left", "right", [optional, size]]],
  attnMask: [nullable, mask],
  attnBias: [nullable, vector],
  keyLengths: [optional, [list, integer]],
  queryOffset: [optional, [oneOrMore, integer]],
  cuSeqlensQ: [optional, [list, integer]],
  cuSeqlensK: [optional, [list, integer]],
  norm: [optional, [record, { eps: [optional, number], weight: [nullable, vector], scale: [optional, number] }]],
  returnLse: [or, false, flag],
  deterministic: [or, false, flag],
  sinks: [nullable, vector],
  blockMask: [nullable, mask],
} as const;

export const diffAttention = {
  op: 1,
  operands: { q: tensor, source: [variant, { tensors: [fields, { k: tensor, v: tensor }], cache: object }] },
  options: [attention, { returnPreNorm: [or, false, flag] }],
} as const;

export const diffAttentionMaps = {
  op: 2,
  operands: { q: tensor, source: [variant, { tensors: [fields, { k: tensor }], cache: object }] },
  options: [attention, { numKvHeads: [optional, size], rows: [optional, [pair, "first", "end", size]] }],
} as const;

const groupNormOptions = {
  numGroups: size,
  weight: [nullable, vector],
  bias: [nullable, vector],
  eps: [optional, number],
  layout: [or, "nchw", [choice, "nchw", "nhwc"]],
  activation: [optional, [choice, "silu"]],
} as const;

export const groupNorm = { op: 3, operands: { x: tensor }, options: [groupNormOptions] } as const;

const rmsNormOptions = { weight: [nullable, vector], eps: [optional, number], scale: [optional, number] } as const;

export const rmsNorm = { op: 4, operands: { x: tensor }, options: [rmsNormOptions] } as const;

const scaling = {
  rope_type: [choice, "default", "linear", "llama3", "yarn"],
  rope_theta: [optional, number],
  factor: [optional, number],
  low_freq_factor: [optional, number],
  high_freq_factor: [optional, number],
  original_max_position_embeddings: [optional, number],
  attention_factor: [optional, number],
  beta_fast: [optional, number],
  beta_slow: [optional, number],
  mscale: [optional, number],
  mscale_all_dim: [optional, number],
  truncate: [optional, flag],
} as const;

const rope = { interleaved: [optional, flag], theta: [optional, number], scaling: [optional, [record, scaling]] } as const;

const ropePlaces = {
  layout: [or, "bhsd", [choice, "bhsd", "bshd"]],
  firstPosition: [optional, [oneOrMore, integer]],
  positions: [optional, integerTensor],
  rotaryDim: [optional, size],
} as const;

export const applyRope = { op: 5, operands: { x: tensor }, options: [rope, ropePlaces] } as const;

const differenceOptions = { order: [optional, size], layout: [or, "bhsd", [choice, "bhsd", "bshd"]] } as const;

export const sequenceDifference = { op: 6, operands: { x: tensor }, options: [differenceOptions] } as const;

export const exportCache = { op: 7, operands: { cache: object }, options: [] } as const;

export const forward = {
  op: 8,
  operands: { layer: object, x: tensor, cache: [optional, object] },
  options: [{ attnMask: [nullable, mask] }],
} as const;

export const layerMaps = { op: 9, operands: { layer: object, x: tensor }, options: [] } as const;

export const lambdaInit = { op: 32, operands: { layer: number }, options: [] } as const;

export const lambdaFull = { op: 33, operands: {}, options: [{ q1: vector, k1: vector, q2: vector, k2: vector, init: number }] } as const;

export const createKvCache = {
  op: 40,
  operands: {},
  options: [
    {
      groups: size,
      headDim: size,
      valueDim: size,
      capacity: [optional, size],
      terms: [optional, size],
      dtype: [or, "float32", [choice, "float32", "float16", "bfloat16", "int8"]],
      batch: [optional, size],
    },
  ],
} as const;

export const append = {
  op: 41,
  operands: { cache: object, k: tensor, v: tensor },
  options: [{ layout: [or, "bhsd", [choice, "bhsd", "bshd"]] }],
} as const;

export const rewind = { op: 42, operands: { cache: object, length: size }, options: [] } as const;

export const length = { op: 43, operands: { cache: object }, options: [] } as const;

export const createMultiheadDiffAttn = {
  op: 44,
  operands: {},
  options: [
    {
      embedDim: size,
      depth: size,
      lambdaInit: [optional, number],
      numHeads: size,
      numKvHeads: [optional, size],
      headDim: [optional, size],
      rope: [optional, [record, rope]],
      pairing: [optional, [choice, "interleaved", "halves", "grouped", "shared"]],
      ratio: [optional, size],
      kvRepeat: [optional, [choice, "paired", "flat"]],
      isCausal: [optional, flag],
      valueDim: [optional, size],
      norm: [orNone, [record, { eps: [optional, number], affine: [optional, flag] }]],
      lambdaForm: [optional, [choice, "vectors", "scalars"]],
      sequence: [optional, [record, { order: [or, 1, size], share: number, fusion: number }]],
      weights: [
        weights,
        "q_proj.weight",
        "q_proj.bias",
        "k_proj.weight",
        "k_proj.bias",
        "v_proj.weight",
        "v_proj.bias",
        "out_proj.weight",
        "out_proj.bias",
        "lambda_q1",
        "lambda_k1",
        "lambda_q2",
        "lambda_k2",
        "lambda_a",
        "lambda_b",
        "subln.weight",
      ],
    },
  ],
} as const;

export const createMultiheadDiffAttnV2 = {
  op: 45,
  operands: {},
  options: [
    {
      embedDim: size,
      numHeads: size,
      numKvHeads: [optional, size],
      headDim: size,
      ratio: [optional, size],
      rope: [optional, [record, rope]],
      isCausal: [optional, flag],
      weights: [
        weights,
        "q_proj.weight",
        "q_proj.bias",
        "k_proj.weight",
        "k_proj.bias",
        "v_proj.weight",
        "v_proj.bias",
        "out_proj.weight",
        "out_proj.bias",
        "lambda_proj.weight",
        "lambda_proj.bias",
      ],
    },
  ],
} as const;

export const drop = { op: 46, operands: { id: integer }, options: [] } as const;

export const setWeights = {
  op: 47,
  operands: { layer: object },
  options: [
    {
      weights: [
        weights,
        "q_proj.weight",
        "q_proj.bias",
        "k_proj.weight",
        "k_proj.bias",
        "v_proj.weight",
        "v_proj.bias",
        "out_proj.weight",
        "out_proj.bias",
        "lambda_q1",
        "lambda_k1",
        "lambda_q2",
        "lambda_k2",
        "lambda_a",
        "lambda_b",
        "subln.weight",
        "lambda_proj.weight",
        "lambda_proj.bias",
      ],
    },
  ],
} as const;

export const diffAttentionBackward = {
  op: 128,
  operands: { dy: tensor, q: tensor, k: tensor, v: tensor },
  options: [
    attention,
    {
      result: [nullable, tensor],
      needs: [optional, [list, [choice, "q", "k", "v", "lambda", "coefficients", "normWeight", "attnBias", "sinks"]]],
    },
  ],
} as const;

export const rmsNormBackward = { op: 129, operands: { dy: tensor, x: tensor }, options: [rmsNormOptions] } as const;

export const groupNormBackward = { op: 130, operands: { dy: tensor, x: tensor }, options: [groupNormOptions] } as const;

export const applyRopeBackward = { op: 131, operands: { dy: tensor }, options: [rope, ropePlaces] } as const;

export const sequenceDifferenceBackward = { op: 132, operands: { dy: tensor }, options: [differenceOptions] } as const;

export const lambdaFullBackward = {
  op: 133,
  operands: { dlambda: numberOrVector },
  options: [{ q1: vector, k1: vector, q2: vector, k2: vector }],
} as const;

export const createLayerVjp = { op: 134, operands: {}, options: [] } as const;

export const layerVjp = {
  op: 135,
  operands: { vjp: object, layer: object, x: tensor },
  options: [{ attnMask: [nullable, mask] }],
} as const;

export const layerBackward = { op: 136, operands: { vjp: object, dy: tensor }, options: [] } as const;
