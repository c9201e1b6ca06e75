// The models' entry for edge runtimes of the condition `edge-light` (Next's, Vercel's).

import simd from "./diffattn-models-simd128.wasm?module";
import { edgeFiles, edgePlatform } from "../edge-platform.js";
import { usePlatform } from "../init.js";
import { withPart } from "../with-part.js";
import { useModelsPlatform } from "./platform.js";

// Its door has the operators, too.
const files = edgeFiles({ simd128: simd });
const platform = edgePlatform(files);

usePlatform(platform);
useModelsPlatform({ wasm: withPart(platform, "models", () => files) });

export * from "./api.js";
