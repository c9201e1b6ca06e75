// The first bytes of files, as many as their headers need. Knows no format.

import { internal } from "../errors.js";
import type { ByteSource, Reading } from "./byte-source.js";

/** Reads as much of each file as is needed, where that is more than there is. */
export async function grow(
  sources: readonly ByteSource[],
  firsts: Uint8Array[],
  needs: readonly number[],
  reading: Reading,
): Promise<void> {
  let more = false;
  for (const [i, source] of sources.entries()) {
    const [need = 0, have = new Uint8Array()] = [needs[i], firsts[i]];
    if (need <= have.byteLength) continue;
    firsts[i] = await source.read(0, need, reading);
    more = true;
  }
  if (!more) throw internal("a header that needs nothing and is not read");
}
