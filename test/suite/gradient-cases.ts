// What the public API must return for each reference case of gradients: one check per gradient that
// the case expects. Runs in Node and in browsers alike.

import type * as types from "../../packages/diffattn/src/types.js";
import { attentionOptions, type Check, check, given, relative, type Result, tensor, vector } from "./case-parts.js";
import { type Fixture, float32, float64, integers, stored } from "./safetensors.js";

type Api = typeof types;

/** Gradients by the names that cases have for them. */
type Gradients = Record<string, Result | undefined>;

/** A call in both forms, whose gradients go by the names of the case. */
interface Call {
  run: (api: Api) => Promise<object>;
  runSync: (api: Api) => object;
  /** The public name of a gradient, where the case has another. */
  names?: Record<string, string>;
}

/**
 * Of the largest expected value, the error that a gradient may have: what float32 reaches. Where
 * maps cancel, where scores are large and where sums over rows do, it reaches less.
 */
function share(file: string, name: string): number {
  const is = (...cases: string[]): boolean => cases.some((one) => file.endsWith(`/${one}.safetensors`));
  const ofCase = is("near_cancelling") ? 4e-5 : is("large_scores", "sinks_gqa") ? 6e-6 : 2e-6;
  return Math.max(ofCase, /^d(weights\.)?(lambda|sinks)/.test(name) ? 2e-5 : 0);
}

/** A check for each gradient of a case that `wanted` lets through. */
export function checks(fixture: Fixture, file: string, { run, runSync, names = {} }: Call): Check[] {
  return [...fixture.tensors.keys()].flatMap((key) => {
    const [, name] = /^expected\.(d.+)$/.exec(key) ?? [];
    if (name === undefined) return [];
    const expected = float64(stored(fixture, key));
    const pick = (gradients: object): Result => {
      const found = (gradients as Gradients)[names[name] ?? name];
      if (!found) throw new Error(`the call gave no ${name}`);
      return found;
    };
    const bound = relative(expected, share(file, name));
    return check(
      name,
      expected,
      bound,
      async (api) => pick(await run(api)),
      (api) => pick(runSync(api)),
    );
  });
}

const NAMES = { dnorm_weight: "dnormWeight", dbias: "dattnBias", dlambda_value: "dlambda", dlambda_logits: "dlambdaLogits" };

/** λ of a case that has it in parts, as the number or the tensor that they make. */
function lambdaOf(fixture: Fixture, api: Api): types.AttentionOptions["lambda"] {
  const { options: c, tensors } = fixture;
  const one = (name: string): number => float32(stored(fixture, name))[0] ?? NaN;
  switch (c["lambda_form"]) {
    case "vectors":
      return api.lambdaFull({ ...vectorsOf(fixture), init: c["lambda_init"] as number });
    case "scalars":
      return Math.exp(one("lambda_a")) - Math.exp(one("lambda_b")) + (c["lambda_init"] as number);
    case "sigmoid": {
      const logits = stored(fixture, "lambda_logits");
      return { data: float32(logits).map((x) => 1 / (1 + Math.exp(-x))), shape: logits.shape };
    }
  }
  const found = tensors.get("lambda");
  if (!found) return undefined;
  return found.shape.length === 0 ? one("lambda") : { data: float32(found), shape: found.shape };
}

function vectorsOf(fixture: Fixture): types.LambdaFullBackwardOptions {
  const [q1, k1, q2, k2] = ["q1", "k1", "q2", "k2"].map((name) => float32(stored(fixture, `lambda_${name}`)));
  return { q1, k1, q2, k2 } as types.LambdaFullBackwardOptions;
}

/** What of λ's parts follows from its own gradient by a line of calculus that no operator is. */
function partsOf(fixture: Fixture, { dlambda }: types.AttentionGradients): Gradients {
  const form = fixture.options["lambda_form"];
  if (!dlambda) return {};
  const scaled = (by: (i: number) => number): Result => ({ data: dlambda.data.map((x, i) => x * by(i)), dtype: "float32" });
  const raw = (name: string) => float32(stored(fixture, name));
  if (form === "scalars") {
    const [a, b] = [raw("lambda_a")[0] ?? NaN, raw("lambda_b")[0] ?? NaN];
    return { dlambda_a: scaled(() => Math.exp(a)), dlambda_b: scaled(() => -Math.exp(b)) };
  }
  if (form !== "sigmoid") return {};
  const logits = raw("lambda_logits");
  const slope = (x: number): number => Math.exp(-Math.abs(x)) / (1 + Math.exp(-Math.abs(x))) ** 2;
  return { dlambdaLogits: scaled((i) => slope(logits[i] ?? NaN)) };
}

const ofVectors = ({ dq1, dk1, dq2, dk2 }: types.LambdaFullGradients): Gradients => ({
  dlambda_q1: dq1,
  dlambda_k1: dk1,
  dlambda_q2: dq2,
  dlambda_k2: dk2,
});

/** The options of a case, which say no place for its result. */
const optionsOf = (fixture: Fixture): Omit<types.DiffAttentionOptions, "out"> & Record<string, unknown> => ({
  ...attentionOptions(fixture),
});

function attention(fixture: Fixture, file: string): Check[] {
  const { options: c, tensors } = fixture;
  const [dy, q, k, v] = ["dy", "q", "k", "v"].map((name) => given(fixture, name)) as [Given, Given, Given, Given];
  const coefficients = tensors.get("coefficients");
  const norm = c["norm"] as types.AttentionNorm | null | undefined;
  const options = (api: Api): types.DiffAttentionBackwardOptions => ({
    ...optionsOf(fixture),
    lambda: lambdaOf(fixture, api),
    coefficients: coefficients && Array.from(float32(coefficients)),
    norm: norm && { ...norm, weight: vector(fixture, "norm_weight") },
    ...(tensors.has("bias") && { needs: [...NEEDS, "lambda", "attnBias", ...(tensors.has("sinks") ? (["sinks"] as const) : [])] }),
  });
  const isOfVectors = c["lambda_form"] === "vectors";
  return checks(fixture, file, {
    names: NAMES,
    async run(api) {
      const gradients = await api.diffAttentionBackward(dy, q, k, v, options(api));
      const { dlambda } = gradients;
      const parts = isOfVectors && dlambda ? ofVectors(await api.lambdaFullBackward(dlambda, vectorsOf(fixture))) : {};
      return { ...gradients, ...parts, ...partsOf(fixture, gradients) };
    },
    runSync(api) {
      const gradients = api.diffAttentionBackwardSync(dy, q, k, v, options(api));
      const { dlambda } = gradients;
      const parts = isOfVectors && dlambda ? ofVectors(api.lambdaFullBackwardSync(dlambda, vectorsOf(fixture))) : {};
      return { ...gradients, ...parts, ...partsOf(fixture, gradients) };
    },
  });
}

type Given = types.TensorLike;
const NEEDS = ["q", "k", "v"] as const;

function rmsNorm(fixture: Fixture, file: string): Check[] {
  const [dy, x] = [given(fixture, "dy"), given(fixture, "x")];
  const { eps, scale } = fixture.options as { eps: number; scale: number | null };
  const options = { weight: vector(fixture, "weight"), eps, scale: scale ?? undefined };
  return checks(fixture, file, {
    run: (api) => api.rmsNormBackward(dy, x, options),
    runSync: (api) => api.rmsNormBackwardSync(dy, x, options),
  });
}

function groupNorm(fixture: Fixture, file: string): Check[] {
  const { options: c } = fixture;
  const [dy, x] = [given(fixture, "dy"), given(fixture, "x")];
  const options: types.GroupNormBackwardOptions = {
    numGroups: c["num_groups"] as number,
    weight: vector(fixture, "weight"),
    bias: vector(fixture, "bias"),
    eps: c["eps"] as number,
    layout: c["layout"] as "nchw" | "nhwc",
    activation: c["activation"] as "silu" | null,
  };
  return checks(fixture, file, {
    run: (api) => api.groupNormBackward(dy, x, options),
    runSync: (api) => api.groupNormBackwardSync(dy, x, options),
  });
}

function rope(fixture: Fixture, file: string): Check[] {
  const { options: c, tensors } = fixture;
  const dy = given(fixture, "dy");
  const positions = tensors.get("positions");
  const options: types.RopeOptions = {
    interleaved: c["interleaved"] as boolean,
    theta: c["theta"] as number,
    firstPosition: c["first_position"] as number | undefined,
    positions: positions && integers(positions),
    rotaryDim: c["rotary_dim"] as number,
  };
  return checks(fixture, file, {
    run: async (api) => ({ dx: await api.applyRopeBackward(dy, options) }),
    runSync: (api) => ({ dx: api.applyRopeBackwardSync(dy, options) }),
  });
}

function sequenceDifference(fixture: Fixture, file: string): Check[] {
  const dy = given(fixture, "dy");
  const options = { order: fixture.options["order"] as number };
  return checks(fixture, file, {
    run: async (api) => ({ dx: await api.sequenceDifferenceBackward(dy, options) }),
    runSync: (api) => ({ dx: api.sequenceDifferenceBackwardSync(dy, options) }),
  });
}

/** Heads that mix in attention over differences: the gradients of both ways, put together. */
function fusedSequence(fixture: Fixture, file: string): Check[] {
  const options = optionsOf(fixture);
  const c = fixture.options as { order: number; fusion: number; share: number };
  const { order } = c;
  const qkv = ["q", "k", "v"].map((name) => given(fixture, name)) as [Given, Given, Given];
  const [, H = 1, L = 1, width = 1] = stored(fixture, "dy").shape;
  const mixed = Math.floor(c.share * H + 0.5);
  const scaled = (of: number, others: number): Given => {
    const { data, shape } = tensor(stored(fixture, "dy"));
    const weight = (i: number): number => (Math.floor(i / (L * width)) % H < mixed ? of : others);
    return { data: (data as Float32Array).map((x, i) => x * weight(i)), shape: shape ?? [] };
  };
  const [plain, differences] = [scaled(1 - c.fusion, 1), scaled(c.fusion, 0)];
  const sum = (a: types.Tensor, b: types.Tensor): Result => ({ data: a.data.map((x, i) => x + (b.data[i] ?? NaN)), dtype: "float32" });
  const names = ["dq", "dk", "dv"] as const;
  return checks(fixture, file, {
    async run(api) {
      const [q, k, v] = (await Promise.all(qkv.map((x) => api.sequenceDifference(x, { order })))) as [Given, Given, Given];
      const a = await api.diffAttentionBackward(plain, ...qkv, options);
      const b = await api.diffAttentionBackward(differences, q, k, v, options);
      const back = await Promise.all(names.map((name) => api.sequenceDifferenceBackward(b[name], { order })));
      return Object.fromEntries(names.map((name, i) => [name, sum(a[name], back[i] as types.Tensor)]));
    },
    runSync(api) {
      const [q, k, v] = qkv.map((x) => api.sequenceDifferenceSync(x, { order })) as Given[] as [Given, Given, Given];
      const a = api.diffAttentionBackwardSync(plain, ...qkv, options);
      const b = api.diffAttentionBackwardSync(differences, q, k, v, options);
      return Object.fromEntries(names.map((name) => [name, sum(a[name], api.sequenceDifferenceBackwardSync(b[name], { order }))]));
    },
  });
}

/** By the `op` of a case. */
export const GRADIENTS: Record<string, (fixture: Fixture, file: string) => Check[]> = {
  diff_attention_backward: attention,
  rms_norm_backward: rmsNorm,
  group_norm_backward: groupNorm,
  rope_backward: rope,
  sequence_difference_backward: sequenceDifference,
  sequence_diff_attention_backward: fusedSequence,
};
