// The models' entry for Node: models in the native addon where its binary loads, else in WASM.

import { usePlatform } from "../init.js";
import { platform } from "../node-platform.js";
import { modelsInNode } from "./node-platform.js";
import { useModelsPlatform } from "./platform.js";

usePlatform(platform);
useModelsPlatform(modelsInNode);

export * from "./api.js";
