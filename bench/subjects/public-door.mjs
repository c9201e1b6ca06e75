// Handlers of the protocol over our package's public door, for Node (diffattn.mjs) and a page
// (page-client.js). Knows the calls of a case in every form; starts nothing, and its limits are
// given.
import { fill, liveBlocks, pick, timed } from "./measuring.mjs";

const LAMBDA = 0.35;
const EPS = 1e-5;

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
};

const count = (shape) => shape.reduce((a, b) => a * b, 1);
const array = (shape, t) => ({ data: fill(new Float32Array(count(shape)), t), shape });

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

/**
 * What a case calls: its name in the package, the shapes of its big inputs, and the arguments
 * around them.
 */
function formOf(test) {
  if (test.op === "attention") {
    const options = attentionOptions(test);
    return { name: "diffAttention", shapes: [test.q, test.k, test.v], call: (inputs, more) => [...inputs, { ...options, ...more }] };
  }
  const weights = (...shapes) => shapes.map((shape, i) => array(shape, i + 1));
  if (test.op === "group_norm") {
    const [weight, bias] = weights([test.x[1]], [test.x[1]]);
    const options = { numGroups: test.groups, weight, bias, eps: EPS };
    return { name: "groupNorm", shapes: [test.x], call: ([x], more) => [x, { ...options, ...more }] };
  }
  const [weight] = weights(test.x.slice(-1));
  return { name: "rmsNorm", shapes: [test.x], call: ([x], more) => [x, { weight, eps: EPS, ...more }] };
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
  const { name, shapes, call } = formOf(test);
  const isSync = variant.startsWith("sync");
  const fn = api[isSync ? `${name}Sync` : name];
  if (variant.endsWith("-tensors")) {
    const tensors = shapes.map((shape, t) => {
      const tensor = api.createTensor(shape);
      fill(tensor.data, t);
      return tensor;
    });
    const out = isSync ? api.createTensor(test.out) : undefined;
    // A fresh view at every call: WebAssembly's memory may have grown since.
    return { run: () => fn(...call(tensors, out && { out: out.data })), memory: () => tensors[0].data.buffer };
  }
  const inputs = shapes.map(array);
  if (variant === "async-transfer") {
    let own;
    const before = () => (own = inputs.map(({ data, shape }) => ({ data: data.slice(), shape })));
    return { before, run: () => fn(...call(own, { transfer: true })) };
  }
  const more = variant === "sync-out" ? { out: new Float32Array(count(test.out)) } : {};
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
    async run() {
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
    answer: ({ at }) => ({ values: pick(result.data, at) }),
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
