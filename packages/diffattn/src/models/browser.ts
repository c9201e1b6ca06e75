// The models' entry for browsers and whatever else is no Node. Importing it touches neither
// `window` nor the network.

// What the operators' entry does first, and one chunk with it (tsup.config.ts).
import "../browser.js";
import { platform } from "../browser-platform.js";
import { withPart } from "../with-part.js";
import { useModelsPlatform } from "./platform.js";

// Literal, so that bundlers see the files and copy them.
const literal = {
  simd128: () => new URL("./diffattn-models-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-models-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-models-threads.wasm", import.meta.url),
};

useModelsPlatform({ wasm: withPart(platform, "models", () => platform.filesOf("models", literal)) });

export * from "./api.js";
