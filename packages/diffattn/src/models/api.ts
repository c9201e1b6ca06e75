// What the models' entries export, written once for both.

export { DiffLlama } from "./llama.js";
export { inspectCheckpoint, openSafetensors, saveSafetensors } from "./safetensors.js";
export { DiffViT } from "./vit.js";
