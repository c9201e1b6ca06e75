// The entry for Node: the native addon where its binary loads, else WASM.

import { usePlatform } from "./init.js";
import { platform } from "./node-platform.js";

usePlatform(platform);

export * from "./api.js";
export * from "./gradients/api.js";
