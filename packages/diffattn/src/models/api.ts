// The public names of models and checkpoints, each with its public type, for every entry of them.

import * as adapter from "./adapter.js";
import * as codec from "./codec.js";
import * as compare from "./compare.js";
import * as convert from "./convert.js";
import * as convertModels from "./convert-model.js";
import * as download from "./download.js";
import * as evaluate from "./evaluate.js";
import * as languageModel from "./language-model.js";
import * as needle from "./needle.js";
import * as safetensors from "./safetensors.js";
import type * as types from "./types.js";
import * as vit from "./vit.js";

export const openSafetensors: typeof types.openSafetensors = safetensors.openSafetensors;
export const saveSafetensors: typeof types.saveSafetensors = safetensors.saveSafetensors;
export const saveAdapter: typeof types.saveAdapter = adapter.saveAdapter;
export const convertCheckpoint: typeof types.convertCheckpoint = convert.convertCheckpoint;
export const convertModel: typeof types.convertModel = convertModels.convertModel;
export const foldDex: typeof types.foldDex = convertModels.foldDex;
export const compareModels: typeof types.compareModels = compare.compareModels;
export const evaluateText: typeof types.evaluateText = evaluate.evaluateText;
export const evaluateNeedle: typeof types.evaluateNeedle = needle.evaluateNeedle;
export const downloadCheckpoint: typeof types.downloadCheckpoint = download.downloadCheckpoint;
export const inspectCheckpoint: typeof types.inspectCheckpoint = safetensors.inspectCheckpoint;
export const LanguageModel = languageModel.LanguageModel as unknown as typeof types.LanguageModel;
export const DiffLlama: typeof types.DiffLlama = LanguageModel;
export const AudioCodec = codec.AudioCodec as unknown as typeof types.AudioCodec;
export const DiffViT = vit.DiffViT as unknown as typeof types.DiffViT;
