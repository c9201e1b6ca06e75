// Random calls that are right, of every operator and layer, and what they must give: float64 loops
// written from the formulas. Shapes are small, around the edges of tiles. Nothing here is hostile.

import { api } from "./package.mjs";

/** The oracle's helpers, once a value is to be checked. */
const suite = () => import("./suite.mjs");

const WIDTHS = [1, 2, 3, 7, 8, 15, 16, 17, 32, 33];
const LENGTHS = [1, 2, 3, 7, 8, 9, 12, 13, 16, 17, 33, 48];
/** Around the edges of a block mask's blocks. */
const BLOCK = 64;
const LONGER = [63, 64, 65, 100];

const largest = (data) => data.reduce((a, x) => Math.max(a, Math.abs(x)), 0);

const CALL = ["signal", "onProgress", "transfer"];
const ATTENTION =
  "lambda coefficients pairing heads ratio kvRepeat layout scale isCausal softcap window attnMask attnBias keyLengths queryOffset cuSeqlensQ cuSeqlensK deterministic sinks blockMask".split(
    " ",
  );

/** Logits of nothing: of a head, or of each of its two terms; some are none. */
function sinksOf(random, H) {
  const sinks = random.oneIn(2) ? random.floats(H) : random.tensor(H, 2);
  if (random.oneIn(3)) (sinks.data ?? sinks)[0] = -Infinity;
  return sinks;
}

/** A mask of bytes in which about two of three places are seen. */
function maskOf(random, shape) {
  const data = Uint8Array.from({ length: shape.reduce((a, b) => a * b) }, () => (random.oneIn(3) ? 0 : random.integer(1, 255)));
  return { data, shape };
}

/** Options of two terms, interleaved, as the reference knows them. */
function attentionOptions(random, { B, H, Lq, Lk }) {
  const maybe = (of, value) => (random.oneIn(of) ? value() : undefined);
  const broadcast = () => [random.oneIn(2) ? B : 1, random.oneIn(2) ? H : 1, random.oneIn(2) ? Lq : 1, Lk];
  const lambda = random.pick([() => 0.4, () => random.floats(H), () => random.tensor(B, Lq, H), () => random.tensor(1, 1, H)]);
  const given = {
    ...(random.oneIn(6) ? { coefficients: [1, -0.5] } : { lambda: lambda() }),
    scale: maybe(4, () => 0.3),
    isCausal: maybe(2, () => true),
    softcap: maybe(5, () => 4),
    window: maybe(5, () => [random.integer(0, 20), random.oneIn(2) ? null : random.integer(0, 9)]),
    queryOffset: maybe(5, () => random.integer(-5, 30)),
    keyLengths: maybe(5, () => Array.from({ length: B }, () => random.integer(0, Lk))),
    deterministic: maybe(5, () => true),
    attnMask: maybe(4, () => maskOf(random, broadcast())),
    attnBias: maybe(4, () => random.tensor(...broadcast())),
    sinks: maybe(4, () => sinksOf(random, H)),
    blockMask: maybe(4, () => {
      const [heads, queries, keys] = [random.oneIn(2) ? H : 1, Math.ceil(Lq / BLOCK), Math.ceil(Lk / BLOCK)];
      return maskOf(random, [random.oneIn(2) ? B : 1, heads, queries, keys]);
    }),
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function sizes(random) {
  const G = random.integer(1, 2);
  const length = () => random.pick(random.oneIn(6) ? LONGER : LENGTHS);
  return {
    B: random.integer(1, 2),
    G,
    H: G * random.integer(1, 2),
    Lq: length(),
    Lk: length(),
    d: random.pick(WIDTHS),
    dv: random.pick(WIDTHS),
  };
}

/**
 * Other head layouts than the reference's, and packed sequences: calls that are right, of values
 * that are not checked here.
 */
function otherAttention(random, { B, G, H, Lq, Lk, d, dv }) {
  const pairing = random.pick(["halves", "grouped", "shared", "packed"]);
  if (pairing === "packed") {
    const cu = (n) => Int32Array.from([0, random.integer(0, n), n]);
    const sinks = random.oneIn(2) ? sinksOf(random, H) : undefined;
    const options = { lambda: 0.4, cuSeqlensQ: cu(Lq), cuSeqlensK: cu(Lk), isCausal: random.oneIn(2), sinks };
    return [random.tensor(1, 2 * H, Lq, d), random.tensor(1, 2 * G, Lk, d), random.tensor(1, G, Lk, dv), options];
  }
  const [nk, nv] = { halves: [2 * G, 2 * G], grouped: [2 * G, G], shared: [G, G] }[pairing];
  return [
    random.tensor(B, 2 * H, Lq, d),
    random.tensor(B, nk, Lk, d),
    random.tensor(B, nv, Lk, dv),
    { lambda: 0.4, pairing, isCausal: true },
  ];
}

/** Values that a result's must be near: `{ result → values, expected, bound }`. */
const near = (expected, bound, of = (result) => result) => ({ expected, bound, of });

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

function groupNorm(random) {
  const [N, groups, per, inner] = [random.integer(1, 2), random.integer(1, 4), random.integer(1, 5), random.pick(LENGTHS)];
  const C = groups * per;
  const nhwc = random.oneIn(2);
  const x = nhwc ? random.tensor(N, inner, C) : random.tensor(N, C, inner);
  const weight = random.oneIn(2) ? random.floats(C) : undefined;
  const bias = random.oneIn(2) ? random.floats(C) : undefined;
  const silu = random.oneIn(3);
  const at = (n, c, i) => (nhwc ? (n * inner + i) * C + c : (n * C + c) * inner + i);
  const check = () => {
    const expected = new Float64Array(x.data.length);
    for (let n = 0; n < N; n++) {
      for (let g = 0; g < groups; g++) {
        const places = [];
        for (let c = g * per; c < (g + 1) * per; c++) for (let i = 0; i < inner; i++) places.push([at(n, c, i), c]);
        const mean = places.reduce((sum, [place]) => sum + x.data[place], 0) / places.length;
        const variance = places.reduce((sum, [place]) => sum + (x.data[place] - mean) ** 2, 0) / places.length;
        for (const [place, c] of places) {
          const y = ((x.data[place] - mean) / Math.sqrt(variance + 1e-5)) * (weight?.[c] ?? 1) + (bias?.[c] ?? 0);
          expected[place] = silu ? y * sigmoid(y) : y;
        }
      }
    }
    return near(expected, 4e-6 * Math.max(1, largest(expected)));
  };
  const layout = nhwc ? "nhwc" : "nchw";
  return { args: [x, { numGroups: groups, layout, weight, bias, ...(silu && { activation: "silu" }) }], check };
}

function rmsNorm(random) {
  const width = random.pick(WIDTHS);
  const x = random.tensor(random.integer(1, 3), random.pick(LENGTHS), width);
  const weight = random.oneIn(2) ? random.floats(width) : undefined;
  const check = () => {
    const expected = Float64Array.from(x.data, (value, at) => {
      const row = x.data.subarray(at - (at % width), at - (at % width) + width);
      const square = row.reduce((sum, v) => sum + v * v, 0) / width;
      return (value / Math.sqrt(square + 1e-5)) * (weight?.[at % width] ?? 1) * 0.5;
    });
    return near(expected, 4e-6 * Math.max(1, largest(expected)));
  };
  return { args: [x, { weight, scale: 0.5 }], check };
}

function applyRope(random) {
  const [B, heads, L, pairs] = [random.integer(1, 2), random.integer(1, 3), random.pick(LENGTHS), random.pick([1, 2, 4, 8, 9, 16])];
  const width = 2 * pairs;
  const x = random.tensor(B, heads, L, width);
  const firstPosition = random.integer(0, 2000);
  const interleaved = random.oneIn(2);
  const check = () => {
    const expected = new Float64Array(x.data.length);
    for (let row = 0; row < B * heads * L; row++) {
      for (let i = 0; i < pairs; i++) {
        const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, i + pairs];
        const angle = (firstPosition + (row % L)) * 10000 ** ((-2 * i) / width);
        const [p, q] = [x.data[row * width + a], x.data[row * width + b]];
        expected[row * width + a] = p * Math.cos(angle) - q * Math.sin(angle);
        expected[row * width + b] = p * Math.sin(angle) + q * Math.cos(angle);
      }
    }
    return near(expected, 4e-6 * Math.max(1, largest(x.data)));
  };
  return { args: [x, { firstPosition, interleaved }], check };
}

function sequenceDifference(random) {
  const [B, heads, L, width] = [random.integer(1, 2), random.integer(1, 3), random.pick(LENGTHS), random.pick(WIDTHS)];
  const x = random.tensor(B, heads, L, width);
  const order = random.integer(0, 3);
  const check = () => {
    let now = Float64Array.from(x.data);
    for (let n = 0; n < order; n++) now = now.map((value, at) => value - (Math.floor(at / width) % L === 0 ? 0 : now[at - width]));
    return near(now, 1e-5 * Math.max(1, largest(x.data)));
  };
  return { args: [x, { order }], check };
}

function diffAttention(random) {
  const size = sizes(random);
  if (random.oneIn(4)) return { args: otherAttention(random, size) };
  const { B, G, H, Lq, Lk, d, dv } = size;
  const args = [random.tensor(B, 2 * H, Lq, d), random.tensor(B, 2 * G, Lk, d), random.tensor(B, G, Lk, dv)];
  const options = attentionOptions(random, size);
  // (With a large eps: a norm of a small row would show its errors many times as large.)
  if (random.oneIn(4)) options.norm = { eps: 0.05, weight: random.floats(dv) };
  const check = async () =>
    near((await suite()).attentionFloat64(...args, options), (options.norm ? 5e-5 : 5e-6) * Math.max(1, largest(args[2].data)));
  return { args: [...args, options], check };
}

function diffAttentionMaps(random) {
  const size = sizes(random);
  const { B, G, H, Lq, Lk, d } = size;
  const [q, k] = [random.tensor(B, 2 * H, Lq, d), random.tensor(B, 2 * G, Lk, d)];
  const options = attentionOptions(random, size);
  const check = async () => {
    const { attentionFloat64 } = await suite();
    // What attention gives where each key's value is its own unit vector.
    const data = new Float32Array(B * G * Lk * Lk);
    for (let at = 0; at < B * G * Lk; at++) data[at * Lk + (at % Lk)] = 1;
    return near(attentionFloat64(q, k, { data, shape: [B, G, Lk, Lk] }, options), 5e-6, ({ diff }) => diff);
  };
  return { args: [q, k, options], check };
}

/** Every operator: its random calls, and all names of its options. */
export const operators = {
  diffAttention: { make: diffAttention, names: [...ATTENTION, "norm", "returnLse", "returnPreNorm", "out", ...CALL] },
  diffAttentionMaps: { make: diffAttentionMaps, names: [...ATTENTION, "numKvHeads", "rows", ...CALL] },
  groupNorm: { make: groupNorm, names: ["numGroups", "weight", "bias", "eps", "layout", "activation", "out", ...CALL] },
  rmsNorm: { make: rmsNorm, names: ["weight", "eps", "scale", "out", ...CALL] },
  applyRope: {
    make: applyRope,
    names: ["layout", "interleaved", "theta", "firstPosition", "positions", "rotaryDim", "scaling", "out", ...CALL],
  },
  sequenceDifference: { make: sequenceDifference, names: ["order", "layout", "out", ...CALL] },
};

/** Options of a small layer that is right. */
export function layerOptions(random, isSecond = false) {
  const [embedDim, numHeads, headDim] = [16, 2, 4];
  const matrix = (rows, columns) => random.tensor(rows, columns);
  const weights = isSecond
    ? {
        "q_proj.weight": matrix(2 * numHeads * headDim, embedDim),
        "k_proj.weight": matrix(numHeads * headDim, embedDim),
        "v_proj.weight": matrix(numHeads * headDim, embedDim),
        "o_proj.weight": matrix(embedDim, numHeads * headDim),
        "lambda_proj.weight": matrix(numHeads, embedDim),
      }
    : {
        "q_proj.weight": matrix(16, embedDim),
        "k_proj.weight": matrix(16, embedDim),
        "v_proj.weight": matrix(16, embedDim),
        "out_proj.weight": matrix(embedDim, 16),
        ...Object.fromEntries(["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"].map((name) => [name, random.floats(4)])),
      };
  return isSecond ? { embedDim, numHeads, headDim, weights } : { embedDim, depth: 1, numHeads, weights };
}

/** Why a result's values are wrong; undefined where they are right. */
async function wrongIn(result, { expected, bound, of }) {
  const { values } = await suite();
  const got = values(of(result));
  if (got.length !== expected.length) return `${got.length} elements, not ${expected.length}`;
  for (let i = 0; i < got.length; i++)
    if (!(Math.abs(got[i] - expected[i]) <= bound)) return `element ${i} is ${got[i]}, not ${expected[i]}`;
  return undefined;
}

/** Makes one random call that is right, in both forms; says what is wrong of it. */
export async function checkedCall(random) {
  const name = random.pick(Object.keys(operators));
  const { args, check } = operators[name].make(random);
  try {
    const isAsync = random.oneIn(2);
    const result = isAsync ? await api[name](...args) : api[`${name}Sync`](...args);
    const wrong = check && (await wrongIn(result, await check()));
    return wrong && `${name}${isAsync ? "" : "Sync"}: ${wrong}`;
  } catch (error) {
    return `${name}: a call that is right is refused: ${error.message}`;
  }
}
