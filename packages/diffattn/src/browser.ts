// The entry for browsers and whatever else is no Node. Importing it touches neither `window` nor
// the network.

import { platform } from "./browser-platform.js";
import { usePlatform } from "./init.js";

usePlatform(platform);

export * from "./api.js";
export * from "./gradients/api.js";
