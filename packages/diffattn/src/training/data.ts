// What a trainer reads, whatever it is of: bytes that plans name, and how a request tells of them.
// Images are a file of pixels in memory; texts are a file of tokens (dataset.ts). Decides no order.

import { arrayType, checkOptions, has, isAbsent, isArray, readTensor, show } from "../check.js";
import type { ValuesOf } from "../encode.js";
import { fail } from "../errors.js";
import type { ByteSource } from "../models/byte-source.js";
import { MemorySource } from "../models/source.js";
import { createDataset, isDataset, numberOf, tokensOf, wholeIn } from "./dataset.js";
import type * as requests from "./requests.generated.js";
import type * as types from "./types.js";

type Started = ValuesOf<typeof requests.startTrainer.operands>;

/** What a trainer reads. */
export interface Reads {
  /** Where the bytes lie that plans name. */
  readonly source: () => ByteSource;
  /** What it is, as a request tells a trainer. */
  readonly start: () => Pick<Started, "tokens" | "images" | "seed">;
  /** What it is, as a checkpoint keeps it: of another, nothing is gone on with. */
  readonly identity: () => Promise<object>;
  /** Gives back what is not its owner's. */
  readonly dispose: () => void;
}

/** Bytes of a file that tell it from another. */
const TOLD = 2 ** 20;

async function hashOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const firstOf = async (source: ByteSource): Promise<string> => hashOf((await source.read(0, Math.min(source.length, TOLD), {})).slice());

/** Tokens of a dataset, which goes with the trainer where it is not a caller's. */
async function textsOf(
  data: types.Dataset | types.DatasetSource,
  options: types.DatasetOptions | undefined,
  more: Pick<types.DatasetOptions, "tokenizer" | "signal">,
): Promise<Reads> {
  const isOwners = isDataset(data);
  const dataset = isOwners ? data : await createDataset(data, { ...more, ...options });
  return {
    source: () => tokensOf(dataset).source,
    start() {
      const { header, starts, source, windows } = tokensOf(dataset);
      const { seed, ...rest } = windows;
      return { tokens: { header, starts, length: source.length, ...rest }, images: undefined, seed };
    },
    async identity() {
      const { source, header, windows } = tokensOf(dataset);
      const tokens = Number(new DataView(header.buffer).getBigUint64(16, true));
      return { data: { bytes: source.length, tokens, hash: await firstOf(source) }, windows };
    },
    dispose() {
      if (!isOwners) dataset.dispose();
    },
  };
}

const IMAGE_DATA = ["images", "labels"];
const IMAGE_OPTIONS = ["eval", "seed"];
/** The share of images that is measured. */
const EVAL = 0.2;

/** Whether data is images. */
export const isImages = (data: unknown): data is types.ImageData => has(data, "images") && has(data, "labels");

/** A copy of classes. Whether the model has them is checked in Rust. */
function labelsOf(given: unknown): Int32Array<ArrayBuffer> {
  if (arrayType(given) !== "Int32Array" && !isArray(given))
    return fail("DTYPE", "data.labels", "classes (an array, or an Int32Array)", show(given));
  const labels = Array.from(given as ArrayLike<unknown>);
  for (const [index, label] of labels.entries())
    if (!Number.isInteger(label) || Math.abs(label as number) >= 2 ** 31) fail("OPTION", `data.labels[${index}]`, "a class", show(label));
  return Int32Array.from(labels as number[]);
}

/** Which images are measured: a share of them, or those of a list. */
function measuredOf(given: unknown): { eval: number | undefined; held: readonly number[] } {
  if (!isArray(given)) return { eval: numberOf("dataset.eval", given, EVAL), held: [] };
  return { eval: undefined, held: given.map((number, index) => wholeIn(`dataset.eval[${index}]`, number, 0, 0)) };
}

/** Images, as a file of their pixels. */
function imagesOf(data: types.ImageData, options: types.ImageDataOptions | undefined): Reads {
  const { images, labels } = checkOptions("data", data, IMAGE_DATA);
  const given = checkOptions("dataset", options, IMAGE_OPTIONS);
  const { dtype, shape, bytes } = readTensor("data.images", images);
  if (dtype !== "float32") fail("DTYPE", "data.images", "float32", dtype);
  const classes = labelsOf(labels);
  const measured = measuredOf(given.eval);
  const seed = wholeIn("dataset.seed", given.seed, 0, 0);
  const source = new MemorySource("data.images", bytes);
  return {
    source: () => source,
    start: () => ({ tokens: undefined, images: { shape, labels: classes, ...measured }, seed }),
    async identity() {
      const labelled = await hashOf(new Uint8Array(classes.buffer));
      return { data: { shape, hash: await firstOf(source), labels: labelled }, windows: { ...measured, seed } };
    },
    dispose() {},
  };
}

/** What a trainer is given to read. */
export async function readsOf(
  given: Partial<types.TrainerOptions> | Partial<types.ImageTrainerOptions>,
  more: Pick<types.DatasetOptions, "tokenizer" | "signal">,
): Promise<Reads> {
  const { data, dataset } = given;
  if (isAbsent(data)) return fail("OPTION", "data", "texts, ids, a dataset or images", show(data));
  if (isImages(data)) return imagesOf(data, dataset);
  return textsOf(data, dataset as types.DatasetOptions | undefined, more);
}
