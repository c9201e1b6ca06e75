// The entry of training for Node: in the native addon where its binary loads, else in WASM.

import { usePlatform } from "../init.js";
import { modelsInNode } from "../models/node-platform.js";
import { useModelsPlatform, useTrainerPlatform } from "../models/platform.js";
import { platform } from "../node-platform.js";
import { withPart } from "../with-part.js";

const ownFiles = () =>
  platform.filesOf("training", {
    simd128: () => new URL("./diffattn-training-simd128.wasm", import.meta.url),
    "relaxed-simd": () => new URL("./diffattn-training-relaxed.wasm", import.meta.url),
    "relaxed-simd+threads": () => new URL("./diffattn-training-threads.wasm", import.meta.url),
  });

usePlatform(platform);
useModelsPlatform(modelsInNode);
useTrainerPlatform(withPart(platform, "training", ownFiles));

export * from "./api.js";
