// The audio codec that the benchmark runs: SAME-S's decoder in its real sizes with random weights,
// and what it makes of random latents in float64, by plain loops.
//
//   node bench/codec.mjs       prints the values that cases.json expects
import { realpathSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { fill } from "./subjects/measuring.mjs";

export const CODEC = { architecture: "same_s" };

const [DIM, HEAD, TURNING, DEPTH, LATENT, STRIDE, INNER, PATCH, CHANNELS] = [768, 64, 32, 6, 256, 16, 2304, 256, 2];
const SAMPLE_RATE = 44100;
/** Tokens of a latent, and of a span. */
const [TOKENS, SPAN] = [STRIDE + 1, 2 * (STRIDE + 1)];

/** As models' weights are made (model-files.mjs); without a spread they are ones. */
const SPREAD = Math.fround(0.02 * Math.sqrt(3));

/** Names, shapes and spreads of its tensors. */
export function codecTensors() {
  const block = (i) => {
    const at = (name) => `decoder.blocks.${i}.${name}`;
    const norm = (name, width) => [
      [at(`${name}.alpha`), [1]],
      [at(`${name}.gamma`), [width]],
      [at(`${name}.beta`), [width], SPREAD],
    ];
    return [
      ...norm("pre_norm", DIM),
      [at("attn.to_qkv.weight"), [5 * DIM, DIM], SPREAD],
      [at("attn.to_out.weight"), [DIM, DIM], SPREAD],
      ...norm("attn.q_norm", HEAD),
      ...norm("attn.k_norm", HEAD),
      ...norm("ff_norm", DIM),
      [at("ff.glu_proj.weight"), [2 * INNER, DIM], SPREAD],
      [at("ff.glu_proj.bias"), [2 * INNER], SPREAD],
      [at("ff.proj_out.weight"), [DIM, INNER], SPREAD],
      [at("ff.proj_out.bias"), [DIM], SPREAD],
    ];
  };
  return [
    ["decoder.running_std", [1]],
    ["decoder.new_tokens", [1, 1, DIM], 1],
    ["decoder.project_in.weight", [DIM, LATENT], SPREAD],
    ["decoder.project_in.bias", [DIM], SPREAD],
    ["decoder.mapping.weight", [CHANNELS * PATCH, DIM, 3], SPREAD],
    ["decoder.mapping.bias", [CHANNELS * PATCH], SPREAD],
    ...Array.from({ length: DEPTH }, (_, i) => block(i)).flat(),
  ];
}

/** The latents of a case. */
export const latentsOf = ({ latents }) => ({
  data: fill(new Float32Array(LATENT * latents), 1000),
  shape: [1, LATENT, latents],
});

/** Seconds of audio of so many latents. */
export const secondsOf = ({ latents }) => (latents * STRIDE * PATCH) / SAMPLE_RATE;

/** Rows of x through a map, float64. */
function linear(x, weight, bias, inputs) {
  const outputs = weight.length / inputs;
  const rows = x.length / inputs;
  const y = new Float64Array(rows * outputs);
  for (let row = 0; row < rows; row++)
    for (let o = 0; o < outputs; o++) {
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += x[row * inputs + i] * weight[o * inputs + i];
      y[row * outputs + o] = sum + (bias ? bias[o] : 0);
    }
  return y;
}

/** Attention minus attention within a span, `[SPAN, DIM]`, of rows of q, k, v, q', k'. */
function attend(rows, normed) {
  const y = new Float64Array(SPAN * DIM);
  const turned = (row, part, head, name) => {
    const at = row * 5 * DIM + part * DIM + head * HEAD;
    const x = normed(rows.subarray(at, at + HEAD), name);
    const half = TURNING / 2;
    for (let i = 0; i < half; i++) {
      const angle = (row % SPAN) * 10000 ** (-i / half);
      const [a, b] = [x[i], x[i + half]];
      x[i] = a * Math.cos(angle) - b * Math.sin(angle);
      x[i + half] = b * Math.cos(angle) + a * Math.sin(angle);
    }
    return x;
  };
  const places = Array.from({ length: SPAN }, (_, i) => i);
  for (let head = 0; head < DIM / HEAD; head++)
    for (const [sign, q, k] of [
      [1, 0, 1],
      [-1, 3, 4],
    ]) {
      const queries = places.map((row) => turned(row, q, head, "attn.q_norm"));
      const keys = places.map((row) => turned(row, k, head, "attn.k_norm"));
      for (const row of places) {
        const shares = keys.map((key) => Math.exp(key.reduce((sum, x, i) => sum + x * queries[row][i], 0) / Math.sqrt(HEAD)));
        const sum = shares.reduce((a, b) => a + b);
        for (const [key, share] of shares.entries())
          for (let i = 0; i < HEAD; i++)
            y[row * DIM + head * HEAD + i] += ((sign * share) / sum) * rows[key * 5 * DIM + 2 * DIM + head * HEAD + i];
      }
    }
  return y;
}

/** Whole spans through a block, in place. */
function block(x, of) {
  const normed = (rows, name) => {
    const [[alpha], gamma, beta] = ["alpha", "gamma", "beta"].map((part) => of(`${name}.${part}`));
    return Float64Array.from(rows, (value, i) => gamma[i % gamma.length] * Math.tanh(alpha * value) + beta[i % gamma.length]);
  };
  for (let first = 0; first < x.length; first += SPAN * DIM) {
    const rows = x.subarray(first, first + SPAN * DIM);
    const qkv = linear(normed(rows, "pre_norm"), of("attn.to_qkv.weight"), undefined, DIM);
    linear(attend(qkv, normed), of("attn.to_out.weight"), undefined, DIM).forEach((value, i) => (rows[i] += value));
    const wide = linear(normed(rows, "ff_norm"), of("ff.glu_proj.weight"), of("ff.glu_proj.bias"), DIM);
    const inner = Float64Array.from({ length: SPAN * INNER }, (_, i) => {
      const at = Math.floor(i / INNER) * 2 * INNER + (i % INNER);
      const gate = wide[at + INNER];
      return (wide[at] * gate) / (1 + Math.exp(-gate));
    });
    linear(inner, of("ff.proj_out.weight"), of("ff.proj_out.bias"), INNER).forEach((value, i) => (rows[i] += value));
  }
}

/** What the codec makes of a case's latents, `[2, samples]`, in float64. */
function decoded(test, tensors) {
  const of = (name) => tensors.get(`decoder.${name}`);
  const { data } = latentsOf(test);
  const count = test.latents;
  const rows = Float64Array.from({ length: data.length }, (_, i) => data[(i % LATENT) * count + Math.floor(i / LATENT)]);
  const projected = linear(rows, of("project_in.weight"), of("project_in.bias"), LATENT);
  const half = (SPAN / 2) * DIM;
  const x = new Float64Array(count * TOKENS * DIM + 2 * half);
  const inside = x.subarray(half, x.length - half);
  for (let latent = 0; latent < count; latent++) {
    inside.set(projected.subarray(latent * DIM, (latent + 1) * DIM), latent * TOKENS * DIM);
    for (let token = 1; token < TOKENS; token++) inside.set(of("new_tokens"), (latent * TOKENS + token) * DIM);
  }
  const blockOf = (i) => (name) => of(`blocks.${i}.${name}`);
  for (let i = 0; i < DEPTH / 2; i++) block(inside, blockOf(i));
  x.copyWithin(0, half, 2 * half);
  x.copyWithin(x.length - half, x.length - 2 * half, x.length - half);
  for (let i = DEPTH / 2; i < DEPTH; i++) block(x, blockOf(i));
  const samples = count * STRIDE * PATCH;
  const [weight, bias] = [of("mapping.weight"), of("mapping.bias")];
  // One sample: of which patch, from which three tokens.
  return (at) => {
    const [channel, sample] = [Math.floor(at / samples), at % samples];
    const [patch, output] = [Math.floor(sample / PATCH), channel * PATCH + (sample % PATCH)];
    let sum = bias[output];
    for (let k = 0; k < 3; k++) {
      const other = patch + k - 1;
      if (other < 0 || other >= count * STRIDE) continue;
      const token = Math.floor(other / STRIDE) * TOKENS + 1 + (other % STRIDE);
      for (let i = 0; i < DIM; i++) sum += weight[(output * DIM + i) * 3 + k] * inside[token * DIM + i];
    }
    return sum;
  };
}

async function print() {
  const { cases } = await import("./cases.mjs");
  const { valuesOf } = await import("./model-files.mjs");
  const tensors = new Map(codecTensors().map((tensor, t) => [tensor[0], Float64Array.from(valuesOf(t, tensor))]));
  const test = cases.get("codec-decode");
  const value = decoded(test, tensors);
  console.log(JSON.stringify(test.expected.at.map((at) => Number(value(at).toPrecision(9)))));
}

// (Not awaited here: what it imports waits for this file.)
if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) void print();
