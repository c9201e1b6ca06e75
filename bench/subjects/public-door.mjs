// Handlers of the protocol over our package's public door, for Node (diffattn.mjs) and a page
// (page-client.js). Knows the calls of a case in every form; starts nothing, and its limits are
// given.
import { fill, liveBlocks, pick, timed } from "./measuring.mjs";

const LAMBDA = 0.35;
const EPS = 1e-5;
/** A layer's projections have their tensors' values times this: scores are of the order of one. */
const PROJECTION = 1 / 16;

/**
 * JavaScript and WebAssembly are compiled for speed while they run: a case is warm after so many
 * seconds of calls.
 */
const WARM_UP = 0.3;

const VARIANTS = {
  attention: ["sync", "sync-out", "sync-tensors", "async", "async-transfer", "async-tensors"],
  decode: ["sync"],
  group_norm: ["sync", "sync-out", "sync-tensors", "async"],
  rms_norm: ["sync", "sync-out", "sync-tensors", "async"],
  attention_backward: ["sync", "sync-out", "sync-tensors", "async", "async-tensors"],
  group_norm_backward: ["sync", "sync-out", "sync-tensors", "async"],
  rms_norm_backward: ["sync", "sync-out", "sync-tensors", "async"],
  layer_backward: ["sync", "async"],
};

const count = (shape) => shape.reduce((a, b) => a * b, 1);
const array = (shape, t) => ({ data: fill(new Float32Array(count(shape)), t), shape });
/** The number of the tensor that is the gradient of a result, and of that of a layer. */
const [DY, LAYER_DY] = [3, 6];

function attentionOptions({ pairing, ratio, causal, window, blockMask, q, k, out }) {
  const perToken = [q[0], q[2], out[1]];
  return {
    lambda: pairing === "shared" ? { data: new Float32Array(count(perToken)).fill(LAMBDA), shape: perToken } : LAMBDA,
    pairing,
    isCausal: causal,
    ...(ratio && { ratio }),
    ...(window && { window }),
    ...(blockMask && { blockMask: liveBlocks(q[2], k[2], blockMask) }),
  };
}

/** What an operator's options are, and the shapes of its big inputs. */
function operatorOf(test) {
  if (test.op.startsWith("attention")) return { name: "diffAttention", shapes: [test.q, test.k, test.v], options: attentionOptions(test) };
  const weights = (...shapes) => shapes.map((shape, i) => array(shape, i + 1));
  if (test.op.startsWith("group_norm")) {
    const { layout, activation, groups } = test;
    const channels = [layout === "nhwc" ? test.x.at(-1) : test.x[1]];
    const [weight, bias] = weights(channels, channels);
    const options = { numGroups: groups, weight, bias, eps: EPS, ...(layout && { layout }), ...(activation && { activation }) };
    return { name: "groupNorm", shapes: [test.x], options };
  }
  const [weight] = weights(test.x.slice(-1));
  return { name: "rmsNorm", shapes: [test.x], options: { weight, eps: EPS } };
}

/**
 * What a case calls: its name in the package, its big inputs as shapes and numbers of tensors, the
 * arguments around them, and its `out` made of what `make` makes of a shape.
 */
function formOf(test) {
  const { name, shapes, options } = operatorOf(test);
  const inputs = shapes.map((shape, t) => [shape, t]);
  const call = (given, more) => [...given, { ...options, ...more }];
  if (!test.op.endsWith("_backward")) return { name, inputs, call, out: (make) => make(test.out) };
  // (λ is a constant.)
  if (name === "diffAttention") Object.assign(options, { needs: ["q", "k", "v"] });
  const gradients = name === "diffAttention" ? ["dq", "dk", "dv"] : ["dx"];
  return {
    name: `${name}Backward`,
    inputs: [[test.out, DY], ...inputs],
    call,
    out: (make) => Object.fromEntries(gradients.map((gradient, i) => [gradient, make(shapes[i])])),
  };
}

/**
 * A layer's pass and its backward pass, which gives what is left of the vectors of λ, too: they are
 * zeros, so that λ is λ_init.
 */
function layer(api, test, variant) {
  const { x: shape, heads, headDim } = test;
  const [width, inner] = [shape.at(-1), 2 * heads * headDim];
  const projection = (t, rows, columns) => {
    const { data } = array([rows, columns], t);
    return { data: data.map((value) => value * PROJECTION), shape: [rows, columns] };
  };
  const vectors = ["q1", "k1", "q2", "k2"].map((name) => [`lambda_${name}`, { data: new Float32Array(headDim), shape: [headDim] }]);
  const weights = {
    "q_proj.weight": projection(1, inner, width),
    "k_proj.weight": projection(2, inner, width),
    "v_proj.weight": projection(3, inner, width),
    "o_proj.weight": projection(4, width, inner),
    "subln.weight": array([2 * headDim], 5),
    ...Object.fromEntries(vectors),
  };
  const made = new api.MultiheadDiffAttn({
    embedDim: width,
    depth: 0,
    lambdaInit: LAMBDA,
    numHeads: heads,
    headDim,
    norm: { eps: EPS },
    weights,
  });
  const [x, dy] = [array(shape, 0), array(shape, LAYER_DY)];
  const named = ({ dx, weights: gradients }) => ({ dx, ...gradients });
  if (variant === "sync")
    return {
      run: () => {
        const { backward, dispose } = made.vjpSync(x);
        const gradients = backward(dy);
        dispose();
        return named(gradients);
      },
    };
  return {
    run: async () => {
      const { backward, dispose } = await made.vjp(x);
      const gradients = await backward(dy);
      dispose();
      return named(gradients);
    },
  };
}

/** A step on each of the case's caches. */
function decode(api, test) {
  const [groups, terms] = [test.v[1], test.k[1] / test.v[1]];
  const [k, v] = [array(test.k, 1), array(test.v, 2)];
  const caches = Array.from({ length: test.caches }, () => {
    const cache = new api.KvCache({ groups, terms, headDim: test.k[3], valueDim: test.v[3], capacity: test.k[2], dtype: test.cacheDtype });
    cache.append(k, v);
    return cache;
  });
  const q = array(test.q, 0);
  const options = attentionOptions(test);
  return {
    run: () => {
      let result;
      for (const cache of caches) result = api.diffAttentionSync(q, cache, null, options);
      return result;
    },
  };
}

/**
 * `{ run, before? }`: one call in the form `variant`, and what is done before each without being
 * timed.
 */
function prepared(api, test, variant) {
  if (!VARIANTS[test.op]?.includes(variant)) throw new Error(`there is no variant ${variant} of ${test.op}`);
  if (test.op === "decode") return decode(api, test);
  if (test.op === "layer_backward") return layer(api, test, variant);
  const { name, inputs: wanted, call, out: outOf } = formOf(test);
  const isSync = variant.startsWith("sync");
  const fn = api[isSync ? `${name}Sync` : name];
  if (variant.endsWith("-tensors")) {
    const tensors = wanted.map(([shape, t]) => {
      const tensor = api.createTensor(shape);
      fill(tensor.data, t);
      return tensor;
    });
    const places = isSync && outOf((shape) => api.createTensor(shape));
    const named = (tensors) => Object.fromEntries(Object.entries(tensors).map(([name, { data }]) => [name, data]));
    // A fresh view at every call: WebAssembly's memory may have grown since.
    const more = () => places && { out: name.endsWith("Backward") ? named(places) : places.data };
    return { run: () => fn(...call(tensors, more())), memory: () => tensors[0].data.buffer };
  }
  const inputs = wanted.map(([shape, t]) => array(shape, t));
  if (variant === "async-transfer") {
    let own;
    const before = () => (own = inputs.map(({ data, shape }) => ({ data: data.slice(), shape })));
    return { before, run: () => fn(...call(own, { transfer: true })) };
  }
  const more = variant === "sync-out" ? { out: outOf((shape) => new Float32Array(count(shape))) } : {};
  return { run: () => fn(...call(inputs, more)) };
}

/**
 * The handlers. `about` completes the reply to `info`, `start(isa, threads)` is the package's
 * init() options, `limit(request)` answers it, `isWasm` says whether memory is a module's.
 */
export function handlers(api, { about, start, limit, isWasm }) {
  let loaded;
  let result;

  async function begin({ case: test, variant, threads = 1, isa }) {
    loaded = result = undefined;
    api.dispose();
    await api.init(start(isa, threads));
    const running = api.info();
    if (isa && running.isa !== isa) throw new Error(`${isa} was asked for, ${running.isa} runs`);
    if (!variant.startsWith("sync") && running.threads !== threads)
      throw new Error(`${threads} threads were asked for, ${running.threads} run`);
    loaded = prepared(api, test, variant);
  }

  async function once() {
    result = undefined;
    await loaded.before?.();
    result = await loaded.run();
  }

  return {
    info: () => ({ name: "diffattn", notes: [], ...about() }),
    variants: ({ case: test }) => ({ variants: VARIANTS[test.op] ?? [] }),
    async load(request) {
      await begin(request);
      const begun = performance.now();
      await once();
      while (performance.now() - begun < WARM_UP * 1000) await once();
    },
    async run({ after = 0 } = {}) {
      const asked = performance.now();
      while (performance.now() - asked < after * 1000) await once();
      result = undefined;
      await loaded.before?.();
      // What is made before each call is used up by it.
      if (loaded.before) {
        const begun = performance.now();
        result = await loaded.run();
        return { seconds: (performance.now() - begun) / 1000 };
      }
      const { run } = loaded;
      const seconds = await timed(() => {
        const given = run();
        if (typeof given?.then === "function") return given.then((value) => (result = value));
        result = given;
      });
      return { seconds };
    },
    /** Of several results one is meant: gradients have their names in the package. */
    answer: ({ of = "", at }) => ({ values: pick((of ? result[of] : result).data, at) }),
    limit,
    /** Bytes by which the module's memory grows in one call on tensors that lie in it. */
    async scratch(request) {
      await begin({ ...request, variant: "sync-tensors" });
      if (!isWasm) throw new Error("only the crate itself counts its memory natively");
      const before = loaded.memory().byteLength;
      await once();
      return { bytes: loaded.memory().byteLength - before };
    },
  };
}
