// Requests of training. Generated from crates/diffattn-door: not edited by hand.

import { choice, fields, int32, integer, list, number, object, optional, or, size, tensor, text, uint8 } from "../models/atoms.js";

export const createTrainer = { op: 150, operands: {}, options: [] } as const;

export const startTrainer = {
  op: 151,
  operands: {
    trainer: object,
    model: object,
    tokens: [
      optional,
      [
        fields,
        { header: uint8, starts: uint8, length: size, context: size, documents: [or, "mask", [choice, "mask", "join"]], eval: number },
      ],
    ],
    images: [optional, [fields, { shape: [list, size], labels: [list, integer], eval: [optional, number], held: [list, size] }]],
    seed: number,
    batch: size,
    accumulate: size,
    unit: [optional, size],
    lr: number,
    steps: size,
    warmup: size,
    finalShare: number,
    shape: [or, "cosine", [choice, "cosine", "linear", "constant"]],
    betas: [list, number],
    eps: number,
    weightDecay: number,
    maxGradNorm: [optional, number],
    alpha: number,
    lambdaAnneal: [optional, size],
    freeze: [list, [fields, { pattern: text, rows: [list, size] }]],
    lrScale: [list, [fields, { pattern: text, factor: number }]],
    adapter: [optional, [fields, { rank: size, alpha: number, targets: [list, text], seed: number }]],
    recompute: [or, "nothing", [choice, "nothing", "mlps", "layers"]],
  },
  options: [],
} as const;

export const trainerInfo = { op: 152, operands: { trainer: object }, options: [] } as const;

export const trainerState = { op: 153, operands: { trainer: object }, options: [] } as const;

export const trainerPlan = { op: 154, operands: { trainer: object }, options: [] } as const;

export const trainerAdd = {
  op: 155,
  operands: { trainer: object, micro: size, bytes: uint8, teacher: [optional, object] },
  options: [],
} as const;

export const trainerUpdate = { op: 156, operands: { trainer: object }, options: [] } as const;

export const trainerEvalPlan = { op: 157, operands: { trainer: object, index: size }, options: [] } as const;

export const trainerEvaluate = { op: 158, operands: { trainer: object, index: size, bytes: uint8 }, options: [] } as const;

export const trainerTensor = {
  op: 159,
  operands: { trainer: object, name: text, of: [choice, "value", "firstMoment", "secondMoment"] },
  options: [],
} as const;

export const setTrainerTensor = {
  op: 160,
  operands: { trainer: object, name: text, of: [choice, "value", "firstMoment", "secondMoment"], values: tensor },
  options: [],
} as const;

export const resumeTrainer = { op: 161, operands: { trainer: object, state: text }, options: [] } as const;

export const trainedModel = { op: 162, operands: { trainer: object, model: object }, options: [] } as const;

export const freshTensors = { op: 163, operands: { config: text }, options: [] } as const;

export const freshTensor = { op: 164, operands: { config: text, seed: number, name: text }, options: [] } as const;

export const tokenFile = { op: 165, operands: { file: text, length: size, header: uint8 }, options: [] } as const;

export const writeTokens = { op: 166, operands: { ids: int32, starts: int32 }, options: [] } as const;
