// The public API of the entry "diffattn/models", typed and documented once; both of its entries (Node, browsers) are typed by this
// file. Declares only: no code.
//
// Letters: B batch, L tokens, H output heads, N tokens of an image, S side of an image.

import type { AttentionMaps, Tensor } from "../types.js";

// As in ../types.ts: names that a runtime without a DOM has too, or never meets.
/* eslint-disable @typescript-eslint/no-empty-object-type, @typescript-eslint/no-unused-vars, @typescript-eslint/no-explicit-any */
declare global {
  interface Blob {}
  interface File {}
  interface WritableStream<W = any> {}
  interface ImageBitmap {}
  interface HTMLCanvasElement {}
  interface OffscreenCanvas {}
  interface HTMLImageElement {}
}
/* eslint-enable @typescript-eslint/no-empty-object-type, @typescript-eslint/no-unused-vars, @typescript-eslint/no-explicit-any */

/** A `Uint8Array` over a plain `ArrayBuffer`; written so that TypeScript before 5.7 takes it too. */
export type Uint8Result = ReturnType<typeof Uint8Array.of>;

/** Element types of safetensors files. */
export type StoredDType =
  "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "U16" | "I16" | "F16" | "BF16" | "U32" | "I32" | "F32" | "U64" | "I64" | "F64";

/** What a checkpoint says of a tensor. */
export interface StoredTensorInfo {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** Bytes that it takes in the file. */
  readonly byteLength: number;
  /** The file that holds it: of sharded checkpoints the shard's name. */
  readonly file: string;
}

/** A tensor as it lies in a file. */
export interface StoredTensor {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** Little-endian elements, last axis fastest. */
  readonly data: Uint8Result;
}

/** Whoever waits for something long. */
export interface LoadOptions {
  /** Ends the work; it rejects with ABORTED. */
  signal?: AbortSignal | undefined;
  /** Bytes that were read, and of how many. */
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
  /**
   * Keeps what an address gave in the browser's Cache Storage under this name and reads it from there the next time; off by
   * default. Where there is no Cache Storage (Node, insecure pages) it does nothing.
   */
  cache?: string | undefined;
  /** Tensors that a checkpoint may have, all of its files together; 65,536 by default. One that has more is FILE before memory is spent on them. */
  maxTensors?: number | undefined;
}

/** Where a file comes from: a path (Node), an address, a `Blob` or `File`, or bytes in memory. In browsers a text is an address. */
export type FileSource = string | URL | Blob | ArrayBuffer | ArrayBufferView;

/**
 * Where a checkpoint comes from: a folder's path (Node) or address ending with "/", one file (the others lie beside it), or its files by name
 * (`config.json`, `model.safetensors` or its index and shards, `tokenizer.json` and `generation_config.json` where there are), as a
 * record or as the `File`s of an `<input type="file" multiple>`. Shards may lie in folders beside their index (`"parts/model-1.safetensors"` in
 * it and as a name of the record; `File`s of a chosen folder know where they lie), never outside of its folder.
 */
export type CheckpointSource = string | URL | Readonly<Record<string, FileSource>> | Iterable<File>;

/** An open safetensors file or sharded checkpoint; its tensors are read on demand, by range. */
export interface Safetensors {
  /** All tensors, in the order of their bytes. */
  readonly tensors: readonly StoredTensorInfo[];
  readonly names: readonly string[];
  /** What the file says of itself (`__metadata__`; of shards the first that has a key). */
  readonly metadata: Readonly<Record<string, string>>;
  /** @throws {DiffAttnError} FILE when there is none of that name or the file is cut short. */
  read(name: string, options?: { signal?: AbortSignal | undefined }): Promise<StoredTensor>;
  /** As float32: exact from BF16 and F16, rounded once from F64. FILE for what has no float32 form. */
  readFloat32(name: string, options?: { signal?: AbortSignal | undefined }): Promise<Tensor>;
  /** Gives the file back. A second call does nothing; `read` afterwards is DISPOSED. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * Opens a safetensors file, or a sharded checkpoint by its folder or `*.safetensors.index.json`. Only headers are read. Everything that a
 * file could lie about is checked before anything is allocated.
 *
 * @throws {DiffAttnError} FILE naming the file and what is wrong with it; ABORTED.
 */
export declare function openSafetensors(source: FileSource | CheckpointSource, options?: LoadOptions): Promise<Safetensors>;

/**
 * Writes a safetensors file. In Node `target` may be a path; the file takes its name only once it is whole. Without a target the file is
 * returned.
 *
 * @throws {DiffAttnError} SHAPE, DTYPE or OPTION naming the tensor; FILE when it cannot be written.
 */
export declare function saveSafetensors(
  tensors: Readonly<Record<string, StoredTensor | Tensor>>,
  options?: { metadata?: Readonly<Record<string, string>> | undefined; target?: string | URL | WritableStream<Uint8Array> | undefined },
): Promise<Uint8Result | undefined>;

/** What {@link inspectCheckpoint} found. */
export interface Inspection {
  /** "diffllama", "diff_vit", "unilm", …; null when nothing in it is known. */
  readonly architecture: string | null;
  readonly parameters: number;
  readonly dtypes: readonly { dtype: StoredDType; tensors: number; parameters: number; bytes: number }[];
  /** The layers with differential attention, with their head layout. */
  readonly layers: readonly Readonly<Record<string, unknown>>[];
  /** Names that the architecture wants and the file lacks, and the other way round (these as the file has them). */
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  /** What is odd, each a sentence. */
  readonly warnings: readonly string[];
}

/** Looks at a checkpoint without reading its weights: architecture, head layout, dtypes, parameters, what is missing or odd. */
export declare function inspectCheckpoint(source: CheckpointSource | Safetensors, options?: LoadOptions): Promise<Inspection>;

/** How {@link convertCheckpoint} is to write a checkpoint. What is not said stays as it is; `dtype`, `layout` or both are wanted. */
export interface ConvertOptions extends LoadOptions {
  /** Element type of all floats. Rounded to nearest, ties to even; to "F32" from "F64" once, from all others exactly. */
  dtype?: "F32" | "F16" | "BF16" | undefined;
  /**
   * How attention layers lie and are named: as Hugging Face's `diffllama` (pairing halves, half-split rope, no norm weight, `o_proj`) or as
   * unilm's `multihead_flashdiff_2.py` (interleaved heads and rope, `subln.weight`, `out_proj`). Heads and channels move bit for bit; a norm's
   * weight that diffllama has no place for is multiplied into the output projection, rounded once.
   */
  layout?: "diffllama" | "unilm" | undefined;
  /** As {@link saveSafetensors} has it. */
  target?: string | URL | WritableStream<Uint8Array> | undefined;
}

/** What {@link convertCheckpoint} made. */
export interface Conversion {
  /** The file, where there is no `target`. */
  readonly file: Uint8Array<ArrayBuffer> | undefined;
  /** What was not exact or grew: repeated heads, folded weights, values that overflow. Each a sentence. */
  readonly notes: readonly string[];
}

/**
 * Writes a checkpoint with another element type, or with its attention layers in another layout. All of the new file is in memory once.
 *
 * @throws {DiffAttnError} OPTION naming the reason for heads that have no place in the layout; FILE; DTYPE; OUT_OF_MEMORY; ABORTED.
 */
export declare function convertCheckpoint(source: FileSource | CheckpointSource, options: ConvertOptions): Promise<Conversion>;

/** Token ids of one text, or `[B, L]`. */
export type TokenIds = readonly number[] | Int32Array | { readonly data: Int32Array; readonly shape: readonly [number, number] };

/** The configuration of a model, as its `config.json` has it, with every default in its place. */
export type ModelConfig = Readonly<Record<string, unknown>>;

/** How the next token is chosen. Repetition penalty, temperature, topK and topP act in this order. */
export interface SamplingOptions {
  /** What logits are divided by; 0, the default, takes the highest. */
  temperature?: number | undefined;
  /** Only so many of the highest logits; all by default. */
  topK?: number | undefined;
  /** Only the most probable ids, as few as together exceed it; 1 by default. */
  topP?: number | undefined;
  /** What a logit above 0 is divided by, and one below multiplied with, if the text has its id; 1 by default. */
  repetitionPenalty?: number | undefined;
  /** Where the random numbers begin: an integer from 0 to 2⁵³ − 1; 0 by default. The same seed gives the same text on every backend. */
  seed?: number | undefined;
}

/** Options of {@link DiffLlama.generate}. */
export interface GenerateOptions extends SamplingOptions {
  /** New tokens at most; 256 by default. */
  maxNewTokens?: number | undefined;
  /** Texts before which generation ends; they are not given, and what may become one is held back. Needs a tokenizer. */
  stop?: string | readonly string[] | undefined;
  /** Ids that end the text (the last of them is given, with an empty text); the config's `eos_token_id` by default. */
  stopIds?: readonly number[] | undefined;
  /** Tokens that each token sees, itself included; all by default. Not with a cache, which has its own. */
  window?: number | undefined;
  /**
   * A cache to go on with, of one text: what it holds of the prompt's beginning is not computed again, and afterwards it holds the
   * text but for the last token, which was chosen and not computed. Nobody else may use it meanwhile (OPTION).
   */
  cache?: ModelCache | undefined;
  /** Unfused multiply-adds: the same bits on every backend. */
  deterministic?: boolean | undefined;
  /** Ends generation; the iterator throws ABORTED. (Leaving the loop ends it as well, without an error.) */
  signal?: AbortSignal | undefined;
}

/** A piece of a generated text. */
export interface GeneratedToken {
  /** The token. */
  readonly id: number;
  /**
   * What it adds to the text: whole characters only, so it may be empty, and a later one longer. At the end what is left comes as
   * `decode` gives it. Empty without a tokenizer.
   */
  readonly text: string;
  /** Which text of a batch; 0 for one text. */
  readonly index: number;
  /** Why the text ends with it: a stop id, a stop string, or the number of tokens; null when it does not. */
  readonly finish: "stop" | "length" | null;
}

/** Options of {@link DiffLlama.forward}. */
export interface ModelForwardOptions {
  /** One per text; positions start at their lengths, and the ids are added to them. */
  cache?: ModelCache | readonly ModelCache[] | undefined;
  /** Also the hidden states; false by default. */
  hiddenStates?: boolean | undefined;
  /** Of which tokens there are logits: all by default, or each text's last. */
  logits?: "all" | "last" | undefined;
  /** Tokens that each token sees, itself included; all by default. Not with caches, which have their own. */
  window?: number | undefined;
  deterministic?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
}

/** Logits `[B, L, vocab]` (or `[B, 1, vocab]`), and the hidden states `[layers + 1, B, L, hidden]` where they were asked for. */
export type ModelOutput = Tensor & { readonly hiddenStates?: Tensor };

/** What a cache holds, apart from any model: to be stored (structured clone, IndexedDB) and imported again. */
export interface ModelCacheState {
  readonly ids: Int32Array;
  readonly discarded: number;
  readonly window: number | null;
  /** Of each layer, `[groups, tokens, head width]`. */
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
}

/** Keys and values of one text in every layer of a model. */
export interface ModelCache {
  /** Tokens of the text so far. Waits for nothing: calls under way count once they end. */
  readonly length: number;
  /** Forgets all but the first `length` tokens. SHAPE when there are fewer or they have left the window. */
  rewind(length: number): Promise<void>;
  /** Copies everything out; `importCache` of the model takes it back. */
  export(): Promise<ModelCacheState>;
  dispose(): void;
  [Symbol.dispose](): void;
}

/** A tokenizer, as `tokenizer.json` describes it. */
export interface Tokenizer {
  encode(text: string): number[];
  /** Special tokens are left out. */
  decode(ids: readonly number[] | Int32Array): string;
}

/** Options of the models' `load`. */
export interface ModelLoadOptions extends LoadOptions {
  /**
   * Told, before the weights are read, of what is odd about the checkpoint and loaded all the same, each a sentence: weights that the model has no
   * use for, a head of the file's own where the config ties it, fewer layers in the config than in the file, elements of F64 (rounded to F32),
   * prefixes of names that were taken off. {@link inspectCheckpoint} says the same without loading.
   */
  onNotice?: ((text: string) => void) | undefined;
  /**
   * Instead of the checkpoint's own `tokenizer.json`, which needs the package `@huggingface/tokenizers` (where it is missing, a model
   * still takes and gives ids, and texts are UNAVAILABLE); null: none.
   */
  tokenizer?: Tokenizer | null | undefined;
}

/** A DIFF Llama (Hugging Face `diffllama`): text in, logits or text out. Weights stay in their dtype. */
export declare class DiffLlama {
  private constructor();
  /**
   * Loads a checkpoint: part by part, so that besides the model no more than two layers are in memory, the one that is taken over and
   * the next one, which is read meanwhile. Names may have a prefix of what wrapped the model (`_orig_mod.`, `module.`, `base_model.model.`),
   * or lack the `model.` that a base model lacks. Weights that are there win over what `config.json` claims.
   *
   * @throws {DiffAttnError} FILE naming what is wrong; OUT_OF_MEMORY; ABORTED.
   */
  static load(source: CheckpointSource, options?: ModelLoadOptions): Promise<DiffLlama>;
  readonly config: ModelConfig;
  /** null when the checkpoint has none. */
  readonly tokenizer: Tokenizer | null;
  /** @throws {DiffAttnError} UNAVAILABLE without a tokenizer, or without the package that reads it. */
  encode(text: string): number[];
  decode(ids: readonly number[] | Int32Array): string;
  /** @throws {DiffAttnError} (as a rejection) OPTION for an id outside the vocabulary; SHAPE, OUT_OF_MEMORY, ABORTED, DISPOSED; caches are then as they were. */
  forward(ids: TokenIds, options?: ModelForwardOptions): Promise<ModelOutput>;
  /**
   * Continues a text, or several side by side (a list of texts or of lists of ids): one token after the other, of a batch one of each
   * text in turn. Nothing is computed before the first token is asked for, nor between two.
   *
   * @throws {DiffAttnError} (from the iterator) OPTION, SHAPE, DTYPE, UNAVAILABLE, OUT_OF_MEMORY, ABORTED, DISPOSED.
   */
  generate(
    prompt: string | TokenIds | readonly string[] | readonly (readonly number[])[],
    options?: GenerateOptions,
  ): AsyncGenerator<GeneratedToken, void, undefined>;
  /** The attention maps of a layer (from 0): map1, map2 and diff, each `[B, H, L, L]`. */
  maps(ids: TokenIds, layer: number, options?: { signal?: AbortSignal | undefined }): Promise<AttentionMaps>;
  /** An empty cache: `capacity` tokens reserved at once (0 by default); `window`: tokens that each token sees (all by default). */
  createCache(options?: { capacity?: number | undefined; window?: number | undefined }): Promise<ModelCache>;
  /** Takes back what {@link ModelCache.export} gave. SHAPE when it is of a model of other sizes. */
  importCache(state: ModelCacheState): Promise<ModelCache>;
  /** Frees the memory once no call uses it. A second call does nothing; use after it is DISPOSED. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/** 8-bit pixels, RGB or RGBA, row by row. An `ImageData` is one; so is what most decoders give. */
export interface ImageLike {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** An image of any size, several, or (in browsers) what a canvas, an `ImageBitmap` or a loaded `<img>` shows. */
export type ImageSource = ImageLike | ImageBitmap | HTMLCanvasElement | OffscreenCanvas | HTMLImageElement;

export interface Classification {
  /** The class's index. */
  readonly index: number;
  /** Its name, where the config has `label_names` or `id2label`. */
  readonly label: string | null;
  /** Softmax of the logits. */
  readonly probability: number;
}

/** A DIFF vision transformer of timm (`vit_dwee…`, `vit_dlittle…`, `vit_dpwee…`). */
export declare class DiffViT {
  private constructor();
  static load(source: CheckpointSource, options?: Omit<ModelLoadOptions, "tokenizer">): Promise<DiffViT>;
  readonly config: ModelConfig;
  /** Logits `[B, classes]` of images, or of pixels `[B, 3, S, S]` that are already resized and normalised. */
  forward(image: ImageSource | readonly ImageSource[] | Tensor, options?: { signal?: AbortSignal | undefined }): Promise<Tensor>;
  /** The likeliest classes, the likeliest first: 5 by default. */
  classify(image: ImageSource, options?: { top?: number | undefined; signal?: AbortSignal | undefined }): Promise<Classification[]>;
  /** The attention maps of a block (from 0), each `[1, H, N, N]`: the register tokens first, then the patches row by row. */
  maps(image: ImageSource, layer: number, options?: { signal?: AbortSignal | undefined }): Promise<AttentionMaps>;
  dispose(): void;
  [Symbol.dispose](): void;
}
