// AudioCodec: the handle of a codec in the backend, and what goes through it.

import type { Handle } from "../backend.js";
import { checkOptions } from "../check.js";
import { encode } from "../encode.js";
import { live } from "../init.js";
import { Owned, resourceOf } from "../owned.js";
import type { Tensor, TensorLike } from "../types.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import { drop, run } from "./backend.js";
import { folderOf } from "./folder.js";
import { loadModel } from "./load.js";
import { tensorOf } from "./outputs.js";
import { throughProxies } from "./proxies.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

interface Codec {
  readonly handle: Handle;
}

export class AudioCodec extends Owned<Codec> {
  readonly config: types.ModelConfig;

  /** Use `load`. */
  constructor(handle: Handle, config: types.ModelConfig) {
    super("model", { handle }, () => drop(handle), true);
    throughProxies(AudioCodec);
    this.config = config;
  }

  static async load(
    source: types.CheckpointSource,
    options?: types.WeightLoadOptions,
  ): Promise<AudioCodec> {
    const given = checkOptions("options", options, [...LOAD_OPTIONS, "onNotice"]);
    const { handle, info } = await loadModel("audio", await folderOf(source, accessOf(given)), given);
    return new AudioCodec(handle, info.config);
  }

  /** The handle of a codec that is alive. */
  get #handle(): Handle {
    return live(resourceOf<Codec>(this).handle);
  }

  async encode(pcm: TensorLike, options?: types.AudioCodecOptions): Promise<Tensor> {
    const { signal, onProgress } = checkOptions("options", options, ["signal", "onProgress"]);
    const request = encode(requests.audioEncode, { model: this.#handle, pcm, deterministic: false });
    const [latents] = await run(request, { signal, onProgress });
    return tensorOf(latents);
  }

  async decode(latents: TensorLike, options?: types.AudioCodecOptions): Promise<Tensor> {
    const { signal, onProgress } = checkOptions("options", options, ["signal", "onProgress"]);
    const request = encode(requests.audioDecode, { model: this.#handle, latents, deterministic: false });
    const [pcm] = await run(request, { signal, onProgress });
    return tensorOf(pcm);
  }
}
