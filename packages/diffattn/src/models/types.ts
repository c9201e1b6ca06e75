// The public API of the entry "diffattn/models", typed and documented once; both of its entries
// (Node, browsers) are typed by this file. Declares only: no code.
//
// Letters: B batch, L tokens, H output heads, N tokens of an image, S side of an image.

import type { AttentionMaps, CacheDType, CallOptions, Placed, Tensor, TensorLike } from "../types.js";

// As in ../types.ts: names that a runtime without a DOM has too, or never meets.
/* eslint-disable @typescript-eslint/no-empty-object-type, @typescript-eslint/no-unused-vars */
/* eslint-disable @typescript-eslint/no-explicit-any */
declare global {
  interface Blob {}
  interface File {}
  interface WritableStream<W = any> {}
  interface ImageBitmap {}
  interface HTMLCanvasElement {}
  interface OffscreenCanvas {}
  interface HTMLImageElement {}
  interface Response {}
  interface RequestInit {}
  interface Headers {}
}
/* eslint-enable @typescript-eslint/no-empty-object-type, @typescript-eslint/no-unused-vars */
/* eslint-enable @typescript-eslint/no-explicit-any */

/**
 * A `Uint8Array` over a plain `ArrayBuffer`; written so that TypeScript before 5.7 takes it too.
 */
export type Uint8Result = ReturnType<typeof Uint8Array.of>;

/** Element types of safetensors files. */
export type StoredDType =
  "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "U16" | "I16" | "F16" | "BF16" | "U32" | "I32" | "F32" | "U64" | "I64" | "F64";

/** The quantised types of GGUF files: blocks of 32 codes of 8 or 4 bits with a scale. */
export type QuantizedDType = "Q8_0" | "Q4_0" | "Q4_1";

/** What a checkpoint says of a tensor. */
export interface StoredTensorInfo<D extends string = StoredDType> {
  readonly name: string;
  readonly dtype: D;
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

/**
 * A tensor to be written: as {@link StoredTensor}, whose bytes may be a view of any memory, or its
 * shape under onnxruntime's name.
 */
export interface StoredLike {
  readonly dtype: StoredDType;
  readonly shape?: readonly number[] | undefined;
  readonly dims?: readonly number[] | undefined;
  /** Little-endian elements, last axis fastest. */
  readonly data: Uint8Array;
}

/** Whoever waits for something long, and how files may be reached. */
export interface LoadOptions {
  /** Ends the work; it rejects with ABORTED. */
  signal?: AbortSignal | undefined;
  /** Bytes that were read, and of how many. */
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
  /**
   * Keeps what an address gave in the browser's Cache Storage under this name and reads it from
   * there the next time; off by default. It is kept by its address alone, whatever `headers` it was
   * asked for with. Where there is no Cache Storage (Node, insecure pages) it does nothing.
   */
  cache?: string | undefined;
  /**
   * Sent with every request of the load, an `Authorization` for instance: a record, pairs, or a
   * `Headers`. They go to the origins of the addresses given. In Node they stay behind for good at
   * the first redirect that leads to another origin. Browsers follow redirects unseen and drop
   * `Authorization` alone: put nothing else that is secret there.
   */
  headers?: Readonly<Record<string, string>> | Iterable<readonly [string, string]> | Headers | undefined;
  /**
   * Makes every request instead of the platform's `fetch`. In Node it is asked for one hop at a
   * time (`redirect: "manual"`), as redirects are followed by the package: at most 20, to http or
   * https, and never from https to http.
   */
  fetch?: ((address: string, init: RequestInit) => Promise<Response>) | undefined;
  /** As `fetch` has it: whether cookies go along; "same-origin" by default. (Node keeps none.) */
  credentials?: "omit" | "same-origin" | "include" | undefined;
  /**
   * For addresses that strangers give: the origins, as "https://example.org", that requests may go
   * to; all by default. In Node every redirect is looked at before it is followed; in browsers,
   * which follow them unseen, an answer that came from elsewhere is refused. Where it is given,
   * paths and addresses of other kinds (`file:`, `data:`, `blob:`) are refused, too. FILE says so.
   */
  allowedOrigins?: readonly string[] | undefined;
  /**
   * For addresses that strangers give, in Node (elsewhere false is OPTION): false refuses addresses
   * of this machine and of networks that are not public (loopback, private, link-local, carriers',
   * multicast, reserved), literal ones and all that a name resolves to, at every redirect; paths,
   * too. FILE says so. A name may resolve otherwise a moment later, when it is asked: what must not
   * be reached at all belongs behind a firewall. true by default.
   */
  allowPrivate?: boolean | undefined;
  /**
   * The most bytes of a file that is read whole, counted after decompression: by default 64 MiB
   * (2^26) of each text (configurations, tokenizer, index, template) and 4 GiB (2^32) of weights
   * whose server sends them whole instead of by range. More is FILE, at once.
   */
  maxFileBytes?: number | undefined;
  /**
   * Tensors that a checkpoint may have, all of its files together; 65,536 by default. One that has
   * more is FILE before memory is spent on them.
   */
  maxTensors?: number | undefined;
  /**
   * What lets a private or gated model of the Hugging Face Hub be read; null: nothing does. In
   * Node, where it is not given, it is `HF_TOKEN`, or what the hub's own tools have kept on this
   * machine (`hf auth login`); neither is used where `allowedOrigins` or `allowPrivate: false` say
   * that the source is a stranger's. It goes to the hub (`HF_ENDPOINT`, or
   * https://huggingface.co), and to no other origin.
   */
  token?: string | null | undefined;
  /**
   * The branch, tag or commit of a model on the hub; "main" by default. A source that says another
   * is OPTION, and so is one that is no model of the hub. (An adapter's own stands in its name.)
   */
  revision?: string | undefined;
}

/**
 * Where a file comes from: a path (Node), an address, a `Blob` or `File`, or bytes in memory. In
 * browsers a text is an address.
 */
export type FileSource = string | URL | Blob | ArrayBuffer | ArrayBufferView;

/**
 * Where a checkpoint comes from: a folder's path (Node) or address ending with "/", one file (the
 * others lie beside it), or its files by name (`config.json`, `model.safetensors` or its index and
 * shards, `tokenizer.json` and `generation_config.json` where there are), as a record or as the
 * `File`s of an `<input type="file" multiple>`. Shards may lie in folders beside their index
 * (`"parts/model-1.safetensors"` in it and as a name of the record; `File`s of a chosen folder know
 * where they lie), never outside of its folder. Where there is neither `model.safetensors` nor an
 * index, weights are `diff/latest.safetensors`, as diff-mlx has them, or else the one
 * `*.safetensors` of the folder.
 *
 * A GGUF file holds all of that itself, under any name or none; of a model in several
 * (`x-00001-of-00003.gguf`) any one stands for all, where the others lie beside it.
 *
 * A model of the Hugging Face Hub is "hf:org/name", "hf:org/name@revision", with what of it is
 * meant ("hf:org/name@revision/file.gguf", a folder alike), or the address of its page, of a folder
 * or of a file there. In Node "org/name" and "org/name@revision" are such names, too, where there
 * is no file or folder of that name; in browsers those are addresses. In Node its files come into
 * the cache of the hub's own tools (`HF_HUB_CACHE`, `HF_HOME`), whole and checked, before they are
 * read, and are read from there when the hub does not answer, or `HF_HUB_OFFLINE` is set. In
 * browsers, and in Node where `allowedOrigins` or `allowPrivate: false` are given, they are read at
 * their addresses, and a GGUF file must be named.
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
  /**
   * As float32: exact from BF16 and F16, rounded once from F64. FILE for what has no float32 form.
   */
  readFloat32(name: string, options?: { signal?: AbortSignal | undefined }): Promise<Tensor>;
  /** Gives the file back. A second call does nothing; `read` afterwards is DISPOSED. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * Opens a safetensors file, or a sharded checkpoint by its folder or `*.safetensors.index.json`.
 * Only headers are read. Everything that a file could lie about is checked before anything is
 * allocated.
 *
 * @throws {DiffAttnError} FILE naming the file and what is wrong with it; ABORTED.
 */
export declare function openSafetensors(source: FileSource | CheckpointSource, options?: LoadOptions): Promise<Safetensors>;

/**
 * Writes a safetensors file. In Node `target` may be a path; the file takes its name only once it
 * is whole. Without a target the file is returned. The tensors' memory is read, not copied: leave
 * it alone until the promise settles.
 *
 * @throws {DiffAttnError} SHAPE, DTYPE or OPTION naming the tensor; FILE when it cannot be written.
 */
export declare function saveSafetensors(
  tensors: Readonly<Record<string, StoredLike | TensorLike>>,
  options?: {
    metadata?: Readonly<Record<string, string>> | null | undefined;
    target?: string | URL | WritableStream<Uint8Array> | null | undefined;
  },
): Promise<Uint8Result | undefined>;

/** What {@link inspectCheckpoint} found. */
export interface Inspection {
  /**
   * "diffllama", "llama", "diffattn_llama", "motif", "diff_mlx", "phi4flash", "diff_vit", "same_s",
   * "unilm", …; null when nothing in it is known.
   */
  readonly architecture: string | null;
  readonly parameters: number;
  readonly dtypes: readonly { dtype: StoredDType | QuantizedDType; tensors: number; parameters: number; bytes: number }[];
  /**
   * Quantised weights in MLX's layout, by how they are packed; their codes, scales and biases are
   * among `dtypes`, too.
   */
  readonly quantized: readonly { bits: number; groupSize: number; weights: number; parameters: number; bytes: number }[];
  /**
   * The layers with differential attention, with their head layout. (Of "same_s", whose blocks are
   * all alike, none is listed.)
   */
  readonly layers: readonly Readonly<Record<string, unknown>>[];
  /**
   * The layers of plain attention, one softmax per head, of an architecture that has any; the
   * numbers of their heads where a configuration says them.
   */
  readonly plainLayers: readonly Readonly<Record<string, unknown>>[];
  /**
   * The layers of a converted Llama that have differential heads: what plain layers have, the
   * `kind` ("v2", "v1", "dex"), what makes λ, and which heads are differential
   * (`differentialHeads`: "all", or their numbers from 0; null where no configuration says it).
   */
  readonly convertedLayers: readonly Readonly<Record<string, unknown>>[];
  /**
   * Names that the architecture wants and the file lacks, and the other way round (these as the
   * file has them).
   */
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  /** What is odd, each a sentence. */
  readonly warnings: readonly string[];
  /**
   * Every tensor, where the option `tensors` asks for them: in the order of the files; of a GGUF
   * file by Hugging Face's names.
   */
  readonly tensors?: readonly StoredTensorInfo<StoredDType | QuantizedDType>[];
}

/** How {@link inspectCheckpoint} is to look. */
export interface InspectOptions extends LoadOptions {
  /** Whether every tensor is told, too. Default: false. */
  tensors?: boolean | undefined;
}

/**
 * Looks at a checkpoint, of safetensors or in a GGUF file, without reading its weights:
 * architecture, head layout, dtypes, parameters, what is missing or odd.
 *
 * @throws {DiffAttnError} FILE naming the file and what is wrong with it; ABORTED.
 */
export declare function inspectCheckpoint(
  source: CheckpointSource | FileSource | Safetensors,
  options?: InspectOptions,
): Promise<Inspection>;

/** What {@link downloadCheckpoint} is to bring. */
export interface DownloadOptions extends LoadOptions {
  /**
   * Names of files, as "*.gguf" or a list of them, instead of those that a load reads: `*` stands
   * for any characters, a slash among them, `?` for one; a slash at the end means all of a folder.
   */
  include?: string | readonly string[] | undefined;
}

/** Where a model of the hub lies on this disk. */
export interface Download {
  /** What loads take: the folder of its files, or the one file that was named. */
  readonly path: string;
  /** The commit that the revision is. */
  readonly commit: string;
  /** What of it is there now because it was asked for, by paths from its folder. */
  readonly files: readonly string[];
}

/**
 * Brings a model of the Hugging Face Hub into the cache on this disk (Node; elsewhere UNAVAILABLE),
 * as a load of it does, and does not load it: its weights, and the configurations and texts beside
 * them. What was interrupted goes on where it ended. `onProgress` tells bytes of weights.
 *
 * @throws {DiffAttnError} OPTION for what is no name of the hub; FILE naming what is wrong;
 *   ABORTED.
 */
export declare function downloadCheckpoint(source: string | URL, options?: DownloadOptions): Promise<Download>;

/**
 * How {@link convertCheckpoint} is to write a checkpoint. What is not said stays as it is; `dtype`,
 * `layout` or both are wanted.
 */
export interface ConvertOptions extends LoadOptions {
  /**
   * Element type of all floats. Rounded to nearest, ties to even; to "F32" from "F64" once, from
   * all others exactly. Quantised weights become what they stand for.
   *
   * "q8" and "q4" quantise a language model's linear maps, embeddings and head, as `dtype` of
   * {@link ModelLoadOptions} has it; codes of as many bits or fewer stay as they are, floats that
   * are not quantised keep their type. They are written in MLX's layout: groups of 32, scales and
   * biases of F16, exact for Q8_0, Q4_0 and Q4_1.
   */
  dtype?: "F32" | "F16" | "BF16" | WeightFormat | undefined;
  /** As {@link ModelLoadOptions} has it: "q8" with "q4" by default. */
  head?: WeightFormat | undefined;
  /**
   * How many inputs of a row share a scale in floats that "q8" or "q4" quantises: 32 (the default,
   * as `dtype` says), or 64 by MLX's own rule, with scales and biases of BF16, as MLX's tools write
   * them; rows that are no whole groups of 64 have groups of 32.
   */
  groupSize?: 32 | 64 | undefined;
  /**
   * How attention layers lie and are named: as Hugging Face's `diffllama` (pairing halves,
   * half-split rope, no norm weight, `o_proj`) or as unilm's `multihead_flashdiff_2.py`
   * (interleaved heads and rope, `subln.weight`, `out_proj`). Heads and channels move bit for bit;
   * a norm's weight that diffllama has no place for is multiplied into the output projection,
   * rounded once.
   */
  layout?: "diffllama" | "unilm" | undefined;
  /** As {@link saveSafetensors} has it. */
  target?: string | URL | WritableStream<Uint8Array> | undefined;
}

/** What {@link convertCheckpoint} made. */
export interface Conversion {
  /** The file, where there is no `target`. */
  readonly file: Uint8Array<ArrayBuffer> | undefined;
  /**
   * What belongs beside the file and is not beside its source as it should be, by name: of
   * quantised weights, before or after, `config.json`; of a GGUF file also its tokenizer.
   */
  readonly files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
  /**
   * What was not exact or grew: repeated heads, folded weights, values that overflow. Each a
   * sentence.
   */
  readonly notes: readonly string[];
}

/**
 * Writes a checkpoint with another element type, or with its attention layers in another layout.
 * All of the new file is in memory once; where weights are or become quantised, one tensor at a
 * time (and scales and biases, until their place in the file comes). The source may then be a GGUF
 * file.
 *
 * @throws {DiffAttnError} OPTION naming the reason for heads that have no place in the layout;
 *   FILE; DTYPE; OUT_OF_MEMORY; ABORTED.
 */
export declare function convertCheckpoint(source: FileSource | CheckpointSource, options: ConvertOptions): Promise<Conversion>;

/** How {@link convertModel} is to make a Llama differential. */
export interface ConvertModelOptions extends LoadOptions {
  /**
   * What the differential heads are: `"v2"` (the default; a second q head over the same k and v, λ
   * of the sigmoid of a projection), `"v1"` (a second q and k head, λ of vectors, no norm; all
   * heads of a layer), `"dex"` (a matrix of the layer, which {@link foldDex} makes a part of the
   * output projection), or Hugging Face's `"diffllama"`, which can never compute what the Llama
   * did: its norm gives what every head makes the same length.
   */
  to?: "v2" | "v1" | "dex" | "diffllama" | undefined;
  /**
   * The share of each layer's heads that become differential, from 0 to 1: ⌊share · H + ½⌋ of H; ½
   * by default, with "v1" and "diffllama" 1.
   */
  share?: number | undefined;
  /**
   * Which heads: the `"last"` (the default), the `"first"`, those of the highest `"entropy"` over
   * `text`, `"all"`; or their numbers from 0, a list for each layer, without a share.
   */
  heads?: "all" | "last" | "first" | "entropy" | readonly (readonly number[])[] | undefined;
  /** The layers that get such heads, from 0; all by default. */
  layers?: readonly number[] | undefined;
  /**
   * With heads "entropy": what the maps' rows are measured over, in stretches of 256 tokens, by the
   * model itself; it needs a tokenizer.
   */
  text?: string | undefined;
  /** Token ids in the place of `text`. */
  ids?: TokenIds | undefined;
  /**
   * What they begin with. `"mirror"` (the default): both maps are the same, and the output
   * projection is divided by what is left, 1 − λ. `"zero"` ("v1" and "dex", where it is the
   * default): nothing is subtracted. `"mix"`: the second map is noise, and λ is multiplied with
   * `diff_attention.mix` of `config.json`, which is 0 until training raises it.
   */
  start?: "mirror" | "zero" | "mix" | undefined;
  /** λ at the beginning; 0.5 by default, where no weight is rounded. */
  lambda?: number | undefined;
  /** Where the random numbers of noise and λ's vectors begin; 0 by default. */
  seed?: number | undefined;
  /**
   * As what weights are written, floats of all that is F32, F16 or BF16, or quantised as {@link
   * convertCheckpoint} does it; by default each tensor's own, quantised ones as MLX has them.
   */
  dtype?: "F32" | "F16" | "BF16" | WeightFormat | undefined;
  /** As what embeddings and head are written, where that is not what `dtype` says. */
  head?: WeightFormat | undefined;
  /** As {@link convertCheckpoint} has it, for `dtype` or `head` "q8" and "q4". */
  groupSize?: ConvertOptions["groupSize"];
  /**
   * A low-rank adapter, as {@link LanguageModel.load} takes it, in the place of what says which
   * conversion: it names one, is merged into the weights, and these are quantised only where
   * `dtype` says so (of a quantised source, those that it changes become F32 unless it does).
   */
  adapter?: CheckpointSource | undefined;
  /**
   * A folder's path (Node), made where there is none; or what gives a stream for each file by its
   * name. Without one the files are returned. The tokenizer's files and `generation_config.json`
   * come along.
   */
  target?: string | URL | ((name: string) => WritableStream<Uint8Array> | Promise<WritableStream<Uint8Array>>) | undefined;
}

/** Options of {@link foldDex}. */
export interface FoldOptions extends LoadOptions, Pick<ConvertModelOptions, "target"> {}

/** What {@link convertModel} and {@link foldDex} made. */
export interface ModelConversion {
  /**
   * Whether the new model computes what the old one did: no weight was rounded, and what is new
   * subtracts nothing or is made up for. (Sums come in another order, so the last bits differ.)
   */
  readonly exact: boolean;
  /** Of each layer the heads that are differential, or were. */
  readonly heads: readonly (readonly number[])[];
  /** Parameters of the new model. */
  readonly parameters: number;
  /** How many more they are than before. */
  readonly added: number;
  /** What is to be known of it, each a sentence. */
  readonly notes: readonly string[];
  /** The files by name, as `load` takes them, where there is no `target`. */
  readonly files: Readonly<Record<string, Uint8Result>> | undefined;
}

/**
 * Makes heads of a plain Llama differential: a checkpoint of `model_type` "diffattn_llama" (or
 * "diffllama"), which {@link LanguageModel} loads. But for "diffllama", and for a λ or an element
 * type that rounds weights, it computes at first what the Llama does. Tensors are read, made and
 * written one by one.
 *
 * @throws {DiffAttnError} OPTION naming what does not fit the Llama; FILE naming `source` for what
 *   is none; DTYPE for weights that the element type cannot hold; OUT_OF_MEMORY; ABORTED.
 */
export declare function convertModel(source: CheckpointSource, options?: ConvertModelOptions): Promise<ModelConversion>;

/**
 * Makes a plain Llama, for every runtime there is, of one with DEX: what is subtracted from heads
 * becomes part of the output projection, rounded once.
 *
 * @throws {DiffAttnError} FILE naming `source` for what is no Llama with DEX; as
 *   {@link convertModel}.
 */
export declare function foldDex(source: CheckpointSource, options?: FoldOptions): Promise<ModelConversion>;

/**
 * What an adapter has of a weight: `a` `[r, inputs]` and `b` `[outputs, r]` of a low-rank
 * difference, W + alpha / r · B A; or the whole weight. F32, F16 or BF16.
 */
export type AdapterWeight = { readonly a: StoredLike | TensorLike; readonly b: StoredLike | TensorLike } | StoredLike | TensorLike;

/** Options of {@link saveAdapter}. */
export interface SaveAdapterOptions {
  /** What B A is multiplied with, times the rank: `lora_alpha`; the rank by default. */
  alpha?: number | undefined;
  /**
   * The conversion that a plain Llama needs first, in the words of {@link convertModel}, which
   * becomes `diff_attention`: `to: "v2"`, `start: "mirror"` (the defaults, and the only ones that
   * adapters are of), `heads: "all"` (the default) or lists, as `convertModel` gave them back.
   * Without it the adapter is for a model as it is.
   */
  conversion?: Pick<ConvertModelOptions, "to" | "heads" | "start"> | undefined;
  /** Where the model is that it is for; `base_model_name_or_path`, none by default. */
  baseModel?: string | undefined;
  /** As {@link convertModel} has it. */
  target?: ConvertModelOptions["target"];
  /** Ends the work; it rejects with ABORTED. */
  signal?: AbortSignal | undefined;
}

/**
 * Writes a low-rank adapter in PEFT's names: `adapter_config.json` and `adapter_model.safetensors`,
 * which {@link LanguageModel.load} and {@link convertModel} take as `adapter`. `weights` are by the
 * names that the model has for them (`"model.layers.0.self_attn.q_proj.weight"`), those of a model
 * converted to differential attention as they are then. All low-rank differences have one rank.
 * Gives the files by name where there is no `target`. The tensors' memory is read, not copied:
 * leave it alone until the promise settles.
 *
 * @throws {DiffAttnError} SHAPE, DTYPE or OPTION naming the weight (`weights.NAME.a`) or the
 *   option; FILE when it cannot be written; ABORTED.
 */
export declare function saveAdapter(
  weights: Readonly<Record<string, AdapterWeight>>,
  options?: SaveAdapterOptions,
): Promise<Readonly<Record<string, Uint8Result>> | undefined>;

/** Options of {@link compareModels}. */
export interface CompareOptions {
  /** What both read, by the first one's tokenizer. */
  text?: string | undefined;
  /** What both read, as token ids; without ids and text 64 ids from all over the vocabulary. */
  ids?: TokenIds | undefined;
  /** Tokens that both write after it, each the likeliest; 64 by default. */
  tokens?: number | undefined;
  /** Ends the work; it rejects with ABORTED. */
  signal?: AbortSignal | undefined;
}

/** What {@link compareModels} found. */
export interface Comparison {
  /** The largest difference of two logits. */
  readonly largest: number;
  /** The largest difference of two logits, divided by the first model's largest logit. */
  readonly relative: number;
  /** Whether both write the same tokens. */
  readonly sameTokens: boolean;
}

/**
 * Compares what two language models with one vocabulary make of a text. Either may be a loaded
 * model, or a checkpoint, which is loaded for it.
 *
 * @throws {DiffAttnError} SHAPE for other vocabularies; UNAVAILABLE for a text without a tokenizer;
 *   what `load` and `forward` throw.
 */
export declare function compareModels(
  a: LanguageModel | CheckpointSource,
  b: LanguageModel | CheckpointSource,
  options?: CompareOptions,
): Promise<Comparison>;

/**
 * What a model is measured over: a text, which its tokenizer splits; token ids; or a file of
 * tokens, read range by range, with the documents that it has. Such a file begins with 32 bytes:
 * `DATK`, version (u32, 1), bytes of an id (u32, 2 or 4), 0 (u32), tokens (u64), documents (u64);
 * then the ids, then the token that each document begins with (u64). All numbers are little-endian.
 */
export type EvaluationData = string | readonly number[] | Int32Array | { readonly tokens: FileSource };

/** Options of {@link evaluateText}. */
export interface EvaluateTextOptions {
  /**
   * Tokens of a window, 2 or more; 256 by default, or as many as the model has positions, where
   * these are fewer. Windows follow one another without overlap, and each is a text of its own.
   */
  context?: number | undefined;
  /** Tokens of the data that are read, from its beginning; all by default. */
  limit?: number | undefined;
  /** Ends the work; it rejects with ABORTED. */
  signal?: AbortSignal | undefined;
  /** Tokens that were read, and of how many. What it throws rejects the call. */
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
}

/** What {@link evaluateText} found. */
export interface TextEvaluation {
  /** The mean of −ln p over the tokens that count, in nats. */
  readonly loss: number;
  /** exp(loss): among how many equally likely tokens the model might as well have chosen. */
  readonly perplexity: number;
  /**
   * Tokens that count: all but the first of each window, and of each document within one, which
   * have nothing before them.
   */
  readonly counted: number;
  /** Tokens that were read. */
  readonly tokens: number;
  /** Tokens of a window. */
  readonly context: number;
  /** How long the model took, apart from all else. */
  readonly seconds: number;
  /** Tokens that count, by the seconds that the model took. */
  readonly tokensPerSecond: number;
}

/**
 * How well a model expects a text: windows go through it one behind the other, and each token
 * counts by how probable it was after those before it in its window. The documents of a file of
 * tokens are texts of their own within a window. Losses are computed from float32 logits in
 * float64. Memory is bounded: no more logits than 64 MiB are held at once (or those of one token).
 *
 * @throws {DiffAttnError} (as a rejection) OPTION for options, an id outside the vocabulary, data
 *   of fewer than 2 tokens, or windows longer than the model's `max_position_embeddings`; DTYPE for
 *   other data; FILE naming what is wrong with a file of tokens; UNAVAILABLE for a text without a
 *   tokenizer; OUT_OF_MEMORY, ABORTED, DISPOSED.
 */
export declare function evaluateText(model: LanguageModel, data: EvaluationData, options?: EvaluateTextOptions): Promise<TextEvaluation>;

/** Options of {@link evaluateNeedle}. */
export interface NeedleOptions {
  /** Lengths of prompts, in tokens. */
  lengths: readonly number[];
  /** How deep in the running text the needle stands, from 0 to 1; 0, ¼, ½, ¾ and 1 by default. */
  depths?: readonly number[] | undefined;
  /** Prompts of each length and depth; 20 by default. */
  draws?: number | undefined;
  /**
   * What cities, numbers and beginnings of the running text follow from: an integer from 0; 0 by
   * default. Those of a length do not depend on which others are asked for, and its depths share
   * them.
   */
  seed?: number | undefined;
  /**
   * The running text that needles are hidden in; by default a few paragraphs of the package's own.
   * It goes on at its beginning where it is shorter than a prompt. Of a text, needles stand between
   * two sentences, and the question follows the end of one.
   */
  text?: EvaluationData | undefined;
  /** Prompts of each length and depth whose attention is looked at; all by default. */
  attention?: number | undefined;
  /** Ends the work; it rejects with ABORTED. */
  signal?: AbortSignal | undefined;
  /** Prompts that were answered, and of how many. What it throws rejects the call. */
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
}

/** A share of attention, from 0 to 1, over heads. */
export interface MassSpread {
  readonly mean: number;
  /** Standard deviation from head to head. */
  readonly sd: number;
  /** Heads, of all layers together. */
  readonly heads: number;
}

/**
 * How much of the attention of a prompt's last token falls on the needle, its whole sentence: Σ|w|
 * there ÷ Σ|w| of all tokens, the mean of each head over the prompts, then over all heads of all
 * layers.
 */
export interface NeedleAttention {
  /** Prompts that were looked at. */
  readonly prompts: number;
  /**
   * What would fall there if every token had as much: the needle's share of the prompt's length.
   */
  readonly even: number;
  /** Heads of one map, as a plain Llama has them; null where there are none. */
  readonly plain: MassSpread | null;
  /** Each map of the heads that have several: the first, the second. Empty where there are none. */
  readonly terms: readonly MassSpread[];
  /** The difference of their maps, first − λ · second; null where there are no such heads. */
  readonly difference: MassSpread | null;
}

/** What {@link evaluateNeedle} found at one length and depth. */
export interface NeedleCell {
  /** Tokens of each prompt. */
  readonly length: number;
  readonly depth: number;
  /** Prompts. */
  readonly draws: number;
  /** Answers that begin with the number's five digits. */
  readonly right: number;
  /** `right` ÷ `draws`. */
  readonly accuracy: number;
  /** null where it was not looked at. */
  readonly attention: NeedleAttention | null;
}

/** What {@link evaluateNeedle} found. */
export interface NeedleEvaluation {
  /** By length, then by depth, in the order in which they were asked for. */
  readonly cells: readonly NeedleCell[];
  readonly draws: number;
  readonly seed: number;
  readonly seconds: number;
}

/**
 * The needle task: in a long running text stands "The magic number of CITY is NNNNN.", and the
 * prompt ends with "The magic number of CITY is". Right is an answer, of the likeliest token each
 * time, that begins with the five digits. Prompts are put together from token ids, so each has the
 * length that was asked for. What the last token attends to is in `attention`.
 *
 * @throws {DiffAttnError} (as a rejection) OPTION for options, for lengths beyond the model's
 *   `max_position_embeddings` and for those that do not hold needle and question; UNAVAILABLE
 *   without a tokenizer; what {@link evaluateText} throws for data; OUT_OF_MEMORY, ABORTED,
 *   DISPOSED.
 */
export declare function evaluateNeedle(model: LanguageModel, options: NeedleOptions): Promise<NeedleEvaluation>;

/** Token ids of one text, or `[B, L]`. */
export type TokenIds = readonly number[] | Int32Array | TokenTensor;

/** Token ids `[B, L]`. */
export interface TokenTensor extends Placed {
  readonly data: Int32Array;
  /** `[B, L]`. One of `shape` and `dims` is wanted. */
  readonly shape?: readonly number[] | undefined;
  /** `shape` under onnxruntime's name. */
  readonly dims?: readonly number[] | undefined;
}

/** The configuration of a model, as its `config.json` has it, with every default in its place. */
export type ModelConfig = Readonly<Record<string, unknown>>;

/**
 * How the next token is chosen. Bias, the penalties (of repetition, frequency, presence),
 * temperature, topK, topP and minP act in this order.
 */
export interface SamplingOptions {
  /** What logits are divided by; 0, the default, takes the highest. */
  temperature?: number | undefined;
  /** Only so many of the highest logits; all by default. */
  topK?: number | undefined;
  /** Only the most probable ids, as few as together exceed it; 1 by default. */
  topP?: number | undefined;
  /**
   * Only ids that are at least so many times as probable as the most probable one, from 0 (the
   * default: all) to 1.
   */
  minP?: number | undefined;
  /**
   * What a logit above 0 is divided by, and one below multiplied with, if the text has its id, in
   * its prompt or since; 1 by default.
   */
  repetitionPenalty?: number | undefined;
  /**
   * What is subtracted from the logit of an id that was generated, prompt apart; 0 by default.
   */
  presencePenalty?: number | undefined;
  /**
   * What is subtracted from the logit of an id for each time that it was generated, prompt apart; 0
   * by default.
   */
  frequencyPenalty?: number | undefined;
  /**
   * What is added to logits, by token id: numbers, or -Infinity, which bans an id. None by default.
   */
  logitBias?: Readonly<Record<number, number>> | undefined;
  /**
   * Where the random numbers begin: an integer from 0 to 2⁵³ − 1; 0 by default. The same seed gives
   * the same text on every backend.
   */
  seed?: number | undefined;
}

/** Options of {@link LanguageModel.generate}. */
export interface GenerateOptions extends SamplingOptions {
  /** New tokens at most; 256 by default. */
  maxNewTokens?: number | undefined;
  /**
   * How many texts each prompt becomes, from 1 (the default) to 128, side by side: those of the
   * first prompt have `index` 0 to n − 1. The one of index i is what `seed` + i gives alone.
   */
  n?: number | undefined;
  /**
   * Also tells how probable each token was (`logprob`), and of how many of the most probable ones
   * beside it (`topLogprobs`; 0 or more). Not by default.
   */
  logprobs?: number | undefined;
  /**
   * Texts before which generation ends; they are not given, and what may become one is held back.
   * Needs a tokenizer. One with an added token of `tokenizer.json` in it (`"<|im_end|>"`,
   * `"<|im_end|>\n"`) is looked for among the ids, too, so it is found though special tokens are no
   * text. Of a tokenizer of your own only texts are looked for.
   */
  stop?: string | readonly string[] | undefined;
  /**
   * Ids that end the text (the last of them is given, with an empty text); the config's
   * `eos_token_id` by default.
   */
  stopIds?: readonly number[] | Int32Array | undefined;
  /** As {@link EncodeOptions} has it, for prompts that are texts; true by default. */
  addSpecialTokens?: boolean | undefined;
  /**
   * Tokens that each token sees, itself included; all by default. Not with a cache, which has its
   * own.
   */
  window?: number | undefined;
  /**
   * A cache to go on with, of one text: what it holds of the prompt's beginning is not computed
   * again, and afterwards it holds the text but for the last token, which was chosen and not
   * computed. Nobody else may use it meanwhile (OPTION).
   */
  cache?: ModelCache | undefined;
  /** Unfused multiply-adds: the same bits on every backend. */
  deterministic?: boolean | undefined;
  /**
   * Ends generation; the iterator throws ABORTED. (Leaving the loop ends it as well, without an
   * error.)
   */
  signal?: AbortSignal | undefined;
}

/** How probable an id was: the natural logarithm, before any option of sampling acts. */
export interface TokenLogprob {
  readonly id: number;
  readonly logprob: number;
}

/** A message of a conversation. What else it has, templates may look at. */
export interface ChatMessage {
  /** "system", "user", "assistant", or what else a template knows. */
  readonly role: string;
  /** A text; a list of objects (`{ type: "text", text }`) where the template takes them. */
  readonly content?: string | readonly object[] | null | undefined;
  readonly [more: string]: unknown;
}

/** What the template of a conversation is told besides its messages. */
export interface ChatTemplateOptions {
  /**
   * The name of one of several templates that a checkpoint has ("tool_use"); "default" by default.
   */
  template?: string | undefined;
  /**
   * Variables that templates ask for (`tools`, `enable_thinking`, `date_string`), in JSON. None by
   * default.
   */
  variables?: Readonly<Record<string, unknown>> | undefined;
  /** Whether the prompt ends where an answer begins; true by default. */
  addGenerationPrompt?: boolean | undefined;
}

/** Options of {@link LanguageModel.chat}. `stopIds` are those that end a turn, by default. */
export interface ChatOptions extends GenerateOptions, Omit<ChatTemplateOptions, "addGenerationPrompt"> {}

/** What a function in the place of a template makes a prompt of. */
export interface ChatConversation {
  /** The checkpoint's own template, in Jinja; empty where it has none. */
  readonly template: string;
  /**
   * What templates may name: `messages`, `add_generation_prompt`, `tools`, special tokens
   * (`bos_token`), and the caller's `variables`.
   */
  readonly variables: Readonly<Record<string, unknown>>;
}

/** Options of {@link LanguageModel.embed}. */
export interface EmbedOptions {
  /** The mean of the hidden states of a text's tokens (the default), or those of the last. */
  pooling?: "mean" | "last" | undefined;
  /** Whether vectors have length 1; true by default. */
  normalize?: boolean | undefined;
  /** As {@link EncodeOptions} has it, for texts; true by default. */
  addSpecialTokens?: boolean | undefined;
  /** Unfused multiply-adds: the same bits on every backend. */
  deterministic?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
}

/** A piece of a generated text. */
export interface GeneratedToken {
  /** The token. */
  readonly id: number;
  /**
   * What it adds to the text: nothing that a later token can change, so it may be empty, and a
   * later one longer. At the end what is left comes as `decode` gives it. Joined the pieces are
   * `decode(prompt + ids)` without what it begins with in common with `decode(prompt)`. Held back
   * are at most an incomplete character and, where the tokenizer cleans up spaces, 19 characters;
   * of a `decode` of your own at most 24 characters that look like either. What such a `decode`
   * rewrites later is not taken back: the text goes on behind what was given. Empty without a
   * tokenizer.
   */
  readonly text: string;
  /** Which text of a batch; 0 for one text. With n texts of each prompt, its prompt's · n + i. */
  readonly index: number;
  /**
   * Why the text ends with it: a stop id, a stop string, or the number of tokens; null when it does
   * not.
   */
  readonly finish: "stop" | "length" | null;
  /** How probable it was, where `logprobs` asks: as {@link TokenLogprob} has it. */
  readonly logprob?: number;
  /** The most probable ones in its place, the most probable first, where `logprobs` asks. */
  readonly topLogprobs?: readonly TokenLogprob[];
}

/** Options of {@link LanguageModel.createBatch}. */
export interface BatchOptions {
  /** Texts that are written side by side; further ones wait for a place. 16 by default. */
  size?: number | undefined;
  /**
   * Bytes of memory for keys and values of texts that have ended, of which later texts that begin
   * alike take over what they have in common; 0 keeps none. 2²⁸ (256 MiB) by default.
   */
  prefixBytes?: number | undefined;
  /**
   * Ids of prompts that are computed in one step at most, so that a long prompt does not hold up
   * other texts for long; 256 by default.
   */
  stepTokens?: number | undefined;
  /** Tokens that each token sees, itself included; all by default. */
  window?: number | undefined;
  /** Unfused multiply-adds: the same bits on every backend. */
  deterministic?: boolean | undefined;
}

/** Options of {@link GenerationBatch.generate}. */
export type BatchGenerateOptions = Omit<ChatOptions, "window" | "cache" | "deterministic">;

/** A piece of a text of a batch. */
export interface BatchToken extends GeneratedToken {
  /** Tokens of the text's prompt. */
  readonly promptTokens: number;
  /** How many of them were not computed, as another text had them. */
  readonly reusedTokens: number;
}

/**
 * Texts of any number of callers, continued side by side (continuous batching): each joins those
 * that are under way between two steps and leaves them when it ends. What prompts have in common is
 * computed once. Each text is what {@link LanguageModel.generate} gives of it alone.
 */
export declare class GenerationBatch {
  private constructor();
  /** Texts that have a place. */
  readonly running: number;
  /** Texts that wait for one. */
  readonly waiting: number;
  /**
   * As {@link LanguageModel.generate}; but texts go on whether or not the next token is asked for.
   * Leaving the loop, or the signal, frees their places.
   *
   * @throws {DiffAttnError} (from the iterator) as there, and DISPOSED.
   */
  generate(
    prompt: string | TokenIds | readonly (string | readonly number[] | Int32Array)[] | readonly ChatMessage[],
    options?: BatchGenerateOptions,
  ): AsyncGenerator<BatchToken, void, undefined>;
  /** Ends all of its texts (DISPOSED) and frees their memory. A second call does nothing. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/** Options of {@link LanguageModel.forward}. */
export interface ModelForwardOptions {
  /** One per text; positions start at their lengths, and the ids are added to them. */
  cache?: ModelCache | readonly ModelCache[] | undefined;
  /** Also the hidden states; false by default. */
  hiddenStates?: boolean | undefined;
  /** Of which tokens there are logits: all by default, or each text's last. */
  logits?: "all" | "last" | undefined;
  /**
   * Tokens that each token sees, itself included; all by default. Not with caches, which have their
   * own.
   */
  window?: number | undefined;
  deterministic?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined;
}

/**
 * Logits `[B, L, vocab]` (or `[B, 1, vocab]`), and the hidden states `[layers + 1, B, L, hidden]`
 * where they were asked for.
 */
export type ModelOutput = Tensor & { readonly hiddenStates?: Tensor };

/** Codes of an int8 cache: a number is code · scale of its row. */
export interface Int8Tensor {
  readonly data: Int8Array;
  readonly shape: readonly number[];
  readonly dims: readonly number[];
  readonly dtype: "int8";
  readonly type: "int8";
}

/** Keys and values that a layer held of every token, or of the last ones where it has a window. */
export interface KvLayerState {
  readonly kind: "kv";
  /** `[heads, tokens, head width]`, as the cache holds them. */
  readonly keys: Tensor | Int8Tensor;
  readonly values: Tensor | Int8Tensor;
  /** Of int8, `[heads, tokens]`. */
  readonly keyScales?: Tensor | undefined;
  readonly valueScales?: Tensor | undefined;
}

/** The state of a recurrent layer behind all tokens, in the order of the kernels: for importing. */
export interface RecurrentLayerState {
  readonly kind: "recurrent";
  /** The last inputs of the convolution, `[(taps − 1) · channels]`, oldest first. */
  readonly window: Tensor;
  /** The state of the scan, one list of numbers. */
  readonly scan: Tensor;
}

/** Of a layer that keeps nothing, as it reads what others keep. */
export interface EmptyLayerState {
  readonly kind: "none";
}

/** What a layer held of a text, by kind. */
export type LayerCacheState = KvLayerState | RecurrentLayerState | EmptyLayerState;

/**
 * What a cache holds, apart from any model: to be stored (structured clone, IndexedDB) and imported
 * again.
 */
export interface ModelCacheState {
  readonly ids: Int32Array;
  readonly discarded: number;
  readonly window: number | null;
  /** Of each layer, by its kind. A state without them is read by its keys and values. */
  readonly layers?: readonly LayerCacheState[] | undefined;
  /**
   * Of each layer, `[heads, tokens, head width]`, where all are keys and values of floats: those of
   * `layers`. Empty otherwise.
   */
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
}

/** Options of {@link LanguageModel.createCache}. */
export interface ModelCacheOptions {
  capacity?: number | undefined;
  window?: number | undefined;
  dtype?: CacheDType | undefined;
}

/** Keys and values of one text in every layer of a model. */
export interface ModelCache {
  /** Tokens of the text so far. Waits for nothing: calls under way count once they end. */
  readonly length: number;
  /**
   * Forgets all but the first `length` tokens. SHAPE when there are fewer or they have left the
   * window. Recurrent layers are marked every 256 tokens, over the last 1024: the next call
   * computes anew from the mark before `length`, or else from the beginning.
   */
  rewind(length: number): Promise<void>;
  /** Copies everything out; `importCache` of the model takes it back. */
  export(): Promise<ModelCacheState>;
  dispose(): void;
  [Symbol.dispose](): void;
}

/** Options of `encode`. */
export interface EncodeOptions {
  /**
   * Whether what the tokenizer puts around a text (a token of its beginning, say) is put there;
   * true by default. Special tokens that the text itself names are tokens either way.
   */
  addSpecialTokens?: boolean | undefined;
}

/** Options of `decode`. */
export interface DecodeOptions {
  /** Whether special tokens are left out; true by default. */
  skipSpecialTokens?: boolean | undefined;
}

/**
 * A tokenizer, as `tokenizer.json` describes it. One of your own is given the options that its
 * caller gave, or none.
 */
export interface Tokenizer {
  /** The ids of a text. The empty one may have some, too: what is put around every text. */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * The text of ids. Ids without a token are left out, and so are special tokens unless the options
   * say otherwise.
   */
  decode(ids: readonly number[] | Int32Array, options?: DecodeOptions): string;
}

/** What a checkpoint has of its tokenizer: the bytes of its files, or of what a GGUF file says. */
export interface TokenizerFiles {
  /** `tokenizer.json`. */
  readonly json: Uint8Array;
  /** `tokenizer_config.json`, where there is one. */
  readonly config?: Uint8Array | undefined;
}

/**
 * As what weights are held in memory: floats, or codes of eight or four bits with a float16 scale
 * for each 32 of a row (8.5 and 4.5 bits per weight), made by the rules of GGUF's Q8_0 and Q4_0.
 * Products with codes are those of x in int8, 32 values a scale: the bits of a row are the same on
 * every instruction set.
 */
export type WeightFormat = "float32" | "float16" | "bfloat16" | "q8" | "q4";

/** How a model that is not one of texts is to be loaded. */
export type WeightLoadOptions = LoadOptions & Pick<ModelLoadOptions, "onNotice">;

/** How {@link LanguageModel.load} is to load. */
export interface ModelLoadOptions extends LoadOptions {
  /**
   * A low-rank adapter in PEFT's names: a folder, an address or files with `adapter_config.json`
   * and `adapter_model.safetensors` (`lora_A`, `lora_B`, W + lora_alpha / r · B A, and the modules
   * of `modules_to_save` whole). Where its `diff_attention` names a conversion, a plain Llama is
   * converted so first; over a model that was converted otherwise it is OPTION. It is merged into
   * weights of floats, and stays beside quantised ones as two thin products.
   */
  adapter?: CheckpointSource | undefined;
  /**
   * What caches of the model hold keys and values as, those that `generate` makes for itself too;
   * "float32" by default. "bfloat16" and "float16" take half the memory, "int8" little more than a
   * quarter, and a long text is continued in about as much of the time. (A `forward` without a
   * cache keeps float32.)
   */
  cacheDtype?: CacheDType | undefined;
  /**
   * Told, before the weights are read, of what is odd about the checkpoint and loaded all the same,
   * each a sentence: weights that the model has no use for, a head of the file's own where the
   * config ties it, fewer layers in the config than in the file, elements of F64 (rounded to F32),
   * prefixes of names that were taken off. {@link inspectCheckpoint} says the same without loading.
   */
  onNotice?: ((text: string) => void) | undefined;
  /**
   * Instead of the checkpoint's own `tokenizer.json`, which needs the package
   * `@huggingface/tokenizers` (where it is missing, a model still takes and gives ids, and texts
   * are UNAVAILABLE); null: none. A function makes one of the checkpoint's files, where there are
   * any; what it makes nothing of is read as it is without it.
   */
  tokenizer?: Tokenizer | ((files: TokenizerFiles) => Tokenizer | undefined | Promise<Tokenizer | undefined>) | null | undefined;
  /**
   * Instead of the checkpoint's own template of conversations: one in Jinja, or a function that
   * writes a prompt. The checkpoint's needs the package `@huggingface/jinja` (where it is missing,
   * conversations are UNAVAILABLE).
   */
  chatTemplate?: string | ((conversation: ChatConversation) => string | Promise<string>) | null | undefined;
  /**
   * Which regular expressions `tokenizer.json` may have: "any" (the default), or "known", for files
   * of strangers. `encode` matches them on the thread that calls it, and JavaScript takes as long
   * as an expression likes: `(a+)+b` twice as long with every letter. "known" are those of
   * published tokenizers (GPT-2, GPT-4, GPT-4o, Llama 3, Qwen, Mistral, DeepSeek, BLOOM) and single
   * characters or classes of them, whose time grows as the text does. Others are FILE, and so is
   * what costs more than the text is long in other ways: steps that let it grow more than 64 times,
   * added tokens of more than 1000 characters, pieces of more than 128, words of more than 100.
   */
  tokenizerRegex?: "any" | "known" | undefined;
  /**
   * As what the model's linear maps are held; as the checkpoint has them by default, quantised ones
   * of GGUF and MLX included. "q4" and "q8" quantise what is not quantised yet to as few bits,
   * part by part: no more than two parts are ever in memory as floats. Rows that are no multiple of
   * 32 wide stay as they are, which `onNotice` tells. The floats make floats of what is quantised.
   * Norms, λ and other vectors are always floats.
   */
  dtype?: WeightFormat | undefined;
  /**
   * As what the embeddings and the head are held, which are one where `config.json` ties them. By
   * default as `dtype` says, but "q8" where that is "q4".
   */
  head?: WeightFormat | undefined;
}

/**
 * A language model: text in, logits or text out. Its family is what `config.json` calls it in
 * `model_type`: a DIFF Llama (Hugging Face's `diffllama`), a Motif (`motif` or `Motif`: 2.6B, and
 * 2-12.7B with its grouped heads) or a plain Llama (`llama`), whose heads are one softmax each; or
 * diff-mlx, whose sizes lie in `model` there. Weights stay in their dtype, unless `dtype` of
 * {@link ModelLoadOptions} says otherwise.
 */
export declare class LanguageModel {
  private constructor();
  /**
   * Loads a checkpoint: part by part, so that besides the model no more than two layers are in
   * memory, the one that is taken over and the next one, which is read meanwhile. Names may have a
   * prefix of what wrapped the model (`_orig_mod.`, `module.`, `base_model.model.`), or lack the
   * `model.` that a base model lacks. Weights that are there win over what `config.json` claims.
   *
   * Of GGUF files, version 2 or 3, those of the architecture `llama` with weights of F32, F16,
   * BF16, Q8_0, Q4_0 or Q4_1 are read; of safetensors files also MLX's quantised weights
   * (`quantization` in `config.json`: mode "affine", 4 or 8 bits, groups of a multiple of 32,
   * scales and biases of F16 or BF16). Quantised weights stay so, unless `dtype` says otherwise.
   * Their tokenizers: `gpt2` with the pre-tokenizer default, gpt-2, smollm, llama-bpe or qwen2, and
   * `llama`. Others are FILE with the reason, a tokenizer only where `tokenizer` is not given.
   *
   * @throws {DiffAttnError} FILE naming what is wrong; OUT_OF_MEMORY; ABORTED.
   */
  static load(source: CheckpointSource | FileSource, options?: ModelLoadOptions): Promise<LanguageModel>;
  /**
   * "diffllama", "llama", "diffattn_llama" (a Llama some of whose heads were made differential),
   * "motif", "diff_mlx" or "phi4flash".
   */
  readonly family: string;
  readonly config: ModelConfig;
  /**
   * Elements of all weights, those of an adapter's conversion included; of quantised ones those
   * that their codes stand for. A head that is the embeddings counts once.
   */
  readonly parameters: number;
  /**
   * As what its linear maps are held, whatever their file has: what most of their elements are,
   * where not all are alike. (Embeddings and head may be held otherwise, as `head` says; Q4_0 and
   * Q4_1 are both "q4".)
   */
  readonly dtype: WeightFormat;
  /** null when the checkpoint has none. */
  readonly tokenizer: Tokenizer | null;
  /**
   * The template in Jinja that makes a prompt of messages: the option's, or of
   * `chat_template.jinja`, of `tokenizer_config.json` (of several there the one called "default")
   * or of a GGUF file. undefined when the checkpoint has none, and with `tokenizer: null`.
   */
  readonly chatTemplate: string | undefined;
  /**
   * The ids of a text, on the calling thread.
   *
   * @throws {DiffAttnError} UNAVAILABLE without a tokenizer, or without the package that reads it;
   *   OPTION; FILE for a `tokenizer.json`
   * that it does not read.
   */
  encode(text: string, options?: EncodeOptions): number[];
  /** The text of ids. Throws as `encode` does. */
  decode(ids: readonly number[] | Int32Array, options?: DecodeOptions): string;
  /**
   * @throws {DiffAttnError} (as a rejection) OPTION for an id outside the vocabulary; SHAPE,
   *   OUT_OF_MEMORY, ABORTED, DISPOSED; caches are then as they were.
   */
  forward(ids: TokenIds, options?: ModelForwardOptions): Promise<ModelOutput>;
  /** Answers a conversation: as {@link LanguageModel.chat}. */
  generate(messages: readonly ChatMessage[], options?: ChatOptions): AsyncGenerator<GeneratedToken, void, undefined>;
  /**
   * Continues a text, or several side by side (a list of texts or of lists of ids): one token after
   * the other, of a batch one of each text in turn. Nothing is computed before the first token is
   * asked for, nor between two.
   *
   * @throws {DiffAttnError} (from the iterator) OPTION, SHAPE, DTYPE, FILE, UNAVAILABLE,
   *   OUT_OF_MEMORY, ABORTED, DISPOSED.
   */
  generate(
    prompt: string | TokenIds | readonly (string | readonly number[] | Int32Array)[],
    options?: GenerateOptions,
  ): AsyncGenerator<GeneratedToken, void, undefined>;
  /**
   * Answers a conversation: its messages become a prompt by the checkpoint's template, which has
   * the special tokens (none is put before it), and the answer ends at any of the config's
   * `eos_token_id`, the tokenizer's `eos_token` and added tokens that are known to end a turn
   * (`<|im_end|>`, `<|eot_id|>`). Special tokens that messages name are tokens in the prompt, too.
   *
   * Templates are programs: what one does is bounded in proportion to itself and to what it is
   * given (FILE says so).
   *
   * @throws {DiffAttnError} (from the iterator) as `generate` does; UNAVAILABLE without a template,
   *   or without the package that renders it; OPTION for messages that are none, or that the
   *   template refuses; FILE for a template that cannot be rendered.
   */
  chat(messages: readonly ChatMessage[], options?: ChatOptions): AsyncGenerator<GeneratedToken, void, undefined>;
  /** The prompt that a conversation becomes, as a text. Throws as `chat` does. */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): Promise<string>;
  /**
   * Texts as vectors `[B, hidden]`, float32: of each text's last hidden states (behind the last
   * norm) the mean, or the last token's.
   *
   * @throws {DiffAttnError} (as a rejection) OPTION for a text without tokens or an id outside the
   *   vocabulary; UNAVAILABLE, OUT_OF_MEMORY, ABORTED, DISPOSED.
   */
  embed(texts: string | TokenIds | readonly (string | readonly number[] | Int32Array)[], options?: EmbedOptions): Promise<Tensor>;
  /**
   * The attention maps of a layer (from 0), each `[B, H, L, L]`: map1, map2 and diff; of a plain
   * layer, whose heads have one map, that one in `maps`, and as `diff`, from which nothing is
   * subtracted. Where plain heads are beside differential ones, their map2 is zeros.
   */
  maps(ids: TokenIds, layer: number, options?: { signal?: AbortSignal | undefined }): Promise<AttentionMaps>;
  /**
   * An empty cache: `capacity` tokens reserved at once (0 by default); `window`: tokens that each
   * token sees (all by default); `dtype`: what it holds (the model's `cacheDtype` by default).
   */
  createCache(options?: ModelCacheOptions): Promise<ModelCache>;
  /** A batch that texts join and leave. OPTION for what it cannot be made with. */
  createBatch(options?: BatchOptions): Promise<GenerationBatch>;
  /** Takes back what {@link ModelCache.export} gave. SHAPE when it is of a model of other sizes. */
  importCache(state: ModelCacheState): Promise<ModelCache>;
  /**
   * Frees the memory once no call uses it. A second call does nothing; use after it is DISPOSED.
   */
  dispose(): void;
  [Symbol.dispose](): void;
}

/** {@link LanguageModel} by the name of its first family. */
export declare const DiffLlama: typeof LanguageModel;
/** {@link LanguageModel} by the name of its first family. */
export type DiffLlama = LanguageModel;

/** 8-bit pixels, RGB or RGBA, row by row. An `ImageData` is one; so is what most decoders give. */
export interface ImageLike {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/**
 * An image of any size, several, or (in browsers) what a canvas, an `ImageBitmap` or a loaded
 * `<img>` shows.
 */
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
  static load(source: CheckpointSource, options?: WeightLoadOptions): Promise<DiffViT>;
  readonly config: ModelConfig;
  /**
   * Logits `[B, classes]` of images, or of pixels `[B, C, S, S]` that are already resized and
   * normalised; features `[B, embed_dim]` where the model has no head (`num_classes` 0): what its
   * last norm gives. A model of one channel takes an image's luminance (ITU-R 601-2, as Pillow's
   * mode "L" has it), one of other channels than 3 and 1 pixels alone. With `dynamic_img_size`
   * pixels may be `[B, C, H, W]` of any whole patches, to whose grid the position embeddings are
   * resampled; images become S × S all the same.
   *
   * @throws {DiffAttnError} (as a rejection) SHAPE for pixels of other sizes; DTYPE for an image
   *   where the model takes none.
   */
  forward(image: ImageSource | readonly ImageSource[] | TensorLike, options?: { signal?: AbortSignal | undefined }): Promise<Tensor>;
  /**
   * The likeliest classes of one image (or of pixels `[1, C, H, W]`), the likeliest first: 5 by
   * default.
   *
   * @throws {DiffAttnError} (as a rejection) UNAVAILABLE for a model without a head.
   */
  classify(
    image: ImageSource | TensorLike,
    options?: { top?: number | undefined; signal?: AbortSignal | undefined },
  ): Promise<Classification[]>;
  /**
   * The attention maps of a block (from 0), each `[1, H, N, N]`: the register tokens first, then
   * the patches row by row. Of pixels `[B, C, H, W]`, `[B, H, N, N]`.
   */
  maps(image: ImageSource | TensorLike, layer: number, options?: { signal?: AbortSignal | undefined }): Promise<AttentionMaps>;
  dispose(): void;
  [Symbol.dispose](): void;
}

/** How a call of {@link AudioCodec} is run. */
export interface AudioCodecOptions {
  /** Ends the call; it rejects with ABORTED. */
  signal?: AbortSignal | undefined;
  /** Called between slices of the call. What it throws rejects the call. */
  onProgress?: CallOptions["onProgress"];
}

/**
 * SAME-S, the audio codec of Stable Audio 3: audio to latents and back, in float32. Sizes in
 * brackets are those of the public codec, of stereo at 44.1 kHz; `config` has the loaded one's.
 *
 * A checkpoint has the weights of the authors' files `same_s_decoder_f32` and `same_s_encoder_f32`,
 * their names behind `decoder.` and `encoder.`, in safetensors, and a `config.json` with
 * `"architecture": "same_s"`; what else it leaves out is the public codec's. One of the two alone
 * will do for its direction. Other names (of PyTorch checkpoints) are refused.
 */
export declare class AudioCodec {
  private constructor();
  static load(source: CheckpointSource, options?: WeightLoadOptions): Promise<AudioCodec>;
  /**
   * Among others `audio_channels` (2), `latent_dim` (256), `patch_size` times `stride`, the samples
   * of a latent (256 times 16), `chunk_size` divided by `stride`, of which T is a multiple (2), and
   * `sample_rate` (44100).
   */
  readonly config: ModelConfig;
  /**
   * Latents `[B, latent_dim, T]` of audio `[B, audio_channels, samples]`, float32, the channels one
   * after the other. Behind its end audio is filled with zeros to a whole number of 8192 samples
   * (two latents).
   *
   * @throws {DiffAttnError} (as a rejection) SHAPE or DTYPE naming `pcm`; UNAVAILABLE for a
   *   checkpoint without an encoder.
   */
  encode(pcm: TensorLike, options?: AudioCodecOptions): Promise<Tensor>;
  /**
   * Audio `[B, audio_channels, samples]` of latents `[B, latent_dim, T]`, float32; T is even.
   *
   * @throws {DiffAttnError} (as a rejection) SHAPE or DTYPE naming `latents`; UNAVAILABLE for a
   *   checkpoint without a decoder.
   */
  decode(latents: TensorLike, options?: AudioCodecOptions): Promise<Tensor>;
  dispose(): void;
  [Symbol.dispose](): void;
}
