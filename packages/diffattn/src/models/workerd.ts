// The models' entry for workerd (Cloudflare's workers).

import relaxed from "./diffattn-models-relaxed.wasm";
import { edgeFiles, edgePlatform } from "../edge-platform.js";
import { usePlatform } from "../init.js";
import { withPart } from "../with-part.js";
import { useModelsPlatform } from "./platform.js";

// Its door has the operators, too.
const files = edgeFiles({ "relaxed-simd": relaxed });
const platform = edgePlatform(files);

usePlatform(platform);
useModelsPlatform({ wasm: withPart(platform, "models", () => files) });

export * from "./api.js";
