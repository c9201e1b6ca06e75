// The models' entry for Node: models in the native addon where its binary loads, else in WASM.

import { readFile } from "node:fs/promises";
import { usePlatform } from "../init.js";
import { compile } from "../module.js";
import { platform } from "../node-platform.js";
import type { Build, Platform } from "../platform.js";
import * as api from "./api.js";
import { isPrivate } from "./node-addresses.js";
import { files } from "./node-files.js";
import { useModelsPlatform } from "./platform.js";
import type * as types from "./types.js";

const urls: Record<Build, () => URL> = {
  simd128: () => new URL("./diffattn-models-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-models-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-models-threads.wasm", import.meta.url),
};

const loadModule = async (build: Build): Promise<WebAssembly.Module> => compile(await readFile(urls[build]()));

usePlatform(platform);
useModelsPlatform({ wasm: Object.assign(Object.create(platform) as Platform, { models: true, loadModule }), files, web: { isPrivate } });

export const openSafetensors: typeof types.openSafetensors = api.openSafetensors;
export const saveSafetensors: typeof types.saveSafetensors = api.saveSafetensors;
export const convertCheckpoint: typeof types.convertCheckpoint = api.convertCheckpoint;
export const inspectCheckpoint: typeof types.inspectCheckpoint = api.inspectCheckpoint;
export const DiffLlama = api.DiffLlama as unknown as typeof types.DiffLlama;
export const DiffViT = api.DiffViT as unknown as typeof types.DiffViT;
