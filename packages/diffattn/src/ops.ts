// The numbers of requests, as crates/diffattn-door/PROTOCOL.md has them.

export const Op = {
  diffAttention: 1,
  diffAttentionMaps: 2,
  groupNorm: 3,
  rmsNorm: 4,
  applyRope: 5,
  sequenceDifference: 6,
  exportCache: 7,
  forward: 8,
  layerMaps: 9,
  lambdaInit: 32,
  lambdaFull: 33,
  createKvCache: 40,
  append: 41,
  rewind: 42,
  length: 43,
  createMultiheadDiffAttn: 44,
  createMultiheadDiffAttnV2: 45,
  drop: 46,
} as const;
