// A subject: TensorFlow.js on its WebAssembly backend (SIMD), plain matrices; it has no attention
// operator. One thread: in Node its threads want a browser's workers. Inputs are made once, the two
// maps' q and k heads apart.
import { createRequire } from "node:module";
import { attentionInputs, EPS, formsOf, LAMBDA, made, maskOf } from "./inputs.mjs";
import { pick, timed } from "./measuring.mjs";
import { serve } from "./protocol.mjs";

const require = createRequire(new URL("../peers/package.json", import.meta.url));
const tf = require("@tensorflow/tfjs-core");
const wasm = require("@tensorflow/tfjs-backend-wasm");

const tensor = ({ data, dims }) => tf.tensor(data, dims);

/**
 * Head by head, k transposed: only a product of two matrices as they lie runs on XNNPACK. (Batched
 * or with transposeB, matMul is a plain loop there: 2 GFLOP/s, rejected.)
 */
function plain(test) {
  const [batch, heads, rows, width] = test.out;
  const { q0, q1, k0, k1, v } = attentionInputs(test);
  const matrices = ({ data, dims }) => tf.unstack(tf.tensor(data, [batch * heads, ...dims.slice(2)]));
  const q = [matrices(q0), matrices(q1)];
  const k = [matrices(k0), matrices(k1)];
  const values = matrices(v);
  const mask = tensor(maskOf(test));
  // Scaling q is less work than scaling the scores.
  const map = (n, head) => {
    const scaled = tf.mul(q[n][head], test.q[3] ** -0.5);
    return tf.softmax(tf.add(tf.matMul(scaled, tf.transpose(k[n][head])), mask));
  };
  const one = (value, head) => tf.tidy(() => tf.matMul(tf.sub(map(0, head), tf.mul(map(1, head), LAMBDA)), value));
  return () => tf.reshape(tf.stack(values.map(one)), [batch, heads, rows, width]);
}

function groupNorm(test) {
  const [n, c, ...rest] = test.x;
  const grouped = tf.tensor(made(test.x, 0), [n, test.groups, c / test.groups, ...rest]);
  const channels = (t) => tf.tensor(made([c], t), [1, test.groups, c / test.groups, ...rest.map(() => 1)]);
  const [weight, bias] = [channels(1), channels(2)];
  const axes = grouped.shape.map((_, axis) => axis).slice(2);
  return () => {
    const mean = tf.mean(grouped, axes, true);
    const centred = tf.sub(grouped, mean);
    const factor = tf.rsqrt(tf.add(tf.mean(tf.square(centred), axes, true), EPS));
    return tf.add(tf.mul(centred, tf.mul(factor, weight)), bias);
  };
}

function rmsNorm(test) {
  const x = tf.tensor(made(test.x, 0), test.x);
  const weight = tf.tensor(made(test.x.slice(-1), 1));
  return () => tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), EPS))), weight);
}

const variants = { attention: { plain }, group_norm: { plain: groupNorm }, rms_norm: { plain: rmsNorm } };

let call;
let result;

function run() {
  result?.dispose();
  result = undefined;
  result = tf.tidy(call);
}

async function start() {
  if (tf.getBackend() === "wasm") return;
  wasm.setThreadsCount(1);
  if (!(await tf.setBackend("wasm"))) throw new Error("the WebAssembly backend does not start");
}

serve({
  async info() {
    await start();
    const simd = await tf.env().getAsync("WASM_HAS_SIMD_SUPPORT");
    return {
      name: "TensorFlow.js wasm",
      version: wasm.version_wasm,
      runtime: `Node ${process.versions.node}`,
      notes: [simd ? "SIMD" : "no SIMD", "the two maps' q and k heads are given apart; making these inputs is not timed"],
    };
  },
  variants: ({ case: test }) => ({ variants: Object.keys(formsOf(variants, test)) }),
  async load({ case: test, variant, threads = 1 }) {
    if (threads !== 1) throw new Error("TensorFlow.js has one thread in Node");
    await start();
    call = result = undefined;
    tf.disposeVariables();
    tf.engine().reset();
    await start();
    call = formsOf(variants, test)[variant](test);
    run();
    run();
  },
  run: async () => ({ seconds: await timed(run) }),
  answer: ({ at }) => ({ values: pick(result.dataSync(), at) }),
});
