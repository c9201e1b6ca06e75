// The layers: handles of what lives in the backend. No arithmetic.

import type { Handle, Request } from "./backend.js";
import { handleOf } from "./cache.js";
import { isAbsent, show, unreadable } from "./check.js";
import * as encode from "./encode.js";
import { fail } from "./errors.js";
import { backend, live } from "./init.js";
import { Owned, resourceOf, throughProxies } from "./owned.js";
import { mapsPlan, tensorPlan } from "./plans.js";
import { both } from "./run.js";
import type * as types from "./types.js";

/** The cache among the options. */
function cacheOf(options: types.LayerForwardOptions | null | undefined): types.LayerForwardOptions["cache"] {
  try {
    return options?.cache;
  } catch (thrown) {
    return unreadable("OPTION", "options", thrown);
  }
}

const [forward, forwardSync] = both((layer: Layer, x: types.TensorLike, options?: types.LayerForwardOptions) => {
  const cache = cacheOf(options);
  const handle = handleOf("cache", cache);
  if (!isAbsent(cache) && !handle) fail("OPTION", "cache", "a KvCache", show(cache));
  return tensorPlan(encode.forward(live(resourceOf(layer)), x, handle, options), options);
});

const [maps, mapsSync] = both((layer: Layer, x: types.TensorLike, options?: types.CallOptions) =>
  mapsPlan(encode.layerMaps(live(resourceOf(layer)), x, options), options),
);

class Layer extends Owned<Handle> implements types.DiffAttnLayer {
  static {
    throughProxies(this);
  }

  constructor(request: Request) {
    const owner = backend();
    const handle = owner.createObject("layer", request);
    super("layer", handle, () => owner.dropObject(handle), true);
  }

  // The element type of a result follows x's, which the public types say.
  /* eslint-disable @typescript-eslint/no-explicit-any */
  forward(x: types.TensorLike, options?: types.LayerForwardOptions): Promise<any> {
    return forward(this, x, options);
  }

  forwardSync(x: types.TensorLike, options?: types.LayerForwardOptions): any {
    return forwardSync(this, x, options);
  }
  /* eslint-enable @typescript-eslint/no-explicit-any */

  maps(x: types.TensorLike, options?: types.CallOptions): Promise<types.AttentionMaps> {
    return maps(this, x, options);
  }

  mapsSync(x: types.TensorLike, options?: types.CallOptions): types.AttentionMaps {
    return mapsSync(this, x, options);
  }
}

export class MultiheadDiffAttn extends Layer {
  constructor(options: types.MultiheadDiffAttnOptions) {
    super(encode.createMultiheadDiffAttn(options));
  }
}

export class MultiheadDiffAttnV2 extends Layer {
  constructor(options: types.MultiheadDiffAttnV2Options) {
    super(encode.createMultiheadDiffAttnV2(options));
  }
}
