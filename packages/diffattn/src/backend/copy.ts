// Copies of memory, and what is kept of them for the next.

import { outOfMemory } from "../errors.js";

/** Bytes of spare buffers, and how many, that are kept at most: as crates/diffattn has it. */
const [SPARE_BYTES, SPARES] = [32 << 20, 64];
/** Bytes of the smallest buffer that is worth keeping: smaller ones have no pages of their own. */
export const SMALLEST_SPARE = 64 << 10;

/** A copy of bytes in memory of their own. */
export function copyOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  try {
    return bytes.slice();
  } catch {
    throw outOfMemory(bytes.byteLength);
  }
}

/**
 * Copies in buffers that come back after use: page faults of fresh ones took an eighth of a call of
 * 1024 tokens in Chromium.
 */
export class Spares {
  /** The oldest first. */
  #kept: ArrayBuffer[] = [];

  /** As `copyOf`, at the start of a buffer that may be longer. */
  copyOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    const { byteLength } = bytes;
    let best: ArrayBuffer | undefined;
    if (byteLength >= SMALLEST_SPARE)
      for (const spare of this.#kept) if (spare.byteLength >= byteLength && (!best || spare.byteLength < best.byteLength)) best = spare;
    if (!best) return copyOf(bytes);
    this.#kept = this.#kept.filter((spare) => spare !== best);
    const copy = new Uint8Array(best, 0, byteLength);
    copy.set(bytes);
    return copy;
  }

  /** Takes buffers back; the oldest go where there are too many. */
  add(buffers: readonly ArrayBuffer[]): void {
    this.#kept.push(...buffers);
    const total = (): number => this.#kept.reduce((bytes, spare) => bytes + spare.byteLength, 0);
    while (this.#kept.length > SPARES || total() > SPARE_BYTES) this.#kept.shift();
  }
}
