// Copies of memory.

import { outOfMemory } from "../errors.js";

/** A copy of bytes in memory of their own. */
export function copyOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  try {
    return bytes.slice();
  } catch {
    throw outOfMemory(bytes.byteLength);
  }
}
