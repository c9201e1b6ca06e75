// The layers: handles of what lives in the backend. No arithmetic. What passes with their gradients
// are is gradients/vjp.ts.

import type { Handle, Request } from "./backend.js";
import { handleOf } from "./cache.js";
import { isAbsent, show, unreadable } from "./check.js";
import * as encode from "./operators.js";
import { fail } from "./errors.js";
import * as gradients from "./gradients/vjp.js";
import { live } from "./init.js";
import { local } from "./local.js";
import { Owned, resourceOf } from "./owned.js";
import { mapsPlan, tensorPlan } from "./plans.js";
import { runAsync } from "./run.js";
import { runSync } from "./run-sync.js";
import type * as types from "./types.js";

/** The cache among the options. */
function cacheOf(options: types.LayerForwardOptions | null | undefined): types.LayerForwardOptions["cache"] {
  try {
    return options?.cache;
  } catch (thrown) {
    return unreadable("OPTION", "options", thrown);
  }
}

function forward(layer: Layer, x: types.TensorLike, options: types.LayerForwardOptions | undefined) {
  const cache = cacheOf(options);
  const handle = handleOf("cache", cache);
  if (!isAbsent(cache) && !handle) fail("OPTION", "cache", "a KvCache", show(cache));
  return tensorPlan(encode.forward(handleIn(layer), x, handle, options), options);
}

const maps = (layer: Layer, x: types.TensorLike, options: types.CallOptions | undefined) =>
  mapsPlan(encode.layerMaps(handleIn(layer), x, options), options);

/** What a layer is. */
type Own = gradients.LayerParts;

const handleIn = (layer: Layer): Handle => live(resourceOf<Own>(layer).handle);

/** What the layer calls its output projection: as its caller does. */
function outOf({ weights }: { weights: types.LayerWeights }): Own["out"] {
  try {
    return isAbsent(weights["o_proj.weight"]) ? "out_proj." : "o_proj.";
  } catch {
    return "out_proj.";
  }
}

class Layer extends Owned<Own> implements types.DiffAttnLayer {
  constructor(request: Request, options: { weights: types.LayerWeights }) {
    const owner = local();
    const handle = owner.createObject("layer", request);
    super("layer", { handle, out: outOf(options) }, () => owner.dropObject(handle), true);
  }

  // The element type of a result follows x's, which the public types say.
  /* eslint-disable @typescript-eslint/no-explicit-any */
  async forward(x: types.TensorLike, options?: types.LayerForwardOptions): Promise<any> {
    return runAsync(forward(this, x, options));
  }

  forwardSync(x: types.TensorLike, options?: types.LayerForwardOptions): any {
    return runSync(forward(this, x, options));
  }
  /* eslint-enable @typescript-eslint/no-explicit-any */

  async maps(x: types.TensorLike, options?: types.CallOptions): Promise<types.AttentionMaps> {
    return runAsync(maps(this, x, options));
  }

  mapsSync(x: types.TensorLike, options?: types.CallOptions): types.AttentionMaps {
    return runSync(maps(this, x, options));
  }

  async vjp(x: types.TensorLike<Float32Array>, options?: types.LayerVjpOptions): Promise<types.LayerVjp> {
    return gradients.vjp(resourceOf<Own>(this), x, options);
  }

  vjpSync(x: types.TensorLike<Float32Array>, options?: types.LayerVjpOptions): types.LayerVjpSync {
    return gradients.vjpSync(resourceOf<Own>(this), x, options);
  }

  setWeights(weights: types.LayerWeights): void {
    const handle = handleIn(this);
    local().query(encode.setWeights(handle, weights));
  }
}

export class MultiheadDiffAttn extends Layer {
  constructor(options: types.MultiheadDiffAttnOptions) {
    super(encode.createMultiheadDiffAttn(options), options);
  }
}

export class MultiheadDiffAttnV2 extends Layer {
  constructor(options: types.MultiheadDiffAttnV2Options) {
    super(encode.createMultiheadDiffAttnV2(options), options);
  }
}
