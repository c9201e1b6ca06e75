// A subject: jax-js on its WebAssembly backend, compiled by its jit. One thread: its workers are a
// browser's. Inputs are made once, the two maps' q and k heads apart. Its own dotProductAttention
// wants v as wide as q and makes the same matrices, so attention is written out.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { attentionInputs, EPS, formsOf, LAMBDA, made, maskOf } from "./inputs.mjs";
import { layer } from "./jax-layer.mjs";
import { pick, timed } from "./measuring.mjs";
import { serve } from "./protocol.mjs";

const require = createRequire(new URL("../peers/package.json", import.meta.url));
const jax = await import(pathToFileURL(require.resolve("@jax-js/jax").replace(/\.cjs$/, ".js")));
const { numpy: np } = jax;

const array = ({ data, dims }) => np.array(data, { shape: dims, dtype: np.float32 });
/**
 * A form of a case: `run()` gives its result, an array or several by name, of which
 * `values(result, of)` are those asked for. A function takes its arguments for good; `.ref` keeps
 * them for the next call.
 */
const call = (compiled, inputs) => ({
  run: () => compiled(...inputs.map((input) => input.ref)),
  values: (result) => result.ref.dataSync(),
});

/** Both maps as matrices, their difference, and one product with v. */
function plain(test) {
  const { q0, q1, k0, k1, v } = attentionInputs(test);
  const scale = test.q[3] ** -0.5;
  const difference = (a, b, c, d, values, mask) => {
    const map = (q, k, m) =>
      jax.nn.softmax(
        np
          .matmul(q, np.swapaxes(k, -1, -2))
          .mul(scale)
          .add(m),
        -1,
      );
    return np.matmul(map(a, c, mask.ref).sub(map(b, d, mask).mul(LAMBDA)), values);
  };
  return call(jax.jit(difference), [q0, q1, k0, k1, v, maskOf(test)].map(array));
}

function groupNorm(test) {
  const [n, c, ...rest] = test.x;
  const norm = (x, weight, bias) => {
    const grouped = x.reshape([n, test.groups, -1]);
    const centred = grouped.ref.sub(np.mean(grouped, -1, { keepdims: true }));
    const deviation = np.sqrt(np.mean(np.square(centred.ref), -1, { keepdims: true }).add(EPS));
    return centred.div(deviation).reshape(test.x).mul(weight).add(bias);
  };
  const channels = (t) => ({ data: made([c], t), dims: [c, ...rest.map(() => 1)] });
  return call(jax.jit(norm), [{ data: made(test.x, 0), dims: test.x }, channels(1), channels(2)].map(array));
}

function rmsNorm(test) {
  const norm = (x, weight) => x.ref.div(np.sqrt(np.mean(np.square(x), -1, { keepdims: true }).add(EPS))).mul(weight);
  const width = test.x.slice(-1);
  return call(
    jax.jit(norm),
    [
      { data: made(test.x, 0), dims: test.x },
      { data: made(width, 1), dims: width },
    ].map(array),
  );
}

const variants = {
  attention: { plain },
  group_norm: { plain: groupNorm },
  rms_norm: { plain: rmsNorm },
  layer_backward: { plain: (test) => layer(jax, test) },
};

let loaded;
let result;

/** The arrays of a result. */
const arraysOf = (of) => (of === undefined ? [] : of instanceof jax.numpy.Array ? [of] : Object.values(of));

function drop() {
  for (const one of arraysOf(result)) one.dispose();
  result = undefined;
}

async function run() {
  drop();
  result = loaded.run();
  for (const one of arraysOf(result)) await one.blockUntilReady();
}

serve({
  info: () => ({
    name: "jax-js wasm",
    version: require("../peers/package.json").dependencies["@jax-js/jax"],
    runtime: `Node ${process.versions.node}`,
    notes: ["compiled by jit", "the two maps' q and k heads are given apart; making these inputs is not timed"],
  }),
  variants: ({ case: test }) => ({ variants: Object.keys(formsOf(variants, test)) }),
  async load({ case: test, variant, threads = 1 }) {
    if (threads !== 1) throw new Error("jax-js has one thread in Node");
    await jax.init("wasm");
    jax.defaultDevice("wasm");
    drop();
    loaded = undefined;
    loaded = formsOf(variants, test)[variant](test);
    await run();
    await run();
  },
  run: async () => ({ seconds: await timed(run) }),
  answer: ({ of, at }) => ({ values: pick(loaded.values(result, of), at) }),
});
