// The models' entry for browsers and whatever else is not Node. Importing it touches neither `window` nor the network.

import { beside, platform } from "../browser-platform.js";
import { usePlatform } from "../init.js";
import { compile } from "../module.js";
import type { Build, Platform } from "../platform.js";
import * as api from "./api.js";
import { useModelsPlatform } from "./platform.js";
import type * as types from "./types.js";

// Literal, so that bundlers see the files and copy them.
const urls: Record<Build, () => URL> = {
  simd128: () => new URL("./diffattn-models-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-models-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-models-threads.wasm", import.meta.url),
};

usePlatform(platform);
const loadModule = (build: Build): Promise<WebAssembly.Module> =>
  compile(beside(urls[build], "a runtime in which scripts have an address, for the module beside them"));
useModelsPlatform({ wasm: Object.assign(Object.create(platform) as Platform, { models: true, loadModule }) });

export const openSafetensors: typeof types.openSafetensors = api.openSafetensors;
export const saveSafetensors: typeof types.saveSafetensors = api.saveSafetensors;
export const convertCheckpoint: typeof types.convertCheckpoint = api.convertCheckpoint;
export const inspectCheckpoint: typeof types.inspectCheckpoint = api.inspectCheckpoint;
export const DiffLlama = api.DiffLlama as unknown as typeof types.DiffLlama;
export const DiffViT = api.DiffViT as unknown as typeof types.DiffViT;
