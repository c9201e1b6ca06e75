// What files are to those who open and read them: where they may be looked for, a folder of them,
// an open one, and a tensor in it. Types only.

import type { LoadOptions, QuantizedDType, StoredDType } from "./types.js";

/** The options of a load that say how its files may be reached. */
export interface Access {
  /** The name of the store in a browser's Cache Storage. */
  readonly cache: string | undefined;
  /** What the caller adds to each request, by lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly fetch: LoadOptions["fetch"];
  readonly credentials: LoadOptions["credentials"];
  /** The origins that requests may go to; undefined: all. */
  readonly origins: ReadonlySet<string> | undefined;
  readonly allowPrivate: boolean;
  readonly maxFileBytes: number | undefined;
  /** What lets a private model of the hub be read; null: nothing; undefined: not said. */
  readonly token: string | null | undefined;
  /** Of a model on the hub. */
  readonly revision: string | undefined;
  /** Ends what is asked before a file is opened. */
  readonly signal: AbortSignal | undefined;
  /** Told of an answer that is a refusal, before anything is made of it; may throw. */
  readonly onRefusal?: (name: string, response: Response) => void;
}

/** Files by name. */
export interface Folder {
  /** What errors call it. */
  readonly name: string;
  /** All names, where they can be known. */
  readonly names: readonly string[] | undefined;
  /** The one file that was named for its weights, where one was. */
  readonly only: string | undefined;
  /** Of a model on the hub, what there is of it, and where on this disk. */
  readonly hub?: HubFiles;
  /** undefined when there is none of that name. `optional`: whether that is fine. */
  open(name: string, opening: Opening, optional: boolean): Promise<ByteSource | undefined>;
}

/** A model's files on the hub, and in the cache of this machine. */
export interface HubFiles {
  /** Path of the folder in which they lie once they are here. */
  readonly folder: string;
  /** The commit that they are of. */
  readonly commit: string;
  /** All of them, also in folders within, by their paths from `folder`. */
  readonly files: readonly string[];
  /** Sees to it that one is here. */
  fetch(file: string, reading: Reading): Promise<void>;
  /** The path of one. */
  at(file: string): string;
}

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
