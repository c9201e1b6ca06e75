// The side of whatever backend there is that computes at once: for sync forms, objects, and tensors
// in its memory.

import type { Local } from "./backend.js";
import { localOf } from "./backend/wasm-local.js";
import { backend } from "./init.js";

export const local = (): Local => localOf(backend());
