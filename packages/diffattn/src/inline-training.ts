// `import "diffattn/inline-training"`: the same for gradients, which have modules of their own.

import { modules } from "carried:diffattn-training-simd128.wasm,diffattn-training-relaxed.wasm";
import worker from "worker-text";
import { carry } from "./carried.js";

carry({ worker, modules });
