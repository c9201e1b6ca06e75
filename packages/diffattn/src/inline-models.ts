// `import "diffattn/inline-models"`: the same for `diffattn/models`, which has modules of its own.

import { modules } from "carried:diffattn-models-simd128.wasm,diffattn-models-relaxed.wasm";
import worker from "worker-text";
import { carry } from "./carried.js";

carry({ worker, modules });
