// The inputs of a case as the JavaScript peers want them: the two maps' q and k heads apart, a
// causal mask as numbers. Only for the cases that a peer has operators for: attention of one k head
// for each q head, without a window, and the norms.
import { fill } from "./measuring.mjs";

export const LAMBDA = 0.35;
export const EPS = 1e-5;

/** The entry of `variants` (op → name → form) for a case; empty where no peer has a form for it. */
export function formsOf(variants, test) {
  if (test.op === "attention" && (test.pairing !== "interleaved" || test.q[1] !== test.k[1] || test.window)) return {};
  return variants[test.op] ?? {};
}

/** Tensor number `t` of the inputs. */
export const made = (dims, t) => fill(new Float32Array(dims.reduce((a, b) => a * b, 1)), t);

/** Every `every`-th head of a bhsd tensor from head `first` on, laid out as bhsd or as bs(hd). */
function part(data, [b, h, s, d], layout, first = 0, every = 1) {
  const heads = Math.ceil((h - first) / every);
  const out = new Float32Array(b * heads * s * d);
  for (let i = 0; i < b; i++)
    for (let j = 0; j < heads; j++)
      for (let row = 0; row < s; row++) {
        const from = ((i * h + first + j * every) * s + row) * d;
        const to = layout === "bhsd" ? ((i * heads + j) * s + row) * d : ((i * s + row) * heads + j) * d;
        out.set(data.subarray(from, from + d), to);
      }
  return { data: out, dims: layout === "bhsd" ? [b, heads, s, d] : [b, s, heads * d] };
}

/**
 * q0 k0 q1 k1, the heads of each map as interleaved pairing has them, and v: data and dims of each.
 */
export function attentionInputs({ q, k, v }, layout = "bhsd") {
  const [qs, ks] = [made(q, 0), made(k, 1)];
  const inputs = { v: part(made(v, 2), v, layout) };
  for (const first of [0, 1]) {
    inputs[`q${first}`] = part(qs, q, layout, first, 2);
    inputs[`k${first}`] = part(ks, k, layout, first, 2);
  }
  return inputs;
}

/** What is added to the scores: -∞ where a query does not see a key. */
export function maskOf({ q, k, causal }) {
  const [rows, columns] = [q[2], k[2]];
  const data = new Float32Array(rows * columns);
  if (causal) for (let i = 0; i < rows; i++) data.fill(-Infinity, i * columns + Math.max(0, i + columns - rows + 1), (i + 1) * columns);
  return { data, dims: [rows, columns] };
}
