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

/** Useful FLOPs of a call. */
export function flops(test) {
  return 2 * (test.caches ?? 1) * test.q[0] * pairs(test) * (test.maps * test.q[3] + test.out[1] * test.out[3]);
}

/**
 * Bytes that a call cannot avoid to move: a norm's input and result, k and v of all caches, or a
 * model's weights for one token.
 */
export function bytes(test) {
  if (test.weightBytes) return test.weightBytes;
  if (test.x) return BYTES * 2 * count(test.x);
  const dtype = test.cacheDtype ?? "float32";
  const of = (shape) => count(shape) * (HELD[dtype] + (dtype === "int8" ? BYTES / shape.at(-1) : 0));
  return (test.caches ?? 1) * (of(test.k) + of(test.v));
}

/**
 * What a case's rate counts. Of a model's prompt that is tokens, of a codec seconds of audio; a
 * decoded token reads all weights once.
 */
export function work(test) {
  if (test.op === "attention") return { amount: flops(test), unit: "FLOP" };
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

/**
 * Flat indices of the result that are checked: whole rows, spread from the first to the last; of
 * models the ids that are expected, or some logits.
 */
export function checkedElements({ out, greedy, expected }) {
  if (!out) return expected?.at ?? greedy.map((_, i) => i);
  const width = out.at(-1);
  const rows = count(out) / width;
  const wanted = Math.min(rows, Math.ceil(CHECKED / width));
  return Array.from({ length: wanted }, (_, i) => (wanted > 1 ? Math.floor((i * (rows - 1)) / (wanted - 1)) : 0)).flatMap((row) =>
    Array.from({ length: width }, (_, column) => row * width + column),
  );
}
