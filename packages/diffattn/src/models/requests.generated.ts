// Requests of models and checkpoints. Generated from crates/diffattn-door: not edited by hand.

import {
  choice,
  fields,
  flag,
  int32,
  integer,
  list,
  nullable,
  number,
  numbers,
  object,
  optional,
  or,
  record,
  size,
  tensor,
  tensors,
  text,
  uint8,
  variant,
} from "./atoms.js";

export const checkpoint = {
  op: 64,
  operands: {
    index: [optional, [fields, { file: text, json: text }]],
    files: [list, [fields, { file: text, length: size, first: uint8 }]],
    maxTensors: [optional, size],
  },
  options: [],
} as const;

export const shardFiles = { op: 65, operands: { file: text, json: text, maxTensors: [optional, size] }, options: [] } as const;

export const safetensorsHeader = { op: 66, operands: { spec: text }, options: [] } as const;

export const inspectCheckpoint = { op: 67, operands: { entries: text, config: [optional, text] }, options: [] } as const;

export const castTensor = {
  op: 68,
  operands: { name: text, from: text, to: text, shape: [list, size], data: uint8 },
  options: [],
} as const;

const storedTensor = { name: text, dtype: text, shape: [list, size], data: uint8, turnedHeads: [optional, size] } as const;

export const convertLayer = {
  op: 69,
  operands: { layer: text, target: text, tensors: [list, [fields, storedTensor]] },
  options: [],
} as const;

export const fileKind = { op: 70, operands: { first: uint8 }, options: [] } as const;

export const gguf = {
  op: 71,
  operands: {
    files: [list, [fields, { file: text, length: size, first: uint8 }]],
    factors: [nullable, uint8],
    maxTensors: [optional, size],
  },
  options: [],
} as const;

export const modelInfo = { op: 72, operands: { model: object }, options: [] } as const;

export const loadPart = { op: 73, operands: { model: object, part: size, tensors: [list, [fields, storedTensor]] }, options: [] } as const;

export const ggufTokenizer = {
  op: 74,
  operands: { files: [list, [fields, { file: text, length: size, first: uint8 }]], maxTensors: [optional, size] },
  options: [],
} as const;

export const ggufFiles = { op: 75, operands: { file: text }, options: [] } as const;

export const conversionInfo = { op: 76, operands: { conversion: object }, options: [] } as const;

export const convertTensor = {
  op: 77,
  operands: { conversion: object, index: size, tensors: [list, [fields, storedTensor]] },
  options: [],
} as const;

export const mapEntropy = { op: 78, operands: { map: tensor }, options: [] } as const;

export const compareLogits = { op: 79, operands: { a: tensor, b: tensor }, options: [] } as const;

export const textForward = {
  op: 80,
  operands: {
    model: object,
    ids: int32,
    caches: [list, object],
    logits: [choice, "none", "last", "all"],
    hiddenStates: flag,
    layer: [list, size],
    window: [optional, size],
    deterministic: flag,
  },
  options: [],
} as const;

export const generatorStep = { op: 81, operands: { generator: object }, options: [] } as const;

export const exportModelCache = { op: 82, operands: { cache: object }, options: [] } as const;

export const endText = { op: 83, operands: { generator: object, text: size, kept: size }, options: [] } as const;

export const recodePlan = {
  op: 84,
  operands: {
    config: text,
    entries: text,
    dtype: [optional, [choice, "float32", "float16", "bfloat16", "q8", "q4"]],
    head: [optional, [choice, "float32", "float16", "bfloat16", "q8", "q4"]],
    groupSize: [optional, size],
  },
  options: [],
} as const;

export const recodeTensor = {
  op: 85,
  operands: {
    shape: [list, size],
    to: [optional, [choice, "float32", "float16", "bfloat16", "q8", "q4"]],
    groupSize: size,
    tensors: [list, [fields, storedTensor]],
  },
  options: [],
} as const;

export const embedTexts = {
  op: 86,
  operands: { model: object, texts: [list, int32], pooling: [choice, "mean", "last"], normalize: flag, deterministic: flag },
  options: [],
} as const;

export const addText = {
  op: 87,
  operands: {
    generator: object,
    text: [
      fields,
      {
        prompt: int32,
        maxNewTokens: size,
        stopIds: [optional, [list, integer]],
        temperature: [optional, number],
        topK: [optional, size],
        topP: [optional, number],
        minP: [optional, number],
        repetitionPenalty: [optional, number],
        presencePenalty: [optional, number],
        frequencyPenalty: [optional, number],
        logitBias: [optional, [list, [fields, { id: integer, bias: number }]]],
        seed: [optional, number],
        logprobs: [optional, size],
      },
    ],
  },
  options: [],
} as const;

const image = [variant, { pixels: tensor, bytes: [list, uint8] }] as const;

export const vitForward = { op: 88, operands: { model: object, image, deterministic: flag }, options: [] } as const;

export const vitMaps = { op: 89, operands: { model: object, image, layer: size, deterministic: flag }, options: [] } as const;

export const vitClassify = { op: 90, operands: { model: object, image, top: size, deterministic: flag }, options: [] } as const;

export const audioEncode = { op: 91, operands: { model: object, pcm: tensor, deterministic: flag }, options: [] } as const;

export const audioDecode = { op: 92, operands: { model: object, latents: tensor, deterministic: flag }, options: [] } as const;

export const adapterFiles = { op: 93, operands: { spec: text }, options: [] } as const;

export const removeText = { op: 94, operands: { generator: object, text: size, kept: size }, options: [] } as const;

export const createModel = {
  op: 96,
  operands: {
    task: [choice, "text", "image", "audio"],
    config: text,
    generationConfig: [optional, text],
    entries: text,
    dtype: [optional, [choice, "float32", "float16", "bfloat16", "q8", "q4"]],
    head: [optional, [choice, "float32", "float16", "bfloat16", "q8", "q4"]],
  },
  options: [],
} as const;

export const createModelCache = {
  op: 97,
  operands: {
    model: object,
    capacity: [optional, size],
    window: [optional, size],
    dtype: [or, "float32", [choice, "float32", "float16", "bfloat16", "int8"]],
  },
  options: [],
} as const;

const layerState = {
  kind: [choice, "kv", "recurrent", "none"],
  keys: [nullable, numbers],
  keyScales: [nullable, tensor],
  values: [nullable, numbers],
  valueScales: [nullable, tensor],
  window: [nullable, tensor],
  scan: [nullable, tensor],
} as const;

export const importModelCache = {
  op: 98,
  operands: {
    model: object,
    state: [
      record,
      {
        ids: int32,
        discarded: size,
        window: [optional, size],
        keys: tensors,
        values: tensors,
        layers: [optional, [list, [record, layerState]]],
      },
    ],
  },
  options: [],
} as const;

export const rewindModelCache = { op: 99, operands: { cache: object, length: size }, options: [] } as const;

export const modelCacheLength = { op: 100, operands: { cache: object }, options: [] } as const;

export const createGenerator = {
  op: 101,
  operands: {
    model: object,
    texts: [
      list,
      [
        fields,
        {
          prompt: int32,
          maxNewTokens: size,
          stopIds: [optional, [list, integer]],
          temperature: [optional, number],
          topK: [optional, size],
          topP: [optional, number],
          minP: [optional, number],
          repetitionPenalty: [optional, number],
          presencePenalty: [optional, number],
          frequencyPenalty: [optional, number],
          logitBias: [optional, [list, [fields, { id: integer, bias: number }]]],
          seed: [optional, number],
          logprobs: [optional, size],
        },
      ],
    ],
    window: [optional, size],
    deterministic: flag,
    caches: [list, object],
    cacheDtype: [or, "float32", [choice, "float32", "float16", "bfloat16", "int8"]],
    prefixBytes: [optional, size],
    stepTokens: [optional, size],
  },
  options: [],
} as const;

export const createConversion = {
  op: 105,
  operands: {
    config: text,
    entries: text,
    target: [optional, text],
    adapter: [optional, [fields, { config: text, entries: text, dtype: [optional, text] }]],
  },
  options: [],
} as const;
