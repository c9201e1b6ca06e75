// A layer of attention with its gradients, as jax-js runs it best: weights with inputs first, the
// two maps' q and k projections apart, everything by one compiled function. Measures nothing.
import { EPS, LAMBDA, made, maskOf } from "./inputs.mjs";

/** Projections are their tensors' values times this. */
const PROJECTION = 1 / 16;
/** Numbers of the tensors of a layer. */
const TENSORS = { x: 0, q: 1, k: 2, v: 3, o: 4, norm: 5, dy: 6 };

/** A matrix of columns `columns` of `data` transposed: [inputs, columns.length]. */
function columnsOf(data, inputs, columns) {
  const out = new Float32Array(inputs * columns.length);
  for (let i = 0; i < inputs; i++) for (const [j, column] of columns.entries()) out[i * columns.length + j] = data[column * inputs + i];
  return { data: out, dims: [inputs, columns.length] };
}

/** The same back: adds what is [inputs, columns.length] to the rows `columns` of `to`. */
function rowsInto(to, from, inputs, columns) {
  for (let i = 0; i < inputs; i++) for (const [j, column] of columns.entries()) to[column * inputs + i] = from[i * columns.length + j];
  return to;
}

/**
 * `{ run, values }` of a case: `run()` gives the gradients by short names, `values(result, of)`
 * one of them under the name and in the order that the package has, and disposes of nothing.
 */
export function layer(jax, test) {
  const { numpy: np } = jax;
  const { x: shape, heads, headDim: d } = test;
  const [batch, length, width] = shape;
  const inner = 2 * heads * d;
  const range = (n, of) => Array.from({ length: n }, (_, i) => of(i));
  /** Rows of q's and k's projections that map number `map` has, head by head. */
  const ofMap = (map) => range(heads * d, (i) => (2 * Math.floor(i / d) + map) * d + (i % d));
  const all = (n) => range(n, (i) => i);
  const projection = (t, rows, columns) => made([rows, columns], t).map((value) => value * PROJECTION);
  const [q, k] = [TENSORS.q, TENSORS.k].map((t) => projection(t, inner, width));
  const weights = {
    q0: columnsOf(q, width, ofMap(0)),
    q1: columnsOf(q, width, ofMap(1)),
    k0: columnsOf(k, width, ofMap(0)),
    k1: columnsOf(k, width, ofMap(1)),
    v: columnsOf(projection(TENSORS.v, inner, width), width, all(inner)),
    o: columnsOf(projection(TENSORS.o, width, inner), inner, all(width)),
    norm: { data: made([2 * d], TENSORS.norm), dims: [2 * d] },
  };
  const split = (x, n, m) => x.reshape([batch, length, n, m]).transpose([0, 2, 1, 3]);
  const map = (x, q, k, mask) => {
    const scores = np.matmul(split(np.matmul(x.ref, q), heads, d), np.swapaxes(split(np.matmul(x, k), heads, d), -1, -2));
    return jax.nn.softmax(scores.mul(d ** -0.5).add(mask), -1);
  };
  /** Σ y·dy, whose gradients are those of y for dy. */
  const loss = (x, q0, q1, k0, k1, v, o, norm, mask, dy) => {
    const difference = map(x.ref, q0, k0, mask.ref).sub(map(x.ref, q1, k1, mask).mul(LAMBDA));
    const rows = np.matmul(difference, split(np.matmul(x, v), heads, 2 * d));
    const root = np.sqrt(np.mean(np.square(rows.ref), -1, { keepdims: true }).add(EPS));
    const normed = rows.div(root).mul(norm.mul(1 - LAMBDA));
    const y = np.matmul(normed.transpose([0, 2, 1, 3]).reshape([batch, length, inner]), o);
    return np.sum(y.mul(dy));
  };
  const tensor = ({ data, dims }) => np.array(data, { shape: dims, dtype: np.float32 });
  const whole = (t) => ({ data: made(shape, t), dims: shape });
  const moving = [whole(TENSORS.x), ...Object.values(weights)];
  const inputs = [...moving, maskOf({ q: [0, 0, length], k: [0, 0, length], causal: true }), whole(TENSORS.dy)].map(tensor);
  const names = ["x", ...Object.keys(weights)];
  const compiled = jax.jit(jax.valueAndGrad(loss, { argnums: names.map((_, i) => i) }));
  const run = () => {
    const [value, gradients] = compiled(...inputs.map((input) => input.ref));
    value.dispose();
    return Object.fromEntries(names.map((name, i) => [name, gradients[i]]));
  };

  const read = (array) => array.ref.dataSync();
  const ofMaps = (first, second) => {
    const to = rowsInto(new Float32Array(inner * width), read(first), width, ofMap(0));
    return rowsInto(to, read(second), width, ofMap(1));
  };
  const values = (result, of) => {
    if (of === "dx") return read(result.x);
    if (of === "subln.weight") return read(result.norm);
    if (of === "q_proj.weight") return ofMaps(result.q0, result.q1);
    if (of === "k_proj.weight") return ofMaps(result.k0, result.k1);
    if (of === "v_proj.weight") return rowsInto(new Float32Array(inner * width), read(result.v), width, all(inner));
    return rowsInto(new Float32Array(inner * width), read(result.o), inner, all(width));
  };
  return { run, values };
}
