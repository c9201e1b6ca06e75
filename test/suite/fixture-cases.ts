// What the public API must return for each reference case: one check per expected tensor. Runs in
// Node and in browsers alike.

import type * as types from "../../packages/diffattn/src/types.js";
import { attentionOptions, check, type Check, given, relative, type Result, vector } from "./case-parts.js";
import { type Bound, largest } from "./compare.js";
import { GRADIENTS } from "./gradient-cases.js";
import { layer, layerGradients } from "./layer-cases.js";
import { type Fixture, float32, float64, stored } from "./safetensors.js";

/** The same, plus half a unit of the last place of a half type. */
function rounded(expected: Float64Array, dtype: types.DType): Bound {
  const base = relative(expected);
  const unit = { float32: 0, float16: 2 ** -11, bfloat16: 2 ** -8 }[dtype];
  return (want, i) => base(want, i) + unit * Math.abs(want);
}

function attention(fixture: Fixture): Check[] {
  const [q, k, v] = [given(fixture, "q"), given(fixture, "k"), given(fixture, "v")];
  const options = attentionOptions(fixture);
  const norm = fixture.options["norm"] as types.AttentionNorm | undefined;
  const normed = { ...options, norm: { ...norm, weight: vector(fixture, "norm_weight") } };
  const checks: Check[] = [];
  for (const [name, options_] of [
    ["out", options],
    ["out_normed", normed],
  ] as const) {
    const found = fixture.tensors.get(`expected.${name}`);
    if (!found) continue;
    const expected = float64(found);
    const bound = fixture.options["lambda"] === 1 ? cancelled(fixture, name, v) : rounded(expected, q.dtype ?? "float32");
    checks.push(
      check(
        name,
        expected,
        bound,
        (api) => api.diffAttention(q, k, v, options_),
        (api) => api.diffAttentionSync(q, k, v, options_),
      ),
    );
  }
  const lse = fixture.tensors.get("expected.lse");
  if (lse) {
    const expected = float64(lse);
    const asked = { ...options, returnLse: true } as const;
    checks.push(
      check(
        "lse",
        expected,
        () => 2e-6 * Math.max(largest(expected), 8),
        async (api) => (await api.diffAttention(q, k, v, asked)).lse,
        (api) => api.diffAttentionSync(q, k, v, asked).lse,
      ),
    );
  }
  const maps: [string, (maps: types.AttentionMaps) => types.Tensor | undefined][] = [
    ["map1", (maps) => maps.map1],
    ["map2", (maps) => maps.map2],
    ["diff_map", (maps) => maps.diff],
  ];
  for (const [name, pick] of maps) {
    const found = fixture.tensors.get(`expected.${name}`);
    if (!found) continue;
    const expected = float64(found);
    const picked = (maps: types.AttentionMaps): Result => {
      const map = pick(maps);
      if (!map) throw new Error(`the call gave no ${name}`);
      return map;
    };
    checks.push(
      check(
        name,
        expected,
        relative(expected),
        async (api) => picked(await api.diffAttentionMaps(q, k, options)),
        (api) => picked(api.diffAttentionMapsSync(q, k, options)),
      ),
    );
  }
  return checks;
}

/**
 * With λ = 1 the maps cancel, and a result holds the roundings of what it came from: 2⁻²⁵ of the
 * largest v, times what the norm multiplies a small row by.
 */
function cancelled({ options, tensors }: Fixture, name: string, v: types.TensorLike): Bound {
  const { eps = 1e-5, scale = 1 } = (options["norm"] as types.AttentionNorm | undefined) ?? {};
  const weight = tensors.get("norm_weight");
  const gain = name === "out_normed" ? ((weight ? largest(float32(weight)) : 1) * scale) / Math.sqrt(eps) : 1;
  const base = relative(float64(stored({ options, tensors }, `expected.${name}`)));
  return (want, i) => gain * 2 ** -25 * largest(v.data) + base(want, i);
}

function groupNorm(fixture: Fixture): Check[] {
  const { options: c } = fixture;
  const x = given(fixture, "x");
  const layout = c["layout"] as "nchw" | "nhwc";
  const options: types.GroupNormOptions = {
    numGroups: c["num_groups"] as number,
    weight: vector(fixture, "weight"),
    bias: vector(fixture, "bias"),
    eps: c["eps"] as number,
    layout,
    activation: c["activation"] as "silu" | null,
  };
  const expected = float64(stored(fixture, "expected.y"));
  const { shape } = stored(fixture, "x");
  const [N = 1, second = 1] = shape;
  const channels = layout === "nchw" ? second : (shape.at(-1) ?? 1);
  const inner = layout === "nchw" ? expected.length / (N * channels) : 1;
  // The bound of the numeric contract; SiLU's slope is at most 1.1.
  const bound: Bound = (want, i) => {
    const channel = Math.floor(i / inner) % channels;
    const weight = Math.abs(vector(fixture, "weight")?.[channel] ?? 1);
    const bias = vector(fixture, "bias")?.[channel] ?? 0;
    if (c["activation"] === "silu") return 1.1 * 5e-7 * (weight * 4 + Math.abs(bias) + Math.abs(want));
    const normalised = weight > 0 ? Math.abs(want - bias) / weight : 0;
    return 5e-7 * (weight * Math.max(1, normalised) + Math.abs(bias));
  };
  return [
    check(
      "y",
      expected,
      bound,
      (api) => api.groupNorm(x, options),
      (api) => api.groupNormSync(x, options),
    ),
  ];
}

function rmsNorm(fixture: Fixture): Check[] {
  const x = given(fixture, "x");
  const weight = vector(fixture, "weight");
  const options: types.RmsNormOptions = { weight, eps: fixture.options["eps"] as number };
  const expected = float64(stored(fixture, "expected.y"));
  const width = stored(fixture, "x").shape.at(-1) ?? 1;
  const bound: Bound = (want, i) => 5e-7 * Math.max(Math.abs(weight?.[i % width] ?? 1), Math.abs(want));
  return [
    check(
      "y",
      expected,
      bound,
      (api) => api.rmsNorm(x, options),
      (api) => api.rmsNormSync(x, options),
    ),
  ];
}

function rope(fixture: Fixture): Check[] {
  const { options: c } = fixture;
  const x = given(fixture, "x");
  const options: types.RopeOptions = {
    interleaved: c["interleaved"] as boolean,
    theta: c["theta"] as number,
    firstPosition: c["first_position"] as number,
    rotaryDim: c["rotary_dim"] as number,
    scaling: c["scaling"] as types.RopeScaling | undefined,
  };
  const expected = float64(stored(fixture, "expected.y"));
  // Scaled frequencies are float32 in the reference, as its README says.
  const bound: Bound = c["scaling"] ? (want) => 3e-5 * Math.abs(want) + 1e-4 : relative(expected);
  return [
    check(
      "y",
      expected,
      bound,
      (api) => api.applyRope(x, options),
      (api) => api.applyRopeSync(x, options),
    ),
  ];
}

function sequenceDifference(fixture: Fixture): Check[] {
  const x = given(fixture, "x");
  const options: types.SequenceDifferenceOptions = { order: fixture.options["order"] as number };
  const expected = float64(stored(fixture, "expected.y"));
  return [
    check(
      "y",
      expected,
      relative(expected),
      (api) => api.sequenceDifference(x, options),
      (api) => api.sequenceDifferenceSync(x, options),
    ),
  ];
}

/** Heads that mix in attention over differences, put together from the operators. */
function fusedSequence(fixture: Fixture): Check[] {
  const { options: c } = fixture;
  const options = attentionOptions(fixture);
  const order = c["order"] as number;
  const fusion = c["fusion"] as number;
  const [q, k, v] = [given(fixture, "q"), given(fixture, "k"), given(fixture, "v")];
  const out = stored(fixture, "expected.out");
  const [, H = 1, L = 1, width = 1] = out.shape;
  const mixed = Math.floor((c["share"] as number) * H + 0.5);
  const mix = (plain: Result, differences: Result): Result => {
    const data = Float32Array.from(plain.data as Float32Array, (value, i) =>
      Math.floor(i / (L * width)) % H < mixed ? (1 - fusion) * value + fusion * ((differences.data as Float32Array)[i] ?? NaN) : value,
    );
    return { data, dtype: "float32" };
  };
  const expected = float64(out);
  return [
    check(
      "out",
      expected,
      relative(expected),
      async (api) => {
        const [dq, dk, dv] = await Promise.all([q, k, v].map((x) => api.sequenceDifference(x, { order })));
        return mix(
          await api.diffAttention(q, k, v, options),
          await api.diffAttention(dq as types.Tensor, dk as types.Tensor, dv as types.Tensor, options),
        );
      },
      (api) => {
        const [dq, dk, dv] = [q, k, v].map((x) => api.sequenceDifferenceSync(x, { order })) as [types.Tensor, types.Tensor, types.Tensor];
        return mix(api.diffAttentionSync(q, k, v, options), api.diffAttentionSync(dq, dk, dv, options));
      },
    ),
  ];
}

const OPERATORS: Record<string, (fixture: Fixture) => Check[]> = {
  diff_attention: attention,
  group_norm: groupNorm,
  rms_norm: rmsNorm,
  rope,
  sequence_difference: sequenceDifference,
  sequence_diff_attention: fusedSequence,
  MultiheadDiffAttn: layer,
  MultiheadDiffAttnV2: layer,
  GroupedDiffAttn: layer,
};

/** Every check of a case; `file`: what it is called. */
export function checksOf(fixture: Fixture, file: string): Check[] {
  const op = String(fixture.options["op"]);
  // A case of an operator may have gradients, too.
  const gradients =
    fixture.tensors.has("expected.dx") && OPERATORS[op] === layer
      ? layerGradients
      : GRADIENTS[fixture.tensors.has("dy") && op in OPERATORS ? `${op}_backward` : op];
  const checks = [...(OPERATORS[op]?.(fixture) ?? []), ...(gradients?.(fixture, file) ?? [])];
  if (checks.length === 0) throw new Error(`nothing is known of a case of ${op}`);
  return checks;
}
