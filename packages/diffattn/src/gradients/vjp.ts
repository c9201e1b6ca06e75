// A layer's pass with its backward pass: what the modules of gradients keep of the first for the
// second. No arithmetic.

import type { Handle, Output } from "../backend.js";
import { internal } from "../errors.js";
import { live } from "../init.js";
import * as requests from "../operators.js";
import { Owned, resourceOf, symbolDispose } from "../owned.js";
import { named, tensorPlan } from "../plans.js";
import { setWeights } from "../requests.generated.js";
import { type Plan, runAsync } from "../run.js";
import { runSync } from "../run-sync.js";
import type * as types from "../types.js";
import { createObject, dropObject, training, trainingNow } from "./backend.js";
import { gradientsOf } from "./plans.js";

/** A layer, as passes take it. */
export interface LayerParts {
  readonly handle: Handle;
  /** What it calls its output projection. */
  readonly out: "out_proj." | "o_proj.";
}

type Given = types.TensorLike<Float32Array>;

/** A kept pass: released with the functions that have it. */
class Kept extends Owned<Handle> {
  constructor(handle: Handle) {
    super("vjp", handle, () => dropObject(handle), true);
  }
}

/** Names of weights, in the order in which the door gives their gradients. */
const names = (): string[] => setWeights.options[0].weights.slice(1) as string[];

/** The plan of a backward pass. */
const backwardPlan = (kept: Kept, { out }: LayerParts, dy: Given, options: types.CallOptions | undefined): Plan<types.LayerGradients> => ({
  request: requests.layerBackward(live(resourceOf(kept)), dy, options),
  options,
  finish([dx, ...outputs]: Output[]) {
    if (!dx) throw internal("a backward pass without dx");
    const weights = names().map((name) => name.replace("out_proj.", out));
    return { ...named(["dx"], [dx]), weights: gradientsOf(weights, outputs) } as types.LayerGradients;
  },
});

/** The plan of a pass that is kept. */
const passPlan = (kept: Kept, { handle }: LayerParts, x: Given, options: types.LayerVjpOptions | undefined): Plan<types.Tensor> =>
  tensorPlan(requests.layerVjp(live(resourceOf(kept)), live(handle), x, options), options);

/** What both forms give: functions of their own, which need no object to be called on. */
function parts<B>(kept: Kept, y: types.Tensor, backward: B) {
  const dispose = (): void => kept.dispose();
  return { y, backward, dispose, [symbolDispose() as typeof Symbol.dispose]: dispose };
}

export async function vjp(layer: LayerParts, x: Given, options: types.LayerVjpOptions | undefined): Promise<types.LayerVjp> {
  const kept = new Kept(createObject("vjp", requests.createLayerVjp()));
  try {
    const y = await runAsync(passPlan(kept, layer, x, options), training);
    return parts(kept, y, async (dy: Given, options?: types.CallOptions) => runAsync(backwardPlan(kept, layer, dy, options), training));
  } catch (error) {
    kept.dispose();
    throw error;
  }
}

export function vjpSync(layer: LayerParts, x: Given, options: types.LayerVjpOptions | undefined): types.LayerVjpSync {
  const kept = new Kept(trainingNow().createObject("vjp", requests.createLayerVjp()));
  try {
    const y = runSync(passPlan(kept, layer, x, options), trainingNow);
    return parts(kept, y, (dy: Given, options?: types.CallOptions) => runSync(backwardPlan(kept, layer, dy, options), trainingNow));
  } catch (error) {
    kept.dispose();
    throw error;
  }
}
