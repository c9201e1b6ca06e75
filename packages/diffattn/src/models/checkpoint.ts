// An open checkpoint: what its headers say (read and checked in Rust), and its tensors' bytes by
// range. Reads no weights by itself.

import { show } from "../check.js";
import { encode } from "../encode.js";
import { DiffAttnError, fail, internal } from "../errors.js";
import { run } from "./backend.js";
import { type Folder, openFile, openWeights } from "./folder.js";
import { type GgufTexts, isGguf, openSplits, readGguf } from "./gguf.js";
import { grow } from "./headers.js";
import { jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import type { ByteSource, Entry, Opening, Reading } from "./byte-source.js";
import { isHtml } from "./source.js";
import type { LoadOptions, QuantizedDType, StoredDType } from "./types.js";

/** What the first read of a file asks for: most headers are shorter. */
const FIRST = 2 ** 16;
/** Bytes between two tensors that are rather read than asked for apart. */
const GAP = 2 ** 14;

/** What a file is told by. */
const TELLING = 2 ** 9;

/**
 * What a file is that is not what its name says (a Git LFS pointer, an archive), in Rust's words.
 */
export async function kindOf(bytes: Uint8Array): Promise<string | undefined> {
  const [kind] = await run(encode(requests.fileKind, { first: bytes.slice(0, TELLING) }));
  return (jsonOf(kind) as string | null) ?? undefined;
}

/** Adds up what comes of several files. */
export class Progress {
  #done = 0;
  #total = 0;
  #known = false;
  readonly #told: LoadOptions["onProgress"];

  constructor(told: LoadOptions["onProgress"]) {
    if (told !== undefined && typeof told !== "function") fail("OPTION", "onProgress", "a function", show(told));
    this.#told = told;
  }

  /** A file comes whole and is said to have so many bytes. */
  readonly hint = (bytes: number): void => {
    if (!this.#known) this.#total += bytes;
  };

  /** All files have so many bytes. */
  expect(total: number): void {
    this.#known = true;
    this.#total = total;
  }

  readonly add = (bytes: number): void => {
    this.#done += bytes;
    // What is read twice counts once.
    if (this.#known) this.#done = Math.min(this.#done, this.#total);
    this.#told?.({ done: this.#done, total: Math.max(this.#total, this.#done) });
  };

  /** The rest is not needed. */
  end(): void {
    this.add(this.#total - this.#done);
  }
}

/** What files begin with. */
async function firstsOf(sources: readonly ByteSource[], reading: Reading): Promise<Uint8Array[]> {
  const firsts: Uint8Array[] = [];
  for (const source of sources) {
    const first = await source.read(0, Math.min(FIRST, source.length), reading);
    if (isHtml(first)) fail("FILE", source.name, "a safetensors file", "an HTML page");
    firsts.push(first);
  }
  return firsts;
}

const QUANTIZED: readonly string[] = ["Q8_0", "Q4_0", "Q4_1"] satisfies QuantizedDType[];

/** Whether a tensor is of floats that models compute with as they are. */
export const isFloat = (dtype: Entry["dtype"]): boolean => dtype === "F32" || dtype === "F16" || dtype === "BF16";

/** Whether a tensor is of quantised blocks, which safetensors files do not have. */
export const isQuantized = (dtype: Entry["dtype"]): boolean => QUANTIZED.includes(dtype);

/** Whether a tensor is of codes, GGUF's or those that MLX packs into words. */
export const isCodes = (dtype: Entry["dtype"]): boolean => isQuantized(dtype) || dtype === "U32";

/** The element type of a safetensors file's tensor: who reads tensor by tensor opens no others. */
export function storedType(dtype: Entry["dtype"]): StoredDType {
  if (isQuantized(dtype)) throw internal(`a tensor of ${dtype} where none is opened`);
  return dtype as StoredDType;
}

/** Tensors of one file that are read at once. */
interface Run {
  readonly source: ByteSource;
  readonly first: number;
  end: number;
  readonly entries: Entry[];
}

/** A tensor as requests take it. */
export type Stored = Pick<Entry, "name" | "dtype" | "shape" | "turnedHeads"> & { readonly data: Uint8Array };

/** The weights of a model, to be read part by part. */
export interface Weights {
  readonly metadata: Readonly<Record<string, string>>;
  /** What a GGUF file says itself; undefined for other formats. */
  readonly own?: GgufTexts | undefined;
  readonly entries: readonly Pick<Entry, "name" | "dtype" | "shape" | "file" | "range">[];
  /** The bytes of tensors, and whether all of their memory may be given away. */
  read(names: readonly string[], reading: Reading): Promise<{ bytes: Map<string, Uint8Array<ArrayBuffer>>; owned: boolean }>;
  /** A tensor as requests take it, of what `read` gave. */
  stored(name: string, bytes: ReadonlyMap<string, Uint8Array>): Stored;
  close(): void;
  /** Keeps nothing of its files for the next time. */
  forget(): Promise<void>;
}

export class Checkpoint implements Weights {
  readonly #byName: ReadonlyMap<string, Entry>;
  readonly #sources: ReadonlyMap<string, ByteSource>;

  constructor(
    readonly entries: readonly Entry[],
    readonly metadata: Readonly<Record<string, string>>,
    sources: readonly ByteSource[],
    /** What a GGUF file says itself; undefined for other formats. */
    readonly own?: GgufTexts,
  ) {
    this.#byName = new Map(entries.map((entry) => [entry.name, entry]));
    this.#sources = new Map(sources.map((source) => [source.name, source]));
  }

  /**
   * Opens the weights of a folder; `all`: to read all of them; `gguf`: whether they may be of a
   * GGUF file; `onGguf`: called once they are known to be.
   */
  static async open(
    folder: Folder,
    options: Pick<Opening, "signal" | "all"> & Pick<LoadOptions, "maxTensors"> & { readonly gguf?: boolean; readonly onGguf?: () => void },
    progress: Progress,
  ): Promise<Checkpoint> {
    const { signal, all, maxTensors, gguf, onGguf } = options;
    const opening = { signal, onBytes: progress.add, onLength: progress.hint, all };
    const sources: ByteSource[] = [];
    try {
      const weights = await openWeights(folder, opening);
      sources.push(weights);
      let index: { name: string; json: Uint8Array } | undefined;
      if (weights.name.endsWith(".json")) {
        index = { name: weights.name, json: await weights.read(0, weights.length, { signal }) };
        if (isHtml(index.json)) fail("FILE", weights.name, "JSON", "an HTML page");
        sources.pop()?.close();
        const request = encode(requests.shardFiles, { file: index.name, json: index.json, maxTensors });
        const [names] = await run(request, { signal });
        for (const name of jsonOf(names) as string[]) sources.push(await openFile(folder, name, opening));
      } else if (gguf) {
        await openSplits(folder, sources, opening);
      }
      progress.expect(sources.reduce((sum, { length }) => sum + length, 0));
      const reading = { signal };
      const firsts = await firstsOf(sources, reading);
      if (gguf && isGguf(sources, firsts)) {
        onGguf?.();
        const { entries, metadata, texts } = await readGguf(sources, firsts, maxTensors, reading);
        return new Checkpoint(entries, metadata, sources, texts);
      }
      return await Checkpoint.#read(sources, firsts, index, maxTensors, reading);
    } catch (error) {
      for (const source of sources) source.close();
      if (error instanceof DiffAttnError && error.code === "FILE") for (const source of sources) await source.forget?.();
      throw error;
    }
  }

  static async #read(
    sources: readonly ByteSource[],
    firsts: Uint8Array[],
    index: { name: string; json: Uint8Array } | undefined,
    maxTensors: number | undefined,
    reading: Reading,
  ): Promise<Checkpoint> {
    for (;;) {
      const files = sources.map(({ name, length }, i) => ({ file: name, length, first: firsts[i] ?? new Uint8Array() }));
      const request = encode(requests.checkpoint, { index: index && { file: index.name, json: index.json }, files, maxTensors });
      const [output] = await run(request, { signal: reading.signal });
      const told = jsonOf(output) as { need: number[] } | { tensors: Entry[]; metadata: Record<string, string> };
      if (!("need" in told)) return new Checkpoint(told.tensors, told.metadata, sources);
      await grow(sources, firsts, told.need, reading);
    }
  }

  /** The names of its files of weights. */
  get files(): string[] {
    return [...this.#sources.keys()];
  }

  entry(name: string): Entry {
    return this.#byName.get(name) ?? fail("FILE", "name", "the name of a tensor in it", show(name));
  }

  /** A tensor as requests take it, of what `read` gave. */
  stored(name: string, bytes: ReadonlyMap<string, Uint8Array>): Stored {
    const { dtype, shape, turnedHeads } = this.entry(name);
    return { name, dtype, shape, data: bytes.get(name) ?? new Uint8Array(), turnedHeads };
  }

  #source(entry: Entry): ByteSource {
    const source = this.#sources.get(entry.file);
    if (!source) throw internal(`a tensor of a file that was not opened: ${entry.file}`);
    return source;
  }

  /** Reads of neighbours are one read. */
  #runs(entries: readonly Entry[]): Run[] {
    const sorted = entries
      .map((entry) => ({ entry, source: this.#source(entry) }))
      .sort((a, b) => (a.entry.file === b.entry.file ? a.entry.range[0] - b.entry.range[0] : a.entry.file < b.entry.file ? -1 : 1));
    const runs: Run[] = [];
    for (const { entry, source } of sorted) {
      const [first, end] = entry.range;
      const last = runs.at(-1);
      if (last && last.source === source && first <= last.end + GAP) {
        last.end = Math.max(last.end, end);
        last.entries.push(entry);
      } else {
        runs.push({ source, first, end, entries: [entry] });
      }
    }
    return runs;
  }

  /** The bytes of tensors, and whether all of their memory may be given away. */
  async read(names: readonly string[], reading: Reading): Promise<{ bytes: Map<string, Uint8Array<ArrayBuffer>>; owned: boolean }> {
    const bytes = new Map<string, Uint8Array<ArrayBuffer>>();
    let owned = true;
    for (const { source, first, end, entries } of this.#runs(names.map((name) => this.entry(name)))) {
      const all = await source.read(first, end, reading);
      for (const { name, range } of entries) bytes.set(name, all.subarray(range[0] - first, range[1] - first));
      if (source.borrowed) owned = false;
    }
    return { bytes, owned };
  }

  close(): void {
    for (const source of this.#sources.values()) source.close();
  }

  /** Keeps nothing of its files for the next time. */
  async forget(): Promise<void> {
    for (const source of this.#sources.values()) await source.forget?.();
  }
}
