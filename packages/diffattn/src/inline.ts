// `import "diffattn/inline"`: the operators' modules and the worker's script within a script, for
// bundlers that carry no files along. The entries take them from here, whatever is imported first.
// Two builds, both of one thread: one with relaxed SIMD and one without.

import { modules } from "carried:diffattn-simd128.wasm,diffattn-relaxed.wasm";
import worker from "worker-text";
import { carry } from "./carried.js";

carry({ worker, modules });
