// The entry for workerd (Cloudflare's workers): its engine is new, so one build is enough.

import relaxed from "./diffattn-relaxed.wasm";
import { edgeFiles, edgePlatform } from "./edge-platform.js";
import { usePlatform } from "./init.js";

usePlatform(edgePlatform(edgeFiles({ "relaxed-simd": relaxed })));

export * from "./api.js";
export * from "./gradients/api.js";
