// The entry of training for browsers and whatever else is no Node. Importing it touches neither
// `window` nor the network.

// What the operators' entry does first, and one chunk with it (tsup.config.ts).
import "../browser.js";
import { platform } from "../browser-platform.js";
import { modelsInBrowsers } from "../models/browser-platform.js";
import { useModelsPlatform, useTrainerPlatform } from "../models/platform.js";
import { withPart } from "../with-part.js";

// Literal, so that bundlers see the files and copy them.
const literal = {
  simd128: () => new URL("./diffattn-training-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-training-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-training-threads.wasm", import.meta.url),
};

useModelsPlatform(modelsInBrowsers);
useTrainerPlatform(withPart(platform, "training", () => platform.filesOf("training", literal)));

export * from "./api.js";
