// The cases of cases.json: how much work each is, and which elements of its result are checked.
// bench/rust/src/case.rs counts the same work. Runs nothing.
import { readFileSync } from "node:fs";
import { secondsOf } from "./codec.mjs";
import { BLOCK, liveBlocks } from "./subjects/measuring.mjs";

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));

/** Prompts of real text by name: their ids and the same as text. */
const prompts = read("prompts.json");

/** A case whose prompt is one of those, with both. */
function withPrompt(test) {
  if (typeof test.prompt !== "string") return test;
  const { ids, text } = prompts[test.prompt];
  return { ...test, prompt: ids, text };
}

export const cases = new Map(read("cases.json").map((test) => [test.id, withPrompt(test)]));

const BYTES = 4;
/** Of an element of a cache; with int8 each row has a float32 scale beside. */
const HELD = { float32: 4, float16: 2, bfloat16: 2, int8: 1 };
/** Elements of a result that are checked, about. */
const CHECKED = 4096;

const count = (shape) => shape.reduce((a, b) => a * b, 1);

/** (query, key) pairs that the mask leaves, of one map. */
function pairs({ q, k, causal, window = [null, null], blockMask }) {
  const [rows, keys] = [q[2], k[2]];
  // Such a case has whole blocks and no other mask.
  if (blockMask) return BLOCK * BLOCK * liveBlocks(rows, keys, blockMask).data.reduce((sum, live) => sum + live, 0);
  const right = causal ? 0 : window[1];
  let sum = 0;
  for (let row = 0; row < rows; row++) {
    const position = row + keys - rows;
    const first = window[0] === null ? 0 : Math.max(0, position - window[0]);
    const end = right === null ? keys : Math.min(keys, position + right + 1);
    sum += Math.max(0, end - first);
  }
  return sum;
}

/**
 * How often a pair's products are made: of a query with a key, of a weight with a value. Backward,
 * scores are made anew, for no map is kept, and each product has two gradients.
 */
const FORWARD = { scores: 1, values: 1 };
const BACKWARD = { scores: 3, values: 2 };

/** Multiply-adds of so many pairs of a head's maps, each `d` wide, and values, `dv` wide. */
const attending = ({ scores, values }, maps, d, heads, dv) => scores * maps * d + values * heads * dv;

/** A layer of attention with its gradients: projections, each a product with two gradients. */
function layerFlops({ x: [batch, length, width], heads, headDim: d }) {
  const seen = pairs({ q: [batch, 0, length], k: [batch, 0, length], causal: true });
  const [inner, both] = [2 * heads * d, [FORWARD, BACKWARD]];
  const attention = both.reduce((sum, how) => sum + attending(how, 2 * heads, d, heads, 2 * d), 0);
  return 2 * batch * (3 * length * 4 * width * inner + seen * attention);
}

/** Useful FLOPs of a call. */
export function flops(test) {
  if (test.op === "layer_backward") return layerFlops(test);
  const how = test.op === "attention_backward" ? BACKWARD : FORWARD;
  return 2 * (test.caches ?? 1) * test.q[0] * pairs(test) * attending(how, test.maps, test.q[3], test.out[1], test.out[3]);
}

/** The configuration of a case's model that is a folder of the repository. */
export const configOf = ({ model }) => read(`../${model}/config.json`);

/**
 * FLOPs of a step of training of a diffllama of that configuration whose weights all move: each
 * linear map and the head forward and for two gradients, attention forward and backward. Norms,
 * SwiGLU's activations, the loss and the optimizer are not counted.
 */
export function stepFlops(config, { rows, length }) {
  const { hidden_size: hidden, intermediate_size: inner, num_hidden_layers: layers, vocab_size: vocabulary } = config;
  const { num_attention_heads: heads, num_key_value_heads: groups, head_dim: d } = config;
  const linears = layers * hidden * (2 * heads * d + 2 * groups * d + 3 * inner) + hidden * vocabulary;
  const seen = (length * (length + 1)) / 2;
  const attention = [FORWARD, BACKWARD].reduce((sum, how) => sum + attending(how, heads, d, heads / 2, 2 * d), 0);
  return 2 * rows * (3 * length * linears + seen * layers * attention);
}

/** Arrays as large as x that a norm cannot avoid to move: with gradients that of the result, too. */
const MOVED = { group_norm_backward: 3, rms_norm_backward: 3 };
/** AdamW reads p, g, m and v, and writes p, m and v. */
const MOVED_BY_ADAMW = 7;

/**
 * Bytes that a call cannot avoid to move: a norm's inputs and result, an optimizer's arrays, k and
 * v of all caches, or a model's weights for one token.
 */
export function bytes(test) {
  if (test.weightBytes) return test.weightBytes;
  if (test.op === "adamw") return BYTES * MOVED_BY_ADAMW * test.count;
  if (test.x) return BYTES * (MOVED[test.op] ?? 2) * count(test.x);
  const dtype = test.cacheDtype ?? "float32";
  const of = (shape) => count(shape) * (HELD[dtype] + (dtype === "int8" ? BYTES / shape.at(-1) : 0));
  return (test.caches ?? 1) * (of(test.k) + of(test.v));
}

/**
 * What a case's rate counts. Of a model's prompt that is tokens, of a codec seconds of audio; a
 * decoded token reads all weights once.
 */
export function work(test) {
  if (["attention", "attention_backward", "layer_backward"].includes(test.op)) return { amount: flops(test), unit: "FLOP" };
  if (test.op === "model_train") return { amount: test.rows * test.length, unit: "token" };
  if (test.op === "codec_decode") return { amount: secondsOf(test), unit: "second" };
  if (test.op === "model_prefill") return { amount: test.prompt.length ?? test.prompt, unit: "token" };
  return { amount: bytes(test), unit: "B" };
}

/**
 * What a model's case expects, computed in float64: the first ids that follow the prompt, or logits
 * of its last token at some indices.
 */
export const expectedOf = ({ greedy, expected }) => greedy ?? expected?.values;

/** Results of an op that has several, by name: their shapes. */
const RESULTS = {
  attention_backward: ({ q, k, v }) => ({ dq: q, dk: k, dv: v }),
  group_norm_backward(test) {
    const channels = [test.layout === "nhwc" ? test.x.at(-1) : test.x[1]];
    return { dx: test.x, dweight: channels, dbias: channels };
  },
  rms_norm_backward: ({ x }) => ({ dx: x, dweight: x.slice(-1) }),
  layer_backward({ x, heads, headDim }) {
    const [width, inner] = [x.at(-1), 2 * heads * headDim];
    const into = Object.fromEntries(["q", "k", "v"].map((name) => [`${name}_proj.weight`, [inner, width]]));
    return { dx: x, ...into, "o_proj.weight": [width, inner], "subln.weight": [2 * headDim] };
  },
  adamw: ({ count: length }) => ({ parameters: [length], first_moments: [length], second_moments: [length] }),
};

/**
 * Flat indices of whole rows, spread from the first to the last, of about CHECKED elements; of one
 * axis of elements.
 */
function rowsOf(shape) {
  const width = shape.length > 1 ? shape.at(-1) : 1;
  const rows = count(shape) / width;
  const wanted = Math.min(rows, Math.ceil(CHECKED / width));
  return Array.from({ length: wanted }, (_, i) => (wanted > 1 ? Math.floor((i * (rows - 1)) / (wanted - 1)) : 0)).flatMap((row) =>
    Array.from({ length: width }, (_, column) => row * width + column),
  );
}

/**
 * What is checked of an answer, `{ at }` or, of each of several results, `{ of: NAME, at }`: flat
 * indices of whole rows; of models of the ids that are expected, or of some logits.
 */
export function checked(test) {
  const { op, out, greedy, expected } = test;
  const several = RESULTS[op]?.(test);
  if (several) return Object.entries(several).map(([of, shape]) => ({ of, at: rowsOf(shape) }));
  return [{ at: out ? rowsOf(out) : (expected?.at ?? greedy.map((_, i) => i)) }];
}
