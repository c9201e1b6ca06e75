// A new instance of a compiled single-threaded build. Loads nothing.

import { createGlue } from "glue:local";
import { Instance } from "./backend/instance.js";

export function instantiate(module: WebAssembly.Module): Instance {
  const glue = createGlue();
  const { memory } = glue.initSync({ module });
  return new Instance(glue, memory);
}
