// The public types of `diffattn/training`. What is written here is what users read.

import type { TensorLike } from "../types.js";
import type {
  CheckpointSource,
  DiffViT,
  FileSource,
  GeneratedToken,
  GenerateOptions,
  LanguageModel,
  ModelLoadOptions,
  Tokenizer,
} from "../models/types.js";

/** What becomes of documents within a window. */
export type DocumentMode =
  /** Each sees itself alone, from position 0, and its first token is no label. */
  | "mask"
  /** A window is one text. */
  | "join";

/** What training reads, or is measured by. */
export type DatasetSource =
  /** A file: a text in UTF-8, or a file of tokens; in Node a path, too. */
  | FileSource
  /** Several texts' files, each a document or more. */
  | { readonly files: readonly FileSource[] }
  /** Texts, each a document or more. */
  | { readonly text: string | readonly string[] }
  /** Token ids: of one document, or of several, each a list. */
  | { readonly ids: readonly number[] | Int32Array | readonly (readonly number[] | Int32Array)[] };

/** How texts become windows of tokens. */
export interface DatasetOptions {
  /** Splits texts into tokens; needed for texts, unless a trainer has its model's. */
  tokenizer?: Tokenizer | null | undefined;
  /** Tokens of a window; 256 by default. */
  context?: number | undefined;
  /** What becomes of documents within a window; "mask" by default. */
  documents?: DocumentMode | undefined;
  /**
   * What separates documents within a text, as it stands there; by default a text is one document.
   */
  separator?: string | undefined;
  /** An id behind each document, as that of the end of texts; none by default. */
  endId?: number | null | undefined;
  /**
   * The share of the windows, the last ones, that is not trained on but measured: from 0 to below
   * 1; 0.05 by default.
   */
  eval?: number | undefined;
  /** Of the order of the windows: a whole number from 0; 0 by default. */
  seed?: number | undefined;
  /** Ends the reading. */
  signal?: AbortSignal | null | undefined;
}

/** Tokens to train on. Given back by `dispose`. */
export interface Dataset {
  /** How many there are. */
  readonly tokens: number;
  /** Of how many documents. */
  readonly documents: number;
  /** Tokens of a window. */
  readonly context: number;
  /**
   * The bytes of its file of tokens: 32 bytes of header (`DATK`, version 1, bytes of an id, 0, as
   * u32; tokens, documents, as u64), ids of 2 or 4 bytes, the token that each document begins with
   * (u64), all little-endian.
   */
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** Closes its file. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/** Images to train a DIFF ViT on. */
export interface ImageData {
  /** `[images, C, S, S]`, float32, normalised as the model takes them; read while it trains. */
  images: TensorLike;
  /** The class of each, from 0. */
  labels: Int32Array | readonly number[];
}

/** Which images are trained on, and in which order. */
export interface ImageDataOptions {
  /**
   * What is not trained on but measured: a share of the images, the last ones, from 0 to below 1,
   * or a list of their numbers; 0.2 by default.
   */
  eval?: number | readonly number[] | undefined;
  /** Of the order of the images: a whole number from 0; 0 by default. */
  seed?: number | undefined;
}

/** AdamW (decoupled weight decay, arXiv 1711.05101). */
export interface OptimizerOptions {
  /** The largest learning rate; 1e-3 by default. */
  lr?: number | undefined;
  /** β₁ and β₂; 0.9 and 0.95 by default. */
  betas?: readonly [number, number] | undefined;
  /** Added to the root; 1e-8 by default. */
  eps?: number | undefined;
  /** Of tensors of two axes, and of four as a map of patches has; 0.1 by default. */
  weightDecay?: number | undefined;
  /** What the joint norm of the gradients is clipped to; null: not at all; 1 by default. */
  maxGradNorm?: number | null | undefined;
  /**
   * What the learning rate of some weights is multiplied with, by patterns of their names: one with
   * `*` or `?` is of whole names, one without is a part of them. The last that fits counts.
   */
  lrScale?: readonly (readonly [pattern: string, factor: number])[] | undefined;
  /**
   * Weights that stay, by patterns of their names; with rows (from, to, from, to, …, of the first
   * axis) those alone.
   */
  freeze?: readonly (string | readonly [pattern: string, rows: readonly number[]])[] | undefined;
}

/** The learning rate over the steps. */
export interface ScheduleOptions {
  /** Steps of the rise from 0; a fiftieth of all by default. */
  warmup?: number | undefined;
  /** The share that is left at the last step: from 0 to 1; 0.1 by default. */
  final?: number | undefined;
  /** How it falls; "cosine" by default. */
  shape?: "cosine" | "linear" | "constant" | undefined;
}

/** Low-rank adapters (LoRA, arXiv 2106.09685): what alone moves then, with projections of λ. */
export interface TrainAdapterOptions {
  /** Rows of A; 16 by default. */
  rank?: number | undefined;
  /** The difference is `alpha / rank · B A`; the rank by default. */
  alpha?: number | undefined;
  /** Maps that have one, by the last parts of their names; all maps of layers by default. */
  targets?: readonly string[] | undefined;
}

/** A model that knows nothing yet. */
export interface FreshModel {
  /**
   * Its `config.json`: a `diffllama`, a `llama`, a `diffattn_llama`, or timm's of a DIFF ViT
   * (`architecture`, and in `model_args` sizes, `init_values`, `qkv_bias`, `proj_bias` and
   * `dual_lambda`; what it leaves out is timm's).
   */
  config: Readonly<Record<string, unknown>>;
  /** Of its random weights; 0 by default. */
  seed?: number | undefined;
  /** A checkpoint whose tokenizer it has. */
  tokenizer?: CheckpointSource | undefined;
}

/** Where a trainer writes: a folder (in Node), or whatever takes a file by its name. */
export type TrainOutput = string | URL | { write(name: string, bytes: Uint8Array<ArrayBuffer>): unknown };

/** How a {@link Trainer} trains. */
export interface TrainerOptions {
  /** The model: a checkpoint as `LanguageModel.load` takes it, or one that knows nothing yet. */
  model: CheckpointSource | FileSource | FreshModel;
  /**
   * What it is loaded with: element types of frozen weights, an adapter that is merged first,
   * access.
   */
  load?: ModelLoadOptions | undefined;
  /** A dataset, which stays its owner's, or what one is made of. */
  data: Dataset | DatasetSource;
  /** Of data that is no dataset yet. */
  dataset?: DatasetOptions | undefined;
  /** Steps in all. */
  steps: number;
  /** Windows of a micro-batch; 8 by default. */
  batch?: number | undefined;
  /**
   * Micro-batches of a step; 1 by default. Of 256 tokens, or multiples, each, they give the bits of
   * one batch.
   */
  accumulate?: number | undefined;
  /**
   * Tokens of a unit: gradients of a step are summed in units, each from zero, added in order, so
   * that no bit depends on `batch`, `accumulate` and how many machines train (`diffattn-mpi`). A
   * multiple of 256, whole windows, and a whole part of a micro-batch; a checkpoint keeps it. By
   * default there are none, and gradients are summed over micro-batches.
   */
  unit?: number | undefined;
  optimizer?: OptimizerOptions | undefined;
  schedule?: ScheduleOptions | undefined;
  /** Trains adapters alone: true for the defaults. */
  adapter?: TrainAdapterOptions | boolean | undefined;
  /**
   * A model whose distribution the trained one is to follow, too:
   * `loss = alpha · CE + (1 − alpha) · KL(teacher ‖ student)`, temperature 1, natural logarithms.
   */
  teacher?: CheckpointSource | FileSource | undefined;
  /** What that is loaded with. */
  teacherLoad?: ModelLoadOptions | undefined;
  /** The share of the cross entropy with a teacher: from 0 to 1; 0.5 by default. */
  alpha?: number | undefined;
  /**
   * Of a model with DEX: steps T over which its λ is annealed, whose heads meet
   * `(1 − α)(t/T) λ_init + α λ`, α = min(1, t/T), λ_init = 0.8 − 0.6 e^(−0.3 · layer) (arXiv
   * 2505.16333); 0: not at all. By default a tenth of the steps, 2 at least, where DEX's matrices
   * are zeros and nothing would be learned otherwise, else 0. What is saved is λ as it is learned.
   */
  lambdaAnneal?: number | undefined;
  /**
   * What is computed anew in the backward pass instead of being kept; "nothing" by default, true is
   * "layers".
   */
  recompute?: "nothing" | "mlps" | "layers" | boolean | undefined;
  /** Of the adapters' random values; 0 by default. */
  seed?: number | undefined;
  /** Steps between two measurements; none by default. */
  evalEvery?: number | undefined;
  /** Micro-batches of a measurement at most; all by default. */
  evalBatches?: number | undefined;
  /** Steps between two checkpoints; none by default. */
  saveEvery?: number | undefined;
  /** Checkpoints that are kept in a folder; 2 by default. */
  keep?: number | undefined;
  /** Where checkpoints are written. */
  out?: TrainOutput | undefined;
  /** Goes on from the last checkpoint in `out` where there is one (true), or from this one. */
  resume?: boolean | CheckpointSource | undefined;
  /** Ends training between two steps, or in one, which then counts for nothing. */
  signal?: AbortSignal | null | undefined;
}

/** How a {@link Trainer} trains a DIFF ViT on images. */
export interface ImageTrainerOptions extends Omit<
  TrainerOptions,
  "model" | "data" | "dataset" | "adapter" | "batch" | "accumulate" | "lambdaAnneal"
> {
  /** The model: a checkpoint as `DiffViT.load` takes it, or one that knows nothing yet. */
  model: CheckpointSource | FreshModel;
  data: ImageData;
  dataset?: ImageDataOptions | undefined;
  /** Images of a micro-batch; 8 by default. */
  batch?: number | undefined;
  /**
   * Micro-batches of a step; 1 by default. Of 256 images, or multiples, each, they give the bits of
   * one batch.
   */
  accumulate?: number | undefined;
}

/** What is measured came to. */
export interface Measurement {
  /** The mean loss over the labels that count, natural logarithm. */
  readonly loss: number;
  /** Of images: the share whose largest logit is that of their class. */
  readonly accuracy?: number;
}

/** What is told of a step. */
export interface TrainStep {
  /** Counted from 1. */
  readonly step: number;
  /** The mean over the labels of the step, before it moved anything. */
  readonly loss: number;
  /** With a teacher: the parts of the loss. */
  readonly crossEntropy?: number;
  readonly divergence?: number;
  /** The learning rate. */
  readonly lr: number;
  /** The joint norm of the gradients, before clipping. */
  readonly gradNorm: number;
  /** Tokens that were read so far; of images, those that the model makes of them. */
  readonly tokens: number;
  /** Of this step. */
  readonly tokensPerSecond: number;
  /**
   * λ of each layer, of one that is projected the mean over the step's tokens and heads; null where
   * there is none.
   */
  readonly lambda: readonly (number | null)[];
  /** The loss over what is measured, after the step, where it was. */
  readonly evalLoss?: number;
  /** Of images, the accuracy over what is measured, likewise. */
  readonly evalAccuracy?: number;
  /** The checkpoint that was written after the step, where one was: its name in `out`. */
  readonly saved?: string;
  /** Whether the loss, or the norm, is no number: nothing moved, and this is the last step. */
  readonly diverged?: true;
}

/** A model in training, of texts or of images. Given back by `dispose`. */
export interface Trainer<M = LanguageModel> extends AsyncIterable<TrainStep> {
  /** Names and shapes of what moves. */
  readonly parameters: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** Values that move. */
  readonly moving: number;
  /** Steps that were made. */
  readonly step: number;
  /** Steps in all. */
  readonly steps: number;
  /** Windows, or images, to train on: an epoch. */
  readonly windows: number;
  /** Windows, or images, to measure. */
  readonly evalWindows: number;
  /** What was told of the steps so far, those of before a checkpoint, too. */
  readonly history: readonly TrainStep[];
  /**
   * One step.
   * @returns undefined behind the last, and behind one that diverged.
   */
  advance(): Promise<TrainStep | undefined>;
  /**
   * The mean loss over the windows that are measured, natural logarithm; undefined where there are
   * none.
   */
  evaluate(options?: { batches?: number | undefined; signal?: AbortSignal | null | undefined }): Promise<number | undefined>;
  /** What {@link Trainer.evaluate} gives, and of images the accuracy. */
  measure(options?: { batches?: number | undefined; signal?: AbortSignal | null | undefined }): Promise<Measurement | undefined>;
  /** The model as the last step left it; the same object each time. It goes with the trainer. */
  model(): Promise<M>;
  /**
   * Goes on with a text, as `generate` of the model as the last step left it.
   * @throws {DiffAttnError} UNAVAILABLE of a model of images.
   */
  sample(prompt: string, options?: GenerateOptions): AsyncGenerator<GeneratedToken, void, undefined>;
  /**
   * Writes a checkpoint, which is loaded as any other and gone on from to the same bits.
   * @returns Its name in `out`, `step-NNNNNN`.
   */
  save(out?: TrainOutput): Promise<string>;
  dispose(): void;
  [Symbol.dispose](): void;
}

/** Callbacks of {@link train}. */
export interface TrainCallbacks<M = LanguageModel> {
  /** Told of each step; training stops where it gives false. */
  onStep?: ((step: TrainStep, trainer: Trainer<M>) => unknown) | undefined;
  /** Told of each measurement. */
  onEval?: ((loss: number, step: TrainStep) => unknown) | undefined;
  /** Told of each checkpoint. */
  onSave?: ((name: string, step: TrainStep) => unknown) | undefined;
}

/**
 * Texts or ids as windows of tokens, tokenised once.
 *
 * Node: yes / browser: yes.
 * @throws {DiffAttnError} OPTION or FILE, naming what is wrong; UNAVAILABLE for texts without a
 *   tokenizer.
 */
export declare function createDataset(source: DatasetSource, options?: DatasetOptions): Promise<Dataset>;

/** Makes trainers. */
export declare const Trainer: {
  /**
   * Loads the model and prepares its training.
   *
   * Node: yes / browser: yes, in a worker with modules of its own.
   * @throws {DiffAttnError} OPTION, naming the option; FILE for a checkpoint that cannot be
   *   read, or does not fit the options (resume); OUT_OF_MEMORY.
   */
  create(options: TrainerOptions): Promise<Trainer>;
  /**
   * Loads a DIFF ViT and prepares its training on images.
   *
   * Node: yes / browser: yes, in a worker with modules of its own.
   * @throws {DiffAttnError} OPTION, SHAPE or DTYPE, naming the option; FILE; OUT_OF_MEMORY.
   */
  create(options: ImageTrainerOptions): Promise<Trainer<DiffViT>>;
};

/**
 * Trains to the end, for those who want callbacks; writes a last checkpoint where there is `out`.
 * @returns What was told of the steps.
 * @throws {DiffAttnError} As `Trainer.create`, and ABORTED.
 */
export declare function train(
  options: (TrainerOptions & TrainCallbacks) | (ImageTrainerOptions & TrainCallbacks<DiffViT>),
): Promise<readonly TrainStep[]>;
