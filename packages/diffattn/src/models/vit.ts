// DiffViT: the handle of a model in the backend, and images on their way to it.

import type { Handle } from "../backend.js";
import { checkOptions, has, isArray, readTensor, show } from "../check.js";
import { encode, type ValuesOf } from "../encode.js";
import { fail } from "../errors.js";
import { live } from "../init.js";
import { Owned, resourceOf } from "../owned.js";
import { mapsOf } from "../plans.js";
import type { AttentionMaps, Tensor, TensorLike } from "../types.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import { drop, run } from "./backend.js";
import { folderOf } from "./folder.js";
import { imageOf, isImage } from "./image.js";
import { loadModel } from "./load.js";
import { bufferOf, int32Of, tensorOf } from "./outputs.js";
import type { Home } from "./platform.js";
import { throughProxies } from "./proxies.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

type Images = ValuesOf<typeof requests.vitForward.operands>["image"];

/** Pixels, or images. */
function imagesOf(given: unknown): Images {
  if (isArray(given)) return { bytes: Array.from(given, (image: unknown, index) => imageOf(`image[${index}]`, image)) };
  return isImage(given) ? { bytes: [imageOf("image", given)] } : { pixels: given as TensorLike };
}

/** One image or pixels, no list. */
function oneOf(image: unknown): Images {
  if (!isImage(image) && !has(image, "data"))
    fail("DTYPE", "image", "an image { data, width, height }, what a page shows, or a tensor", show(image));
  return imagesOf(image);
}

interface Model {
  readonly handle: Handle;
}

export class DiffViT extends Owned<Model> {
  readonly config: types.ModelConfig;

  /** Use `load`. */
  constructor(handle: Handle, config: types.ModelConfig) {
    super("model", { handle }, () => drop(handle), true);
    throughProxies(DiffViT);
    this.config = config;
  }

  static load(source: types.CheckpointSource, options?: types.WeightLoadOptions): Promise<DiffViT> {
    return DiffViT.loadAt("models", source, options);
  }

  /** Loads one that lives among models, or where they are trained. */
  static async loadAt(home: Home, source: types.CheckpointSource, options?: types.WeightLoadOptions): Promise<DiffViT> {
    const given = checkOptions("options", options, [...LOAD_OPTIONS, "onNotice"]);
    const { handle, info } = await loadModel("image", await folderOf(source, accessOf(given)), { ...given, home });
    return new DiffViT(handle, info.config);
  }

  /** The handle of a model that is alive. */
  get #handle(): Handle {
    return live(resourceOf<Model>(this).handle);
  }

  async forward(
    image: types.ImageSource | readonly types.ImageSource[] | TensorLike,
    options?: { signal?: AbortSignal | undefined },
  ): Promise<Tensor> {
    const { signal } = checkOptions("options", options, ["signal"]);
    const request = encode(requests.vitForward, { model: this.#handle, image: imagesOf(image), deterministic: false });
    const [logits] = await run(request, { signal });
    return tensorOf(logits);
  }

  async classify(
    image: types.ImageSource | Tensor,
    options?: { top?: number | undefined; signal?: AbortSignal | undefined },
  ): Promise<types.Classification[]> {
    const { top = 5, signal } = checkOptions("options", options, ["top", "signal"]);
    if (!isImage(image) && has(image, "data")) {
      const { shape } = readTensor("image", image);
      if (shape[0] !== 1) fail("SHAPE", "image", "one image, [1, C, H, W]", show(shape));
    }
    const request = encode(requests.vitClassify, { model: this.#handle, image: oneOf(image), top, deterministic: false });
    const [classes, probabilities] = await run(request, { signal });
    const shares = new Float32Array(bufferOf(probabilities));
    return Array.from(int32Of(classes), (index, place) => ({
      index,
      label: labelOf(this.config, index),
      probability: shares[place] ?? NaN,
    }));
  }

  async maps(image: types.ImageSource | Tensor, layer: number, options?: { signal?: AbortSignal | undefined }): Promise<AttentionMaps> {
    const { signal } = checkOptions("options", options, ["signal"]);
    const request = encode(requests.vitMaps, { model: this.#handle, image: oneOf(image), layer, deterministic: false });
    return mapsOf(await run(request, { signal }));
  }
}

/** The handle of a model that is alive. */
export const vitHandleOf = (model: DiffViT): Handle => live(resourceOf<Model>(model).handle);

/** A class's name: timm's `label_names`, a list, or `id2label`, by number. */
function labelOf(config: types.ModelConfig, index: number): string | null {
  const { label_names: names, id2label } = config;
  const label = Array.isArray(names) ? (names[index] as unknown) : (id2label as Record<string, unknown> | null | undefined)?.[index];
  return typeof label === "string" ? label : null;
}
