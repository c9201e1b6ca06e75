// What models take of browsers, and whatever else is no Node, for the entries of models and of
// training. Importing it touches neither `window` nor the network.

import { platform } from "../browser-platform.js";
import { withPart } from "../with-part.js";
import type { ModelsPlatform } from "./platform.js";

// Literal, so that bundlers see the files and copy them.
const literal = {
  simd128: () => new URL("./diffattn-models-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-models-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-models-threads.wasm", import.meta.url),
};

export const modelsInBrowsers: ModelsPlatform = { wasm: withPart(platform, "models", () => platform.filesOf("models", literal)) };
