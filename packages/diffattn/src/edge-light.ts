// The entry for edge runtimes of the condition `edge-light` (Next's, Vercel's): their engine may be
// that of any Node, so it is the plain build.

import simd from "./diffattn-simd128.wasm?module";
import { edgeFiles, edgePlatform } from "./edge-platform.js";
import { usePlatform } from "./init.js";

usePlatform(edgePlatform(edgeFiles({ simd128: simd })));

export * from "./api.js";
export * from "./gradients/api.js";
