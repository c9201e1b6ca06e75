// What models take of Node, for the entries of models and of training: in the native addon where
// its binary loads, else in WASM.

import { platform } from "../node-platform.js";
import { withPart } from "../with-part.js";
import { isPrivate } from "./node-addresses.js";
import { files } from "./node-files.js";
import { hub } from "./node-hub.js";
import type { ModelsPlatform } from "./platform.js";

const ownFiles = () =>
  platform.filesOf("models", {
    simd128: () => new URL("./diffattn-models-simd128.wasm", import.meta.url),
    "relaxed-simd": () => new URL("./diffattn-models-relaxed.wasm", import.meta.url),
    "relaxed-simd+threads": () => new URL("./diffattn-models-threads.wasm", import.meta.url),
  });

export const modelsInNode: ModelsPlatform = { wasm: withPart(platform, "models", ownFiles), files, web: { isPrivate }, hub };
