// The whole public API, typed and documented once; both entries are typed by this file and the
// package's declarations are made from it. Declares only: no code.
//
// Letters: B batch, H output heads, G key/value groups, Lq queries, Lk keys, d and dv head widths,
// T terms.

// Lets these types compile where TypeScript's "dom" library is left out: a runtime without a DOM
// has these names too. Where the library is there, the declarations merge with it.
/* eslint-disable @typescript-eslint/no-namespace, @typescript-eslint/no-empty-object-type */
declare global {
  namespace WebAssembly {
    interface Module {}
  }
  interface URL {}
  interface Response {}
  interface AbortSignal {}
  interface SymbolConstructor {
    readonly dispose: unique symbol;
  }
}
/* eslint-enable @typescript-eslint/no-namespace, @typescript-eslint/no-empty-object-type */

/**
 * Element types of q, k, v, x and of results. Compute is always float32; half results are rounded
 * once, to nearest even.
 */
export type DType = "float32" | "float16" | "bfloat16";

/**
 * What a cache holds keys and values as. float16, bfloat16: rounded to the nearest, ties to even.
 * int8: a code of a byte for each number, and a float32 scale for each token of each head, its
 * largest magnitude / 127; a row with a NaN or an infinity is NaN as a whole.
 */
export type CacheDType = DType | "int8";

/**
 * The runtime's `Float16Array`, described by its shape so that these types compile where TypeScript
 * does not know it yet.
 */
export interface Float16ArrayLike {
  readonly [Symbol.toStringTag]: "Float16Array";
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly length: number;
  [index: number]: number;
}

/**
 * Elements of a tensor: float32 values, or the bits of float16 or bfloat16 in a `Uint16Array` (or a
 * `Float16Array`).
 */
export type TensorData = Float32Array | Uint16Array | Float16ArrayLike;

/**
 * A `Float32Array` over a plain `ArrayBuffer`; written so that TypeScript before 5.7, where arrays
 * have no parameter, takes it too.
 */
export type Float32Result = ReturnType<typeof Float32Array.of>;

/** A `Uint16Array` over a plain `ArrayBuffer`, written likewise for TypeScript before 5.7. */
export type Uint16Result = ReturnType<typeof Uint16Array.of>;

/** The array type of a result whose input held its elements in `D`. */
export type ResultData<D extends TensorData> = D extends Float32Array
  ? Float32Result
  : D extends Uint16Array
    ? Uint16Result
    : Float16ArrayLike;

/**
 * Where the elements of a tensor lie in its `data`, where it says so, as `ndarray` does: in
 * elements. They must lie side by side, last axis fastest; other strides are refused (SHAPE): make
 * a contiguous copy first.
 */
export interface Placed {
  /** One per axis. */
  readonly stride?: ArrayLike<number> | null | undefined;
  /** `stride` under another name. */
  readonly strides?: ArrayLike<number> | null | undefined;
  /** Where in `data` the first element lies; 0 by default. */
  readonly offset?: number | null | undefined;
}

/**
 * A tensor as the operators take it: contiguous elements, last axis fastest, and their shape.
 * Results of this package, tensors of `createTensor`, CPU tensors of onnxruntime and contiguous
 * `ndarray`s are such objects. The memory may be shared.
 */
export interface TensorLike<D extends TensorData = TensorData> extends Placed {
  /** The elements; a view with an offset is fine. */
  readonly data: D;
  /**
   * The extent of each axis. One of `shape` and `dims` is wanted; where both are given they must
   * agree.
   */
  readonly shape?: readonly number[] | undefined;
  /** `shape` under onnxruntime's name. */
  readonly dims?: readonly number[] | undefined;
  /** Wanted with a `Uint16Array` ("float16" or "bfloat16"); otherwise it follows from the data. */
  readonly dtype?: DType | undefined;
  /** `dtype` under onnxruntime's name. */
  readonly type?: string | undefined;
}

/** Whole numbers, one per batch entry, sequence or token. */
export type Integers = readonly number[] | Int32Array;

/**
 * A float32 vector or tensor: λ per head, norm weights, biases. A bare `Float32Array` has one axis.
 */
export type Float32Like = Float32Array | TensorLike<Float32Array>;

/** A boolean mask: any non-zero byte takes part. */
export interface MaskLike extends Placed {
  /** One byte per element. */
  readonly data: Uint8Array | Uint8ClampedArray;
  /** `[B|1, H|1, Lq|1, Lk]`. One of `shape` and `dims` is wanted. */
  readonly shape?: readonly number[] | undefined;
  /** `shape` under onnxruntime's name. */
  readonly dims?: readonly number[] | undefined;
}

/** A result: fit to go straight into `new ort.Tensor(y.type, y.data, y.dims)`. */
export interface Tensor<D extends TensorData = Float32Result> {
  /**
   * The elements: `out` itself where it was given. A `Float16Array` only when the input was one.
   */
  readonly data: D;
  /** The extent of each axis. */
  readonly shape: readonly number[];
  /** The same array, under onnxruntime's name. */
  readonly dims: readonly number[];
  /** The element type: q's or x's. */
  readonly dtype: DType;
  /** `dtype` under onnxruntime's name. */
  readonly type: DType;
}

/**
 * Which instruction set computes. The last three are WASM builds; what the machine or engine lacks
 * is UNAVAILABLE.
 */
export type Isa = "scalar" | "avx2" | "avx512" | "neon" | "simd128" | "relaxed-simd" | "relaxed-simd+threads";

/** Options of {@link init}. */
export interface InitOptions {
  /**
   * "native" exists in Node only. Default: `DIFFATTN_BACKEND`, else native where its binary loads,
   * else WASM.
   */
  backend?: "native" | "wasm" | undefined;
  /**
   * Default: `DIFFATTN_ISA`, else the fastest to be had. A WASM build's name also chooses the
   * backend.
   */
  isa?: Isa | undefined;
  /**
   * Threads, at least 1. Default: `DIFFATTN_NUM_THREADS`, else what the machine (its cgroup)
   * allows.
   */
  threads?: number | undefined;
  /**
   * Where the WASM of the chosen build comes from, instead of the file beside the package's own: an
   * address, a response, the bytes or a compiled module. It must be the build that `isa` names (by
   * default the one that would be chosen). Or a folder that has the package's files, all builds and
   * `worker.js`: an address that ends with "/"; models and gradients take theirs from it, too.
   */
  wasm?: URL | Response | ArrayBuffer | ArrayBufferView | WebAssembly.Module | undefined;
}

/** What runs. */
export interface Info {
  /** "native": Rust through N-API; "wasm": the same Rust as WebAssembly. */
  backend: "native" | "wasm";
  /** The instruction set in use. On WASM: the build that async calls use. */
  isa: Isa;
  /** Threads that async calls use (native: all calls). */
  threads: number;
  /** The package's version. */
  version: string;
  /**
   * Why it is not faster: a native binary that did not load, a page that is not cross-origin
   * isolated, no worker that starts (async calls then run on the caller's thread, in slices of at
   * most 16 ms). Empty where nothing is to be said.
   */
  notes: string[];
}

/**
 * Chooses and starts the backend. Optional in Node and before async calls; in a browser's main
 * thread the sync forms, the objects and {@link info} need it first. Idempotent, safe to call twice
 * at once, repeatable after a failure. Options that differ from what runs restart the backend once
 * the open calls have ended; objects of the old one are then UNAVAILABLE.
 *
 * Node: yes / browser: yes.
 * @throws {@link DiffAttnError} UNAVAILABLE for a backend, build or instruction set that is not to
 *   be had; OPTION for threads < 1.
 */
export declare function init(options?: InitOptions): Promise<Info>;

/**
 * What runs; starts the backend in Node and in a browser's worker.
 *
 * Node: yes / browser: in workers, and on the main thread after {@link init} or the first async
 * call, before it UNAVAILABLE.
 */
export declare function info(): Info;

/**
 * Threads of later calls: explicit wins over `DIFFATTN_NUM_THREADS`, which wins over what the
 * machine allows. A WASM pool grows only by {@link init}: a larger number than it has uses all of
 * it.
 *
 * Node: yes / browser: yes.
 * @throws {@link DiffAttnError} OPTION when it is no integer ≥ 1.
 */
export declare function setThreads(threads: number): void;

/** Threads that calls use. Node: yes / browser: as {@link info}. */
export declare function getThreads(): number;

/**
 * Gives the backend's memory, worker and pool back. Open async calls are rejected with ABORTED,
 * objects of the backend become UNAVAILABLE, and the next call starts anew with the options of the
 * last {@link init}. A second call does nothing.
 *
 * Node: yes / browser: yes.
 */
export declare function dispose(): void;

/** A tensor in the backend's own memory; see {@link createTensor}. */
export interface BackendTensor<D extends TensorData = TensorData> extends Tensor<D> {
  /**
   * A fresh view of the elements. On WASM a view becomes detached when memory grows (any later call
   * may grow it): ask again rather than keep it.
   */
  readonly data: D;
  /** Frees the memory once no call uses it. A second call does nothing. */
  dispose(): void;
  /** Calls `dispose`, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * A zeroed tensor in the backend's own memory. Calls take it without a copy (on WASM: the sync
 * forms; async forms send a copy to the worker). Freed by `dispose()` or with the garbage
 * collection.
 *
 * As an input of an async call its memory belongs to the call until the promise settles: what is
 * written to it meanwhile makes the result unspecified (never a crash). Every other input is read
 * before the call returns its promise, and is the caller's again at once.
 *
 * Node: yes / browser: in workers, and on the main thread after {@link init}.
 * @param shape The extent of each axis.
 * @param dtype "float32" by default; "float16" elements are a `Float16Array` where the runtime has
 *   it, else their bits.
 * @throws {@link DiffAttnError} SHAPE, DTYPE, OUT_OF_MEMORY.
 */
export declare function createTensor(shape: readonly number[], dtype?: "float32"): BackendTensor<Float32Array>;
/**
 * A zeroed tensor in the backend's own memory; bfloat16 elements are their bits in a `Uint16Array`.
 */
export declare function createTensor(shape: readonly number[], dtype: "bfloat16"): BackendTensor<Uint16Array>;
/**
 * A zeroed tensor in the backend's own memory; float16 elements are a `Float16Array` where the
 * runtime has it, else their bits in a `Uint16Array`.
 */
export declare function createTensor(shape: readonly number[], dtype: DType): BackendTensor;

/** How far an async call is; units are the backend's own. */
export interface Progress {
  /** Units finished. */
  done: number;
  /** All units. */
  total: number;
}

/** What every call may be told. */
export interface CallOptions {
  /**
   * Aborts the call: rejects with an error of code ABORTED and name "AbortError" whose `cause` is
   * the signal's reason, after at most one slice of work (16 ms). A sync form looks at it only on
   * entry.
   */
  signal?: AbortSignal | undefined;
  /**
   * Called between slices of an async call. An OPTION error in a sync form. What it throws rejects
   * the call.
   */
  onProgress?: ((progress: Progress) => void) | undefined;
  /**
   * Detaches the inputs of an async call instead of copying them (by default they are the caller's
   * again as soon as the promise is there, but for memory of {@link createTensor}), whether it
   * succeeds or not. Shared, backend-owned and undetachable memory is copied all the same. A sync
   * form copies nothing and ignores it.
   */
  transfer?: boolean | undefined;
}

/** What calls with one result may be told. */
export interface OutOptions {
  /**
   * The result array: `result.data === out`. Of the result's element type and length, may be a view
   * with an offset or a {@link createTensor} tensor's `data`, must not overlap an input (OPTION).
   * Unspecified after an abort.
   */
  out?: TensorData | undefined;
}

/**
 * Where the head axis of q, k, v and the result lies: `[B, heads, L, width]` or
 * `[B, L, heads, width]`.
 */
export type AttentionLayout = "bhsd" | "bshd";

/**
 * Which q, k and v heads make output head h (flat head numbers; r = `ratio`; divisions round down):
 * - "interleaved" (unilm V1): n_q = T·H, n_k = T·G, n_v = G; q[T·h + t], k[T·g + t], v[g], g =
 *   h/(H/G).
 * - "halves" (Hugging Face diffllama): n_q = 2H, n_k = n_v = K; q[h], q[h+H]; with rep = 2H/K
 *   k[h/rep], k[(h+H)/rep] and v[h/rep] ‖ v[(h+H)/rep] on channels.
 * - "grouped" (GDA, arXiv 2510.06949): n_q = (H/r)(r+1), n_k = 2G, n_v = G; signal q[(h/r)(r+1) +
 *   h%r] with k[2g], noise q[(h/r)(r+1) + r] with k[2g+1], v[g], g = (h/r)/(H/r/G).
 * - "shared" (unilm V2): n_q as grouped, n_k = n_v = G; one k for both.
 */
export type Pairing = "interleaved" | "halves" | "grouped" | "shared";

/**
 * One output head of an explicit plan: `Σ_t coefficients[t] · softmax(q[t] k[t]ᵀ)`, times the v
 * heads side by side on channels.
 */
export interface HeadPlan {
  /** Flat q head of each term. */
  q: readonly number[];
  /** Flat k head of each term. */
  k: readonly number[];
  /** v heads, concatenated on channels. */
  v: readonly number[];
  /**
   * One per term; by default `[1]` or `[1, −1]` by the number of terms, more terms must name
   * theirs. `lambda`, where given, scales the second.
   */
  coefficients?: readonly number[] | undefined;
}

/** The per-head RMS norm fused at the end: `y · weight · scale / √(mean(y²) + eps)`. */
export interface AttentionNorm {
  /** Added to the mean square; 1e-5 by default. */
  eps?: number | undefined;
  /** `[dv of the result]`, float32, shared by the heads. */
  weight?: Float32Like | undefined;
  /** A factor on the result; 1 by default (V1 passes 1 − λ_init). */
  scale?: number | undefined;
}

/** Options that attention and its maps share. */
export interface AttentionOptions {
  /**
   * λ: a number, `[H]`, or a float32 tensor `[B|1, Lq|1, H]` (packed: `[1, ΣLq, H]`). It or
   * `coefficients`, unless `heads` says it.
   */
  lambda?: number | Float32Like | undefined;
  /** One coefficient per term instead of λ; its length is T. More than two terms: interleaved. */
  coefficients?: readonly number[] | undefined;
  /** The head layout; "interleaved" by default. Not with `heads`. */
  pairing?: Pairing | undefined;
  /** The plan itself, one entry per output head. */
  heads?: readonly HeadPlan[] | undefined;
  /** Signal heads per noise head; 1 by default. Only with "grouped" and "shared". */
  ratio?: number | undefined;
  /**
   * "paired" by default; "flat" repeats each k head on its own, as unilm's naive module does. Only
   * with "interleaved".
   */
  kvRepeat?: "paired" | "flat" | undefined;
  /** The layout of q, k, v and the result; "bhsd" by default. */
  layout?: AttentionLayout | undefined;
  /** Factor of the scores; 1/√d by default. */
  scale?: number | undefined;
  /** Whether query i sees only keys j ≤ i + queryOffset; false by default. */
  isCausal?: boolean | undefined;
  /** `softcap · tanh(score / softcap)`, before bias and mask; > 0. */
  softcap?: number | undefined;
  /** `[left, right]` around i + queryOffset, in keys; null is unbounded. */
  window?: readonly [number | null, number | null] | null | undefined;
  /** Boolean mask `[B|1, H|1, Lq|1, Lk]`; a zero byte hides a key. */
  attnMask?: MaskLike | undefined;
  /** Additive float32 bias `[B|1, H|1, Lq|1, Lk]`; only −Infinity masks. */
  attnBias?: TensorLike<Float32Array> | undefined;
  /** `[B]` (packed: `[N]`): keys at and past it do not exist. */
  keyLengths?: Integers | undefined;
  /**
   * Key position of the first query: one, or `[B]` (packed: `[N]`). Lk − Lq by default; with a
   * cache its length − Lq. 0 is PyTorch's and ONNX's top-left.
   */
  queryOffset?: number | Integers | undefined;
  /** `[N + 1]`, rising from 0: N packed sequences in B = 1. With `cuSeqlensK`; no mask or bias. */
  cuSeqlensQ?: Integers | undefined;
  /** `[N + 1]`: where the keys of packed sequences begin and end; with `cuSeqlensQ`. */
  cuSeqlensK?: Integers | undefined;
  /**
   * A float32 logit per head, `[H]`, or per head and term, `[H, T]`, that joins the softmax and
   * meets no value; −Infinity is none.
   */
  sinks?: Float32Like | undefined;
  /**
   * Mask of blocks of 64 queries and 64 keys, `[B|1, H|1, ⌈Lq/64⌉, ⌈Lk/64⌉]`, keys counted from the
   * first (of a cache, too); a zero byte hides a block, which then costs nothing. It joins the
   * other masks; none with packed sequences.
   */
  blockMask?: MaskLike | undefined;
  /** Unfused multiply-adds: the same bits on every backend; false by default. */
  deterministic?: boolean | undefined;
}

/** Options of {@link diffAttention}. */
export interface DiffAttentionOptions extends AttentionOptions, CallOptions, OutOptions {
  /** Per-head RMS norm of the result; none by default. */
  norm?: AttentionNorm | null | undefined;
  /** Whether the result carries `lse`; false by default. */
  returnLse?: boolean | undefined;
  /** Whether the result carries `preNorm`; false by default. Only with `norm`. */
  returnPreNorm?: boolean | undefined;
}

/** Options of {@link diffAttentionMaps}. */
export interface DiffAttentionMapsOptions extends AttentionOptions, CallOptions {
  /** Checked against the number of v heads that the pairing implies. */
  numKvHeads?: number | undefined;
  /** Half-open range `[first, end)` of the queries; all by default. */
  rows?: readonly [number, number] | undefined;
}

/** A result with the log-sum-exp of each term. */
export interface TensorWithLse<D extends TensorData = Float32Result> extends Tensor<D> {
  /**
   * float32 `[B, H, T, Lq]`: the natural logarithm of each row's sum of exponentials; −Infinity for
   * a row that sees no key and for a missing term.
   */
  readonly lse: Tensor;
}

/** A result with the rows before their norm. */
export interface TensorWithPreNorm<D extends TensorData = Float32Result> extends Tensor<D> {
  /** float32, of the result's shape: `result` of {@link diffAttentionBackward}. */
  readonly preNorm: Tensor;
}

/** The maps of a call: each float32 `[B, H, rows, Lk]`. */
export interface AttentionMaps {
  /** Of two terms: the first map, the signal. */
  map1?: Tensor;
  /** Of two terms: the second map, the noise. */
  map2?: Tensor;
  /** Of another number of terms: one map each; zeros where a head lacks the term. */
  maps?: Tensor[];
  /** `Σ_t c_t map_t`, with two terms `map1 − λ·map2`. */
  diff: Tensor;
}

/**
 * Differential attention: for each output head
 * `norm((softmax(q1 k1ᵀ·scale) − λ softmax(q2 k2ᵀ·scale)) v)`, in general
 * `Σ_t c_t softmax(q_t k_tᵀ) v` over T terms (arXiv 2410.05258; grouped heads after arXiv
 * 2510.06949). Never blocks the event loop. A row that sees no key is zeros. Inputs are read before
 * the promise is returned, but for memory of {@link createTensor}, which belongs to the call until
 * it settles.
 *
 * Node: yes / browser: yes.
 * @param q `[B, n_q, Lq, d]` (layout "bhsd") or `[B, Lq, n_q, d]` ("bshd"). n_q, n_k and n_v follow
 *   from {@link Pairing}.
 * @param k `[B, n_k, Lk, d]` or `[B, Lk, n_k, d]`, of q's dtype; or a {@link KvCache} of any, with
 * v null.
 * @param v `[B, n_v, Lk, dv]` or `[B, Lk, n_v, dv]`, of q's dtype; dv is free.
 * @returns `[B, H, Lq, dv]` or `[B, Lq, H, dv]` ("halves": 2·dv channels), in q's dtype.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
 *   DISPOSED, UNAVAILABLE.
 */
export declare function diffAttention<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions & { returnLse: true; returnPreNorm: true },
): Promise<TensorWithLse<ResultData<D>> & TensorWithPreNorm<ResultData<D>>>;
export declare function diffAttention<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions & { returnPreNorm: true },
): Promise<TensorWithPreNorm<ResultData<D>>>;
export declare function diffAttention<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions & { returnLse: true },
): Promise<TensorWithLse<ResultData<D>>>;
export declare function diffAttention<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions,
): Promise<Tensor<ResultData<D>>>;

/**
 * {@link diffAttention} in one blocking call, with the same bits. Node: yes / browser: in workers,
 * and on the main thread after {@link init}.
 */
export declare function diffAttentionSync<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions & { returnLse: true; returnPreNorm: true },
): TensorWithLse<ResultData<D>> & TensorWithPreNorm<ResultData<D>>;
export declare function diffAttentionSync<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions & { returnPreNorm: true },
): TensorWithPreNorm<ResultData<D>>;
export declare function diffAttentionSync<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions & { returnLse: true },
): TensorWithLse<ResultData<D>>;
export declare function diffAttentionSync<D extends TensorData>(
  q: TensorLike<D>,
  k: TensorLike | KvCache,
  v: TensorLike | null,
  options: DiffAttentionOptions,
): Tensor<ResultData<D>>;

/**
 * The attention maps themselves, for a range of queries, without forming the rest.
 *
 * Node: yes / browser: yes.
 * @param q As for {@link diffAttention}.
 * @param k As for {@link diffAttention}.
 * @returns Two terms: `{ map1, map2, diff }`; otherwise `{ maps, diff }`. Each `[B, H, rows, Lk]`,
 *   float32.
 * @throws {@link DiffAttnError} (as a rejection) as {@link diffAttention}.
 */
export declare function diffAttentionMaps(
  q: TensorLike,
  k: TensorLike | KvCache,
  options: DiffAttentionMapsOptions,
): Promise<AttentionMaps>;

/**
 * {@link diffAttentionMaps} in one blocking call, with the same bits. Node: yes / browser: in
 * workers, and on the main thread after {@link init}.
 */
export declare function diffAttentionMapsSync(q: TensorLike, k: TensorLike | KvCache, options: DiffAttentionMapsOptions): AttentionMaps;

/** Options of {@link groupNorm}. */
export interface GroupNormOptions extends CallOptions, OutOptions {
  /** Groups of neighbouring channels; divides C. */
  numGroups: number;
  /** `[C]`, float32; 1 by default. */
  weight?: Float32Like | undefined;
  /** `[C]`, float32; 0 by default. */
  bias?: Float32Like | undefined;
  /** Added to the variance; 1e-5 by default. */
  eps?: number | undefined;
  /** Where the channel axis lies: second ("nchw", the default) or last ("nhwc"). */
  layout?: "nchw" | "nhwc" | undefined;
  /** Applied to the result; none by default. */
  activation?: "silu" | null | undefined;
}

/**
 * Group normalisation: `(x − mean) / √(variance + eps) · weight + bias` per batch entry and group,
 * with the biased variance (arXiv 1803.08494).
 *
 * Node: yes / browser: yes.
 * @param x `[N, C, ...]` or `[N, ..., C]`, any rank ≥ 2.
 * @returns x's shape and dtype.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED.
 */
export declare function groupNorm<D extends TensorData>(x: TensorLike<D>, options: GroupNormOptions): Promise<Tensor<ResultData<D>>>;

/**
 * {@link groupNorm} in one blocking call, with the same bits. Node: yes / browser: in workers, and
 * on the main thread after {@link init}.
 */
export declare function groupNormSync<D extends TensorData>(x: TensorLike<D>, options: GroupNormOptions): Tensor<ResultData<D>>;

/** Options of {@link rmsNorm}. */
export interface RmsNormOptions extends CallOptions, OutOptions {
  /** `[last extent of x]`, float32; 1 by default. */
  weight?: Float32Like | undefined;
  /** Added to the mean square; 1e-5 by default. */
  eps?: number | undefined;
  /** A factor on the result; 1 by default. */
  scale?: number | undefined;
}

/**
 * RMS normalisation over the last axis: `x / √(mean(x²) + eps) · weight · scale` (arXiv
 * 1910.07467).
 *
 * Node: yes / browser: yes.
 * @param x Any rank ≥ 1.
 * @returns x's shape and dtype.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED.
 */
export declare function rmsNorm<D extends TensorData>(x: TensorLike<D>, options?: RmsNormOptions): Promise<Tensor<ResultData<D>>>;

/**
 * {@link rmsNorm} in one blocking call, with the same bits. Node: yes / browser: in workers, and on
 * the main thread after {@link init}.
 */
export declare function rmsNormSync<D extends TensorData>(x: TensorLike<D>, options?: RmsNormOptions): Tensor<ResultData<D>>;

/** How frequencies are scaled, in the words of Hugging Face's `config.json`. */
export interface RopeScaling {
  /**
   * The rule: "default" scales nothing. (A model's "dynamic" is that up to its
   * `max_position_embeddings`, which an operator does not know.)
   */
  rope_type: "default" | "linear" | "llama3" | "yarn";
  /** θ, used where `theta` is not given. */
  rope_theta?: number | undefined;
  /** How many times longer the context became. */
  factor?: number | undefined;
  /** llama3 and yarn: tokens of the original context. */
  original_max_position_embeddings?: number | undefined;
  /** llama3: wavelengths longer than the original context over this are divided by `factor`. */
  low_freq_factor?: number | undefined;
  /** llama3: wavelengths shorter than the original context over this stay. */
  high_freq_factor?: number | undefined;
  /** yarn: multiplies cos and sin; by default derived from `factor`. */
  attention_factor?: number | undefined;
  /** yarn: turns at which extrapolation begins; 32 by default. */
  beta_fast?: number | undefined;
  /** yarn: turns at which interpolation begins; 1 by default. */
  beta_slow?: number | undefined;
  /** yarn: see Hugging Face. */
  mscale?: number | undefined;
  /** yarn: see Hugging Face. */
  mscale_all_dim?: number | undefined;
  /** yarn: whether the correction range is rounded to whole channels; true by default. */
  truncate?: boolean | undefined;
}

/** Positions per batch entry. */
export interface PositionsLike extends Placed {
  /** The positions. */
  readonly data: Integers;
  /** `[B, L]`. One of `shape` and `dims` is wanted. */
  readonly shape?: readonly number[] | undefined;
  /** `shape` under onnxruntime's name. */
  readonly dims?: readonly number[] | undefined;
}

/** Options of {@link applyRope}. */
export interface RopeOptions extends CallOptions, OutOptions {
  /** The layout of x; "bhsd" by default. */
  layout?: AttentionLayout | undefined;
  /** Pairs (2i, 2i+1), the default, or (i, i + rotaryDim/2). */
  interleaved?: boolean | undefined;
  /** Base of the frequencies; 10000 by default. */
  theta?: number | undefined;
  /** Position of the first token: one, or per batch entry; 0 by default. */
  firstPosition?: number | Integers | undefined;
  /** Each token's position, instead of `firstPosition`: `[L]`, or a tensor `[B, L]`. */
  positions?: Integers | PositionsLike | undefined;
  /** Channels that are rotated, even; d by default. Channels past it pass unchanged. */
  rotaryDim?: number | undefined;
  /** Scaled frequencies; none by default. */
  scaling?: RopeScaling | null | undefined;
}

/**
 * Rotary position embedding: the pair i of a token at position p is turned by
 * `p·theta^(−2i/rotaryDim)` (arXiv 2104.09864).
 *
 * Node: yes / browser: yes.
 * @param x `[B, heads, L, d]` or `[B, L, heads, d]`.
 * @returns x's shape and dtype.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED.
 */
export declare function applyRope<D extends TensorData>(x: TensorLike<D>, options?: RopeOptions): Promise<Tensor<ResultData<D>>>;

/**
 * {@link applyRope} in one blocking call, with the same bits. Node: yes / browser: in workers, and
 * on the main thread after {@link init}.
 */
export declare function applyRopeSync<D extends TensorData>(x: TensorLike<D>, options?: RopeOptions): Tensor<ResultData<D>>;

/** Options of {@link sequenceDifference}. */
export interface SequenceDifferenceOptions extends CallOptions, OutOptions {
  /** How often the difference is taken; 1 by default. */
  order?: number | undefined;
  /** The layout of x; "bhsd" by default. */
  layout?: AttentionLayout | undefined;
}

/**
 * The n-th backward difference along the sequence; before the first token lies zero, so
 * `y[0] = x[0]`.
 *
 * Node: yes / browser: yes.
 * @param x `[B, heads, L, d]` or `[B, L, heads, d]`.
 * @returns x's shape and dtype.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED.
 */
export declare function sequenceDifference<D extends TensorData>(
  x: TensorLike<D>,
  options?: SequenceDifferenceOptions,
): Promise<Tensor<ResultData<D>>>;

/**
 * {@link sequenceDifference} in one blocking call, with the same bits. Node: yes / browser: in
 * workers, and on the main thread after {@link init}.
 */
export declare function sequenceDifferenceSync<D extends TensorData>(
  x: TensorLike<D>,
  options?: SequenceDifferenceOptions,
): Tensor<ResultData<D>>;

/** What calls with several gradients, G by name, may be told. */
export interface GradientsOutOptions<G> {
  /**
   * Arrays that gradients go into, by name: `result.dx.data === out.dx`. Each is a Float32Array of
   * its gradient's length, may be a view with an offset or a {@link createTensor} tensor's `data`,
   * and overlaps no input and no other (OPTION); one of a gradient that the call does not give is
   * an OPTION error. Unspecified after an abort. What is not named here is a new array.
   */
  out?: { readonly [Name in keyof G]?: Float32Array | null | undefined } | null | undefined;
}

/** Options of {@link diffAttentionBackward}: those of the call whose gradients are wanted. */
export interface DiffAttentionBackwardOptions extends AttentionOptions, CallOptions, GradientsOutOptions<AttentionGradients> {
  /** Per-head RMS norm of the result; none by default. */
  norm?: AttentionNorm | null | undefined;
  /**
   * The call's value before its norm, of the result's shape and any float dtype: `preNorm` of a
   * call with `returnPreNorm`. Computed anew by default. Only with a norm.
   */
  result?: TensorLike | null | undefined;
  /**
   * Which gradients are wanted; by default those of all that was given, but for `attnBias`, whose
   * gradient is as large as the bias. What the call was not given is an OPTION error.
   */
  needs?: readonly GradientName[] | null | undefined;
}

/** What of a call of attention can have a gradient; see {@link DiffAttentionBackwardOptions}. */
export type GradientName = "q" | "k" | "v" | "lambda" | "coefficients" | "normWeight" | "attnBias" | "sinks";

/** Gradients of attention, each float32 and of the shape of what it belongs to. */
export interface AttentionGradients {
  /** Of q, in the call's layout. */
  readonly dq?: Tensor;
  /** Of k, in the call's layout. */
  readonly dk?: Tensor;
  /** Of v, in the call's layout. */
  readonly dv?: Tensor;
  /**
   * Of λ, summed to its shape: `[H]`, `[B|1, Lq|1, H]`, or no axes (shape `[]`, one element) where
   * λ is a number. {@link lambdaFullBackward} takes the latter as it is.
   */
  readonly dlambda?: Tensor;
  /** Of `coefficients`, `[T]`; those within `heads` have none. */
  readonly dcoefficients?: Tensor;
  /** Of the norm's weight, `[dv of the result]`. */
  readonly dnormWeight?: Tensor;
  /** Of the additive bias, summed to its shape; only where `needs` names it. */
  readonly dattnBias?: Tensor;
  /** Of the sinks, `[H]` or `[H, T]`. */
  readonly dsinks?: Tensor;
}

/** Gradients of attention where `needs` leaves none out. */
export interface AllAttentionGradients extends AttentionGradients {
  readonly dq: Tensor;
  readonly dk: Tensor;
  readonly dv: Tensor;
}

/**
 * Gradients of {@link diffAttention}: of each input, for the gradient `dy` of its result. With
 * `dP = dO vᵀ` of the row before the norm, `δ_t = Σ_j P_t dP` and `dS_t = c_t P_t (dP − δ_t)` they
 * are `dq_t = scale·dS_t k_t`, `dk_t = scale·dS_tᵀ q_t`, `dv = (Σ_t c_t P_t)ᵀ dO`, and `δ_t` for
 * c_t: the derivatives of arXiv 2410.05258, equation 1. The maps are computed anew, so memory is
 * O(L). The bits do not depend on threads, batch or packing. A key that no query sees, and a query
 * that sees no key, have zeros.
 *
 * On WASM gradients have modules of their own, which the first call loads; edge runtimes have none
 * (UNAVAILABLE).
 *
 * Node: yes / browser: yes.
 * @param dy Of the result's shape; of any float dtype.
 * @param q As for {@link diffAttention}.
 * @param k As for {@link diffAttention}; no cache.
 * @param v As for {@link diffAttention}.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
 *   UNAVAILABLE.
 */
export declare function diffAttentionBackward(
  dy: TensorLike,
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: DiffAttentionBackwardOptions & { needs?: null | undefined },
): Promise<AllAttentionGradients>;
export declare function diffAttentionBackward(
  dy: TensorLike,
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: DiffAttentionBackwardOptions,
): Promise<AttentionGradients>;

/**
 * {@link diffAttentionBackward} in one blocking call, with the same bits. Node: yes / browser: in
 * workers, and on the main thread once an async form has ended and {@link init} after it.
 */
export declare function diffAttentionBackwardSync(
  dy: TensorLike,
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: DiffAttentionBackwardOptions & { needs?: null | undefined },
): AllAttentionGradients;
export declare function diffAttentionBackwardSync(
  dy: TensorLike,
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: DiffAttentionBackwardOptions,
): AttentionGradients;

/** Options of {@link rmsNormBackward}: those of the call whose gradients are wanted. */
export interface RmsNormBackwardOptions extends CallOptions, GradientsOutOptions<RmsNormGradients> {
  /** `[last extent of x]`, float32; 1 by default. */
  weight?: Float32Like | undefined;
  /** Added to the mean square; 1e-5 by default. */
  eps?: number | undefined;
  /** A factor on the result; 1 by default. */
  scale?: number | undefined;
}

/** Gradients of {@link rmsNorm}, float32. */
export interface RmsNormGradients {
  /** Of x, in its shape. */
  readonly dx: Tensor;
  /** Of the weight, in its shape; there exactly where one was given. */
  readonly dweight?: Tensor;
}

/**
 * Gradients of {@link rmsNorm} for the gradient `dy` of its result: with `r = √(mean(x²) + eps)`,
 * `x̂ = x / r` and `g = dy·weight·scale`, dx is `(g − x̂·mean(g·x̂)) / r` and dweight the sum of
 * `dy·x̂·scale` over the rows (arXiv 1910.07467).
 *
 * Node: yes / browser: yes.
 * @param dy Of x's shape and dtype.
 * @param x As for {@link rmsNorm}.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
 *   UNAVAILABLE.
 */
export declare function rmsNormBackward(dy: TensorLike, x: TensorLike, options?: RmsNormBackwardOptions): Promise<RmsNormGradients>;

/**
 * {@link rmsNormBackward} in one blocking call, with the same bits. Node: yes / browser: in
 * workers, and on the main thread once an async form has ended and {@link init} after it.
 */
export declare function rmsNormBackwardSync(dy: TensorLike, x: TensorLike, options?: RmsNormBackwardOptions): RmsNormGradients;

/** Options of {@link groupNormBackward}: those of the call whose gradients are wanted. */
export interface GroupNormBackwardOptions extends CallOptions, GradientsOutOptions<GroupNormGradients> {
  /** Groups of neighbouring channels; divides C. */
  numGroups: number;
  /** `[C]`, float32; 1 by default. */
  weight?: Float32Like | undefined;
  /** `[C]`, float32; 0 by default. */
  bias?: Float32Like | undefined;
  /** Added to the variance; 1e-5 by default. */
  eps?: number | undefined;
  /** Where the channel axis lies: second ("nchw", the default) or last ("nhwc"). */
  layout?: "nchw" | "nhwc" | undefined;
  /** Applied to the result; none by default. */
  activation?: "silu" | null | undefined;
}

/** Gradients of {@link groupNorm}, float32. */
export interface GroupNormGradients extends RmsNormGradients {
  /** Of the bias, `[C]`; there exactly where one was given. */
  readonly dbias?: Tensor;
}

/**
 * Gradients of {@link groupNorm} for the gradient `dy` of its result: with σ the root of a group's
 * variance and eps, `x̂ = (x − mean) / σ` and g the gradient of x̂, dx is
 * `(g − mean(g) − x̂·mean(g·x̂)) / σ`, with means over the group (arXiv 1803.08494). Of SiLU, u its
 * argument, dy is multiplied by `s·(1 + u·(1 − s))`, s the sigmoid of u.
 *
 * Node: yes / browser: yes.
 * @param dy Of x's shape and dtype.
 * @param x As for {@link groupNorm}.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
 *   UNAVAILABLE.
 */
export declare function groupNormBackward(dy: TensorLike, x: TensorLike, options: GroupNormBackwardOptions): Promise<GroupNormGradients>;

/**
 * {@link groupNormBackward} in one blocking call, with the same bits. Node: yes / browser: in
 * workers, and on the main thread once an async form has ended and {@link init} after it.
 */
export declare function groupNormBackwardSync(dy: TensorLike, x: TensorLike, options: GroupNormBackwardOptions): GroupNormGradients;

/**
 * The gradient of x of {@link applyRope} for the gradient `dy` of its result: every pair is turned
 * back by its angle, times the same attention factor.
 *
 * Node: yes / browser: yes.
 * @param dy Of x's shape; of any float dtype.
 * @param options Those of the call whose gradient is wanted; `out` is a Float32Array.
 * @returns dx, float32, of x's shape.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
 *   UNAVAILABLE.
 */
export declare function applyRopeBackward(dy: TensorLike, options?: RopeOptions): Promise<Tensor>;

/**
 * {@link applyRopeBackward} in one blocking call, with the same bits. Node: yes / browser: in
 * workers, and on the main thread once an async form has ended and {@link init} after it.
 */
export declare function applyRopeBackwardSync(dy: TensorLike, options?: RopeOptions): Tensor;

/**
 * The gradient of x of {@link sequenceDifference} for the gradient `dy` of its result: the n-th
 * difference towards the token before becomes that towards the one behind, past the last of which
 * lies zero (of order 1: `dx[i] = dy[i] − dy[i + 1]`).
 *
 * Node: yes / browser: yes.
 * @param dy `[B, heads, L, d]` or `[B, L, heads, d]`; of any float dtype.
 * @param options Those of the call whose gradient is wanted; `out` is a Float32Array.
 * @returns dx, float32, of dy's shape.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
 *   UNAVAILABLE.
 */
export declare function sequenceDifferenceBackward(dy: TensorLike, options?: SequenceDifferenceOptions): Promise<Tensor>;

/**
 * {@link sequenceDifferenceBackward} in one blocking call, with the same bits. Node: yes / browser:
 * in workers, and on the main thread once an async form has ended and {@link init} after it.
 */
export declare function sequenceDifferenceBackwardSync(dy: TensorLike, options?: SequenceDifferenceOptions): Tensor;

/** The vectors of {@link lambdaFullBackward}: those of {@link lambdaFull}, all of one length. */
export interface LambdaFullBackwardOptions extends CallOptions {
  /** `lambda_q1`. */
  q1: Float32Like;
  /** `lambda_k1`. */
  k1: Float32Like;
  /** `lambda_q2`. */
  q2: Float32Like;
  /** `lambda_k2`. */
  k2: Float32Like;
}

/** Gradients of {@link lambdaFull}, float32, each of its vector's shape. */
export interface LambdaFullGradients {
  /** Of `lambda_q1`. */
  readonly dq1: Tensor;
  /** Of `lambda_k1`. */
  readonly dk1: Tensor;
  /** Of `lambda_q2`. */
  readonly dq2: Tensor;
  /** Of `lambda_k2`. */
  readonly dk2: Tensor;
}

/**
 * Gradients of {@link lambdaFull} for the gradient of its λ: `dq1 = exp(q1·k1)·dlambda·k1`,
 * `dk1 = exp(q1·k1)·dlambda·q1`, and of q2 and k2 the same with a minus (arXiv 2410.05258, equation
 * 2). λ_init is a constant.
 *
 * Node: yes / browser: yes.
 * @param dlambda A number, or one in a float32 tensor: `dlambda` of {@link diffAttentionBackward}.
 * @throws {@link DiffAttnError} (as a rejection) SHAPE when the four vectors differ in length;
 *   DTYPE, OPTION, ABORTED, UNAVAILABLE.
 */
export declare function lambdaFullBackward(dlambda: number | Float32Like, vectors: LambdaFullBackwardOptions): Promise<LambdaFullGradients>;

/**
 * {@link lambdaFullBackward} in one blocking call, with the same bits. Node: yes / browser: in
 * workers, and on the main thread once an async form has ended and {@link init} after it.
 */
export declare function lambdaFullBackwardSync(dlambda: number | Float32Like, vectors: LambdaFullBackwardOptions): LambdaFullGradients;

/**
 * λ_init of V1: `0.8 − 0.6·exp(−0.3·layer)` (arXiv 2410.05258).
 *
 * Node: yes / browser: in workers, and on the main thread after {@link init}.
 * @param layer The layer's index, from 0.
 */
export declare function lambdaInit(layer: number): number;

/**
 * λ of V1: `exp(q1·k1) − exp(q2·k2) + init` (arXiv 2410.05258, equation 2).
 *
 * Node: yes / browser: in workers, and on the main thread after {@link init}.
 * @throws {@link DiffAttnError} SHAPE when the four vectors differ in length.
 */
export declare function lambdaFull(vectors: {
  /** `lambda_q1`. */
  q1: Float32Like;
  /** `lambda_k1`. */
  k1: Float32Like;
  /** `lambda_q2`. */
  q2: Float32Like;
  /** `lambda_k2`. */
  k2: Float32Like;
  /** λ_init of the layer. */
  init: number;
}): number;

/** Options of {@link KvCache}. */
export interface KvCacheOptions {
  /** Sequences side by side; 1 by default. */
  batch?: number | undefined;
  /** v heads: G (pairing "halves": the flat K). */
  groups: number;
  /**
   * k heads per v head: 2 by default ("interleaved" with two terms, "grouped"); 1 for "halves" and
   * "shared".
   */
  terms?: number | undefined;
  /** d. */
  headDim: number;
  /** dv. */
  valueDim: number;
  /** Tokens to reserve memory for; it grows past them. */
  capacity?: number | undefined;
  /**
   * What it holds: "float32" by default. What is appended, and q, may be of any dtype; attention
   * sees what is held, bit for bit as over tensors of it, in the call that appends too.
   */
  dtype?: CacheDType | undefined;
}

/**
 * Keys and values of past tokens, kept in the kernel's own panels; taken wherever k and v are:
 * `diffAttention(q, cache, null, …)`.
 *
 * On WASM a cache belongs to the side that uses it: once an async call has taken it, the worker
 * holds its content, later sync calls with it are UNAVAILABLE, and `append` and `rewind` take
 * effect in the order of the calls.
 *
 * Node: yes / browser: in workers, and on the main thread after {@link init}.
 */
export declare class KvCache {
  /** @throws {@link DiffAttnError} SHAPE, OPTION, DTYPE, OUT_OF_MEMORY. */
  constructor(options: KvCacheOptions);
  /** Tokens held. */
  get length(): number;
  /**
   * Adds tokens; what is given is copied.
   * @param k `[B, terms·groups, L, headDim]` (layout "bshd": `[B, L, terms·groups, headDim]`), of
   *   any dtype, rounded once to what the cache holds.
   * @param v `[B, groups, L, valueDim]` (layout "bshd": `[B, L, groups, valueDim]`).
   * @throws {@link DiffAttnError} SHAPE, DTYPE, OUT_OF_MEMORY, DISPOSED; the cache is then
   *   unchanged.
   */
  append(k: TensorLike, v: TensorLike, options?: { layout?: AttentionLayout | undefined }): void;
  /**
   * Forgets all but the first `length` tokens.
   * @throws {@link DiffAttnError} SHAPE when it holds fewer.
   */
  rewind(length: number): void;
  /** Frees the memory once no call uses it. A second call does nothing. */
  dispose(): void;
  /** Calls `dispose`, for `using`. */
  [Symbol.dispose](): void;
}

/** Rotary embedding of a layer's q and k. */
export interface LayerRope {
  /** Pairs (2i, 2i+1), the default, or (i, i + d/2). */
  interleaved?: boolean | undefined;
  /** Base of the frequencies; 10000 by default. */
  theta?: number | undefined;
  /** Scaled frequencies; none by default. */
  scaling?: RopeScaling | null | undefined;
}

/** Heads that mix in attention over differences along the sequence. */
export interface SequenceMix {
  /** Order of the difference; 1 by default. */
  order?: number | undefined;
  /** The first `floor(share·H + ½)` heads take part; 0 … 1. */
  share: number;
  /** `(1 − fusion)·attention(q, k, v) + fusion·attention(Δⁿq, Δⁿk, Δⁿv)`; 0 … 1. */
  fusion: number;
}

/**
 * A layer's weights under the reference's names; `[out, in]` as PyTorch keeps them. Extra names are
 * OPTION errors.
 */
export type LayerWeights = Readonly<Record<string, TensorLike | Float32Array | null | undefined>>;

/** Options of {@link MultiheadDiffAttn}. */
export interface MultiheadDiffAttnOptions {
  /** Width of x. */
  embedDim: number;
  /** The layer's index from 0: λ_init = 0.8 − 0.6·exp(−0.3·depth). */
  depth: number;
  /** λ_init itself, where it does not follow from `depth` (Motif counts from −1). */
  lambdaInit?: number | undefined;
  /** Output heads H; a checkpoint's flat heads are 2H. "grouped": the signal heads. */
  numHeads: number;
  /**
   * Key/value groups G ("halves": the flat K; "grouped": the pairs of k heads); by default no head
   * shares k and v with another ("halves": 2·numHeads; "grouped": one per noise head).
   */
  numKvHeads?: number | undefined;
  /** d; embedDim / numHeads / 2 by default. */
  headDim?: number | undefined;
  /** Rotary embedding; none by default. Positions start at the cache's length. */
  rope?: LayerRope | null | undefined;
  /** "interleaved" by default (unilm); "halves" is Hugging Face's diffllama, "grouped" Motif's. */
  pairing?: Pairing | undefined;
  /** Signal heads per noise head; 1 by default. Only with "grouped" and "shared". */
  ratio?: number | undefined;
  /**
   * "paired" by default (unilm's flash module); "flat" is its naive module. Only with
   * "interleaved".
   */
  kvRepeat?: "paired" | "flat" | undefined;
  /** true by default. */
  isCausal?: boolean | undefined;
  /** How wide v of an output head is; 2·headDim by default. */
  valueDim?: number | undefined;
  /**
   * The per-head RMS norm: eps 1e-5 by default; `affine: false` has no `subln.weight`; affine by
   * default where the weights hold one. null: none, and no factor 1 − λ_init either.
   */
  norm?: { eps?: number | undefined; affine?: boolean | undefined } | null | undefined;
  /**
   * "vectors" (the default): `lambda_q1`, `lambda_k1`, `lambda_q2`, `lambda_k2`; "scalars": λ =
   * exp(lambda_a) − exp(lambda_b) + λ_init.
   */
  lambdaForm?: "vectors" | "scalars" | undefined;
  /**
   * Attention over differences along the sequence in a share of the heads; none by default. Some
   * descriptions of this architecture mean that; the paper's difference is the one of two attention
   * maps, which every head has.
   */
  sequence?: SequenceMix | null | undefined;
  /**
   * `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `out_proj.weight` (or `o_proj.weight`),
   * their `.bias` where there is one, `lambda_q1`, `lambda_k1`, `lambda_q2`, `lambda_k2` (or
   * `lambda_a`, `lambda_b`), `subln.weight` where there is one.
   */
  weights: LayerWeights;
}

/** Options of {@link MultiheadDiffAttnV2}. */
export interface MultiheadDiffAttnV2Options {
  /** Width of x. */
  embedDim: number;
  /** Output heads H. */
  numHeads: number;
  /** Key/value groups G; numHeads by default. */
  numKvHeads?: number | undefined;
  /** d. */
  headDim: number;
  /** Signal heads per noise head; 1 by default. */
  ratio?: number | undefined;
  /** Rotary embedding; none by default. Positions start at the cache's length. */
  rope?: LayerRope | null | undefined;
  /** true by default. */
  isCausal?: boolean | undefined;
  /**
   * `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `o_proj.weight` (or `out_proj.weight`),
   * `lambda_proj.weight`, `.bias` likewise.
   */
  weights: LayerWeights;
}

/** Options of a layer's `forward`. */
export interface LayerForwardOptions extends CallOptions, OutOptions {
  /**
   * Past tokens: k and v of x are appended, and x sees all of them. On an error or abort its
   * content is what it was.
   */
  cache?: KvCache | null | undefined;
  /** Boolean mask `[B|1, H|1, L|1, Lk]`. */
  attnMask?: MaskLike | undefined;
}

/** Options of a layer's `vjp`. */
export interface LayerVjpOptions extends CallOptions {
  /** Boolean mask `[B|1, H|1, L|1, L]`. */
  attnMask?: MaskLike | undefined;
}

/** Gradients of a layer, float32. */
export interface LayerGradients {
  /** Of x, `[B, L, embedDim]`. */
  dx: Tensor;
  /**
   * Of every weight that the layer has, by its name in the layer's `weights`, and of its shape:
   * what `setWeights` takes once a step was made along it.
   */
  weights: Record<string, Tensor>;
}

/**
 * A pass of a layer that is kept for its backward pass. Its functions need no object to be called
 * on: `const { y, backward, dispose } = await layer.vjp(x)`.
 */
export interface LayerVjp {
  /** `[B, L, embedDim]`, the bits of `forward`. */
  readonly y: Tensor;
  /**
   * Gradients for `dy`, that of y; any number of times, until `dispose`.
   *
   * @param dy float32 `[B, L, embedDim]`.
   * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
   *   DISPOSED, UNAVAILABLE.
   */
  readonly backward: (dy: TensorLike<Float32Array>, options?: CallOptions) => Promise<LayerGradients>;
  /**
   * Frees what was kept; a second call does nothing, `backward` after it is DISPOSED. The garbage
   * collection does it, too, but knows nothing of how much memory it is.
   */
  readonly dispose: () => void;
  /** Calls `dispose`, for `using`. */
  [Symbol.dispose](): void;
}

/** A {@link LayerVjp} of `vjpSync`. */
export interface LayerVjpSync extends Omit<LayerVjp, "backward"> {
  /** `backward` in one blocking call, with the same bits. */
  readonly backward: (dy: TensorLike<Float32Array>, options?: CallOptions) => LayerGradients;
}

/** A layer; see {@link MultiheadDiffAttn} and {@link MultiheadDiffAttnV2}. */
export interface DiffAttnLayer {
  /**
   * @param x `[B, L, embedDim]`.
   * @returns `[B, L, embedDim]`, in x's dtype.
   * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
   *   DISPOSED, UNAVAILABLE.
   */
  forward<D extends TensorData>(x: TensorLike<D>, options?: LayerForwardOptions): Promise<Tensor<ResultData<D>>>;
  /** `forward` in one blocking call, with the same bits. */
  forwardSync<D extends TensorData>(x: TensorLike<D>, options?: LayerForwardOptions): Tensor<ResultData<D>>;
  /** What its heads attend to: `{ map1, map2, diff }`, each float32 `[B, H, L, L]`. */
  maps(x: TensorLike, options?: CallOptions): Promise<AttentionMaps>;
  /** `maps` in one blocking call, with the same bits. */
  mapsSync(x: TensorLike, options?: CallOptions): AttentionMaps;
  /**
   * `forward` without a cache, which keeps what the gradients of x and of every weight need (about
   * q, k, v and what attention makes of them, float32): for who trains the layer by a framework of
   * their own.
   *
   * Node: yes / browser: yes, by modules of its own as {@link diffAttentionBackward}; not on edge
   * runtimes.
   * @param x float32 `[B, L, embedDim]`.
   * @throws {@link DiffAttnError} (as a rejection) SHAPE, DTYPE, OPTION, OUT_OF_MEMORY, ABORTED,
   *   DISPOSED, UNAVAILABLE.
   */
  vjp(x: TensorLike<Float32Array>, options?: LayerVjpOptions): Promise<LayerVjp>;
  /**
   * `vjp` in blocking calls, its backward pass too, with the same bits. Node: yes / browser: in
   * workers, and on the main thread after an async form of gradients and an {@link init} after it.
   */
  vjpSync(x: TensorLike<Float32Array>, options?: LayerVjpOptions): LayerVjpSync;
  /**
   * Puts weights in the place of those that the layer has of these names, each of the same shape
   * and of any float type; weights that are left out stay. A weight comes with its `.bias`, where
   * there is one, and what λ is made of comes together. All or none: where it throws, nothing has
   * changed. Calls that were made before, and passes of `vjp`, go on with the weights that they
   * began with.
   *
   * @throws {@link DiffAttnError} SHAPE, DTYPE, OPTION (a weight that the layer has not),
   *   OUT_OF_MEMORY, DISPOSED.
   */
  setWeights(weights: LayerWeights): void;
  /**
   * Frees the memory once no call uses it. A second call does nothing; use after it is DISPOSED.
   */
  dispose(): void;
  /** Calls `dispose`, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * The multi-head layer of V1 (arXiv 2410.05258; microsoft/unilm, Diff-Transformer): projections,
 * rotary embedding, λ from its vectors, per-head RMS norm times 1 − λ_init, out projection. Weights
 * are copied by the constructor.
 *
 * Node: yes / browser: in workers, and on the main thread after {@link init}.
 */
export declare class MultiheadDiffAttn implements DiffAttnLayer {
  /** @throws {@link DiffAttnError} SHAPE, DTYPE, OPTION, OUT_OF_MEMORY. */
  constructor(options: MultiheadDiffAttnOptions);
  forward<D extends TensorData>(x: TensorLike<D>, options?: LayerForwardOptions): Promise<Tensor<ResultData<D>>>;
  forwardSync<D extends TensorData>(x: TensorLike<D>, options?: LayerForwardOptions): Tensor<ResultData<D>>;
  maps(x: TensorLike, options?: CallOptions): Promise<AttentionMaps>;
  mapsSync(x: TensorLike, options?: CallOptions): AttentionMaps;
  vjp(x: TensorLike<Float32Array>, options?: LayerVjpOptions): Promise<LayerVjp>;
  vjpSync(x: TensorLike<Float32Array>, options?: LayerVjpOptions): LayerVjpSync;
  setWeights(weights: LayerWeights): void;
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * The multi-head layer of V2 (microsoft/unilm, Diff-Transformer, note of 2026-01): λ = σ(W x) per
 * token and head, k and v shared by both maps, no norm. Weights are copied by the constructor.
 *
 * Node: yes / browser: in workers, and on the main thread after {@link init}.
 */
export declare class MultiheadDiffAttnV2 implements DiffAttnLayer {
  /** @throws {@link DiffAttnError} SHAPE, DTYPE, OPTION, OUT_OF_MEMORY. */
  constructor(options: MultiheadDiffAttnV2Options);
  forward<D extends TensorData>(x: TensorLike<D>, options?: LayerForwardOptions): Promise<Tensor<ResultData<D>>>;
  forwardSync<D extends TensorData>(x: TensorLike<D>, options?: LayerForwardOptions): Tensor<ResultData<D>>;
  maps(x: TensorLike, options?: CallOptions): Promise<AttentionMaps>;
  mapsSync(x: TensorLike, options?: CallOptions): AttentionMaps;
  vjp(x: TensorLike<Float32Array>, options?: LayerVjpOptions): Promise<LayerVjp>;
  vjpSync(x: TensorLike<Float32Array>, options?: LayerVjpOptions): LayerVjpSync;
  setWeights(weights: LayerWeights): void;
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * - SHAPE: lengths, ranks, head counts and sizes that do not fit or overflow; a detached buffer.
 * - DTYPE: element types that do not fit; a wrong JavaScript type where a tensor belongs.
 * - OPTION: an option that is unknown, out of its range or contradicts another.
 * - OUT_OF_MEMORY: with the bytes wanted; the backend stays usable.
 * - ABORTED: `name` is "AbortError", `cause` the signal's reason.
 * - DISPOSED: use after dispose.
 * - FILE: a malformed checkpoint.
 * - UNAVAILABLE: an instruction set, build or backend that is not to be had; objects of an instance
 *   that died.
 * - INTERNAL: a bug of this package.
 */
export type ErrorCode = "SHAPE" | "DTYPE" | "OPTION" | "OUT_OF_MEMORY" | "ABORTED" | "DISPOSED" | "FILE" | "UNAVAILABLE" | "INTERNAL";

/**
 * The one error class. The message names the argument, what was expected and what was given, the
 * same on both backends.
 */
export declare class DiffAttnError extends Error {
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown });
  /** The kind of failure; stable. */
  readonly code: ErrorCode;
}
