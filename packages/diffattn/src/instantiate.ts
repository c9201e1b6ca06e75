// A new instance of a compiled single-threaded build. Loads nothing.

import { createGlue } from "glue:local";
import { Instance } from "./backend/instance.js";
import { fail, reasonOf } from "./errors.js";

export function instantiate(module: WebAssembly.Module): Instance {
  try {
    const glue = createGlue();
    const { memory } = glue.initSync({ module });
    return new Instance(glue, memory);
  } catch (cause) {
    return fail("UNAVAILABLE", "wasm", "a single-threaded module that starts", reasonOf(cause), cause);
  }
}
