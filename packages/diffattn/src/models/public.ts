// The public names of models and checkpoints, each with its public type, for every entry of them.

import * as api from "./api.js";
import type * as types from "./types.js";

export const openSafetensors: typeof types.openSafetensors = api.openSafetensors;
export const saveSafetensors: typeof types.saveSafetensors = api.saveSafetensors;
export const convertCheckpoint: typeof types.convertCheckpoint = api.convertCheckpoint;
export const inspectCheckpoint: typeof types.inspectCheckpoint = api.inspectCheckpoint;
export const DiffLlama = api.DiffLlama as unknown as typeof types.DiffLlama;
export const DiffViT = api.DiffViT as unknown as typeof types.DiffViT;
