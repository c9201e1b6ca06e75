// The models' entry for browsers and whatever else is no Node. Importing it touches neither
// `window` nor the network.

// What the operators' entry does first, and one chunk with it (tsup.config.ts).
import "../browser.js";
import { filesOf, platform, workerBeside } from "../browser-platform.js";
import { besideScript } from "../own-files.js";
import { useModelsPlatform, withModels } from "./platform.js";

// Literal, so that bundlers see the files and copy them.
const beside = besideScript(
  {
    simd128: () => new URL("./diffattn-models-simd128.wasm", import.meta.url),
    "relaxed-simd": () => new URL("./diffattn-models-relaxed.wasm", import.meta.url),
    "relaxed-simd+threads": () => new URL("./diffattn-models-threads.wasm", import.meta.url),
  },
  workerBeside,
);

useModelsPlatform({ wasm: withModels(platform, () => filesOf(true, beside)) });

export * from "./api.js";
