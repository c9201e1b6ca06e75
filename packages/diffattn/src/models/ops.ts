// The numbers of the models' requests, as crates/diffattn-door/PROTOCOL.md has them.

export const Op = {
  checkpoint: 64,
  shardFiles: 65,
  safetensorsHeader: 66,
  inspectCheckpoint: 67,
  castTensor: 68,
  modelInfo: 72,
  loadPart: 73,
  llamaForward: 80,
  generatorStep: 81,
  exportModelCache: 82,
  vitForward: 88,
  vitMaps: 89,
  vitClassify: 90,
  createModel: 96,
  createModelCache: 97,
  importModelCache: 98,
  rewindModelCache: 99,
  modelCacheLength: 100,
  createGenerator: 101,
} as const;
