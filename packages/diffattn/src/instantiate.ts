// A new instance of a compiled single-threaded build. Loads nothing.

import { startDoor } from "./backend/glue.js";
import { Instance } from "./backend/instance.js";
import { fail, reasonOf } from "./errors.js";

export function instantiate(module: WebAssembly.Module): Instance {
  try {
    const { door, memory } = startDoor(module);
    return new Instance(door, memory);
  } catch (cause) {
    return fail("UNAVAILABLE", "wasm", "a single-threaded module that starts", reasonOf(cause), cause);
  }
}
