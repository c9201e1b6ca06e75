// The models' entry for Node: models in the native addon where its binary loads, else in WASM.

import { usePlatform } from "../init.js";
import { filesOf, platform } from "../node-platform.js";
import { isPrivate } from "./node-addresses.js";
import { files } from "./node-files.js";
import { hub } from "./node-hub.js";
import { useModelsPlatform, withModels } from "./platform.js";

const ownFiles = () =>
  filesOf(true, {
    simd128: () => new URL("./diffattn-models-simd128.wasm", import.meta.url),
    "relaxed-simd": () => new URL("./diffattn-models-relaxed.wasm", import.meta.url),
    "relaxed-simd+threads": () => new URL("./diffattn-models-threads.wasm", import.meta.url),
  });

usePlatform(platform);
useModelsPlatform({ wasm: withModels(platform, ownFiles), files, web: { isPrivate }, hub });

export * from "./api.js";
