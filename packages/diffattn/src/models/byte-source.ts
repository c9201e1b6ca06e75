// What an open file, and a tensor in it, is to those who read it. Types only.

import type { QuantizedDType, StoredDType } from "./types.js";

/** Who waits for bytes, and is told of them. */
export interface Reading {
  signal?: AbortSignal | undefined;
  /** Told of each piece that came. */
  onBytes?: ((bytes: number) => void) | undefined;
  /** Told how many will come, where a whole file comes and its server says so. */
  onLength?: ((bytes: number) => void) | undefined;
}

/** Who opens a file, and what for. (How it may be reached is its folder's to know.) */
export interface Opening extends Reading {
  /** All of it will be read. */
  all?: boolean | undefined;
}

/** An open file. */
export interface ByteSource {
  /** What errors call it. */
  readonly name: string;
  readonly length: number;
  /** Whether what `read` gives is memory of the caller, which is not to be given away. */
  readonly borrowed: boolean;
  /** Exactly the bytes from `first` to `end`; FILE when the file ends before. */
  read(first: number, end: number, reading: Reading): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
  /** Keeps nothing of it for the next time: it was no good. */
  forget?(): Promise<unknown>;
}

/** A tensor as requests 64 and 71 tell it. */
export interface Entry {
  readonly name: string;
  readonly dtype: StoredDType | QuantizedDType;
  readonly shape: readonly number[];
  readonly file: string;
  /** Its bytes, from the start of the file. */
  readonly range: readonly [number, number];
  /** How many heads its rows are of, where they lie as GGUF files have them. */
  readonly turnedHeads?: number | undefined;
}
