// The models' entry for browsers and whatever else is no Node. Importing it touches neither
// `window` nor the network.

// What the operators' entry does first, and one chunk with it (tsup.config.ts).
import "../browser.js";
import { modelsInBrowsers } from "./browser-platform.js";
import { useModelsPlatform } from "./platform.js";

useModelsPlatform(modelsInBrowsers);

export * from "./api.js";
