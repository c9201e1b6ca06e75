// What the layers of the public API must return for each reference case of them: their result, and
// the gradients of x and of every weight. Runs in Node and in browsers alike.

import type * as types from "../../packages/diffattn/src/types.js";
import { type Api, check, type Check, given, relative, tensor } from "./case-parts.js";
import { checks } from "./gradient-cases.js";
import { type Fixture, float64, stored } from "./safetensors.js";

type Layer = types.MultiheadDiffAttn | types.MultiheadDiffAttnV2;

/** The layer of a case. */
function layerOf(api: Api, fixture: Fixture): Layer {
  const { options: c } = fixture;
  const weights: Record<string, types.TensorLike> = {};
  for (const [name, value] of fixture.tensors) if (name.startsWith("weights.")) weights[name.slice("weights.".length)] = tensor(value);
  const common = {
    embedDim: c["embed_dim"] as number,
    numHeads: c["num_heads"] as number,
    numKvHeads: (c["num_kv_heads"] as number | null) ?? undefined,
    rope: c["rope"] as types.LayerRope,
    weights,
  };
  if (c["op"] === "GroupedDiffAttn") {
    const [flat = 0, noise = 1] = ["num_attention_heads", "num_noise_heads"].map((name) => Number(c[name]));
    return new api.MultiheadDiffAttn({
      ...common,
      depth: c["depth"] as number,
      lambdaInit: c["lambda_init"] as number,
      numHeads: flat - noise,
      numKvHeads: Number(c["num_key_value_heads"]) / 2,
      headDim: c["head_dim"] as number,
      pairing: "grouped",
      ratio: flat / noise - 1,
      norm: { eps: c["attn_rms_norm_eps"] as number },
    });
  }
  if (c["op"] === "MultiheadDiffAttnV2")
    return new api.MultiheadDiffAttnV2({ ...common, headDim: c["head_dim"] as number, ratio: c["ratio"] as number | undefined });
  return new api.MultiheadDiffAttn({
    ...common,
    depth: c["depth"] as number,
    headDim: c["head_dim"] as number | undefined,
    valueDim: c["value_dim"] as number | undefined,
    pairing: c["pairing"] as types.Pairing | undefined,
    kvRepeat: c["kv_repeat"] as "paired" | "flat" | undefined,
    isCausal: c["causal"] as boolean | undefined,
    norm: c["norm"] as types.MultiheadDiffAttnOptions["norm"],
    lambdaForm: c["lambda_form"] as "vectors" | "scalars" | undefined,
  });
}

/** What a layer of the case gives, which is disposed of then. */
async function using<R>(api: Api, fixture: Fixture, body: (layer: Layer) => Promise<R>): Promise<R> {
  const layer = layerOf(api, fixture);
  try {
    return await body(layer);
  } finally {
    layer.dispose();
  }
}

function usingSync<R>(api: Api, fixture: Fixture, body: (layer: Layer) => R): R {
  const layer = layerOf(api, fixture);
  try {
    return body(layer);
  } finally {
    layer.dispose();
  }
}

export function layer(fixture: Fixture): Check[] {
  const x = given(fixture, "x");
  const expected = float64(stored(fixture, "expected.y"));
  // The naive module keeps its softmax in float32, as the case says.
  const factor = String(fixture.options["softmax_precision"]).includes("1e-5") ? 1e-5 : 2e-6;
  return [
    check(
      "y",
      expected,
      relative(expected, factor),
      (api) => using(api, fixture, (layer) => layer.forward(x)),
      (api) => usingSync(api, fixture, (layer) => layer.forwardSync(x)),
    ),
  ];
}

/** Gradients by the names of cases. */
const byName = ({ dx, weights }: types.LayerGradients): object => ({
  dx,
  ...Object.fromEntries(Object.entries(weights).map(([name, gradient]) => [`dweights.${name}`, gradient])),
});

export function layerGradients(fixture: Fixture, file: string): Check[] {
  const [x, dy] = [given(fixture, "x"), given(fixture, "dy")] as [types.TensorLike<Float32Array>, types.TensorLike<Float32Array>];
  return checks(fixture, file, {
    run: (api) =>
      using(api, fixture, async (layer) => {
        const { backward, dispose } = await layer.vjp(x);
        const gradients = await backward(dy);
        dispose();
        return byName(gradients);
      }),
    runSync: (api) =>
      usingSync(api, fixture, (layer) => {
        const { backward, dispose } = layer.vjpSync(x);
        const gradients = backward(dy);
        dispose();
        return byName(gradients);
      }),
  });
}
