// A subject: onnxruntime-node or onnxruntime-web (WebAssembly), on small ONNX models made here with onnx-proto.
// Inputs are made once and lie as each operator likes them best: the two maps' q and k heads apart. What is timed is session.run.
// Not here: pairings other than one k head for each q head, windows and decode steps, which the operators have no form for.
//
//   node bench/subjects/onnxruntime.mjs node|web
import { createRequire } from "node:module";
import { totalmem } from "node:os";
import { attentionInputs, EPS, formsOf, LAMBDA, made, maskOf } from "./inputs.mjs";
import { pick, timed } from "./measuring.mjs";
import { serve } from "./protocol.mjs";

const isWeb = process.argv[2] === "web";
const library = isWeb ? "onnxruntime-web" : "onnxruntime-node";
const require = createRequire(new URL("../peers/package.json", import.meta.url));
const ort = require(library);
const { onnx } = require("onnx-proto");

const FLOAT = onnx.TensorProto.DataType.FLOAT;
const INT32 = onnx.TensorProto.DataType.INT32;
const INT64 = onnx.TensorProto.DataType.INT64;

// ---- models ----

/** An ONNX model with one output `y`. Inputs are name → tensor of onnxruntime, constants name → tensor of onnx-proto. */
function model(nodes, inputs, constants = {}) {
  const value = (name, elemType, dims) => ({
    name,
    type: { tensorType: { elemType, ...(dims && { shape: { dim: dims.map((dimValue) => ({ dimValue })) } }) } },
  });
  return onnx.ModelProto.encode({
    irVersion: 10,
    opsetImport: [
      { domain: "", version: 23 },
      { domain: "com.microsoft", version: 1 },
    ],
    graph: {
      name: "graph",
      node: nodes,
      input: Object.entries(inputs).map(([name, { type, dims }]) => value(name, type === "int32" ? INT32 : FLOAT, dims)),
      output: [value("y", FLOAT)],
      initializer: Object.entries(constants).map(([name, tensor]) => ({ name, ...tensor })),
    },
  }).finish();
}

/** A node: `output = op(...inputs)`. */
function node(opType, input, output, attributes = {}, domain = "") {
  const { INT, FLOAT: REAL, INTS } = onnx.AttributeProto.AttributeType;
  const attribute = Object.entries(attributes).map(([name, value]) => {
    if (Array.isArray(value)) return { name, type: INTS, ints: value };
    return Number.isInteger(value) ? { name, type: INT, i: value } : { name, type: REAL, f: value };
  });
  return { opType, domain, input, output: [output].flat(), attribute };
}

const scalar = (value) => ({ dataType: FLOAT, dims: [], floatData: [value] });
const floats = (data) => ({ dataType: FLOAT, dims: [data.length], floatData: Array.from(data) });
const ints = (...values) => ({ dataType: INT64, dims: [values.length], int64Data: values });

const tensor = ({ data, dims }) => new ort.Tensor("float32", data, dims);
const tensors = (inputs) => Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, tensor(input)]));

// ---- variants: each returns the model, its inputs and how its answer lies ----

const difference = (a, b, y) => [node("Mul", [b, "lambda"], `${y}.scaled`), node("Sub", [a, `${y}.scaled`], y)];
const lambda = scalar(LAMBDA);

/**
 * Both maps as matrices, their difference, and one product with v. The optimiser fuses transposition and scale into MatMul.
 * `of` is a suffix of all names.
 */
function matrices(of = "") {
  const map = (n) => [
    node("Transpose", [`k${n}${of}`], `kt${n}${of}`, { perm: [0, 1, 3, 2] }),
    node("MatMul", [`q${n}${of}`, `kt${n}${of}`], `product${n}${of}`),
    node("Mul", [`product${n}${of}`, "scale"], `scores${n}${of}`),
    node("Add", [`scores${n}${of}`, "mask"], `masked${n}${of}`),
    node("Softmax", [`masked${n}${of}`], `map${n}${of}`, { axis: -1 }),
  ];
  const both = [...map(0), ...map(1), ...difference(`map0${of}`, `map1${of}`, `map${of}`)];
  return [...both, node("MatMul", [`map${of}`, `v${of}`], `y${of}`)];
}

function plain(test) {
  const inputs = tensors({ ...attentionInputs(test), mask: maskOf(test) });
  return { inputs, bytes: model(matrices(), inputs, { lambda, scale: scalar(test.q[3] ** -0.5) }), layout: "bhsd" };
}

/** The same, head after head: memory for the matrices of one head. */
function plainHeads(test) {
  const inputs = tensors({ ...attentionInputs(test), mask: maskOf(test) });
  const heads = Array.from({ length: test.out[1] }, (_, head) => `.${head}`);
  const of = (name) => heads.map((head) => name + head);
  const split = (name) => node("Split", [name], of(name), { axis: 1, num_outputs: heads.length });
  const nodes = [
    ...["q0", "q1", "k0", "k1", "v"].map(split),
    ...heads.flatMap((head) => matrices(head)),
    node("Concat", of("y"), "y", { axis: 1 }),
  ];
  return { inputs, bytes: model(nodes, inputs, { lambda, scale: scalar(test.q[3] ** -0.5) }), layout: "bhsd" };
}

/** ONNX's own operator; v may be wider than q. */
function attention23(test) {
  const inputs = tensors(attentionInputs(test));
  const map = (n) => node("Attention", [`q${n}`, `k${n}`, "v"], `a${n}`, { is_causal: Number(test.causal) });
  return { inputs, bytes: model([map(0), map(1), ...difference("a0", "a1", "y")], inputs, { lambda }), layout: "bhsd" };
}

function multiHeadAttention(test) {
  const inputs = tensors(attentionInputs(test, "bshd"));
  const attributes = { num_heads: test.q[1] / 2, unidirectional: Number(test.causal) };
  const map = (n) => node("MultiHeadAttention", [`q${n}`, `k${n}`, "v"], `a${n}`, attributes, "com.microsoft");
  return { inputs, bytes: model([map(0), map(1), ...difference("a0", "a1", "y")], inputs, { lambda }), layout: "bshd" };
}

const normInputs = (test) => tensors({ x: { data: made(test.x, 0), dims: test.x } });

function groupNormalization(test) {
  const inputs = normInputs(test);
  const channels = [test.x[1]];
  const constants = { weight: floats(made(channels, 1)), bias: floats(made(channels, 2)) };
  const nodes = [node("GroupNormalization", ["x", "weight", "bias"], "y", { num_groups: test.groups, epsilon: EPS })];
  return { inputs, bytes: model(nodes, inputs, constants) };
}

/** As PyTorch exports it: instance norm of the groups, then weight and bias of the channels. */
function instanceNormalization(test) {
  const inputs = normInputs(test);
  const [n, c, ...rest] = test.x;
  const column = (data) => ({ ...floats(data), dims: [c, ...rest.map(() => 1)] });
  const constants = {
    groups: ints(n, test.groups, -1),
    shape: ints(...test.x),
    one: floats(new Float32Array(test.groups).fill(1)),
    zero: floats(new Float32Array(test.groups)),
    weight: column(made([c], 1)),
    bias: column(made([c], 2)),
  };
  const nodes = [
    node("Reshape", ["x", "groups"], "grouped"),
    node("InstanceNormalization", ["grouped", "one", "zero"], "normed", { epsilon: EPS }),
    node("Reshape", ["normed", "shape"], "shaped"),
    node("Mul", ["shaped", "weight"], "weighted"),
    node("Add", ["weighted", "bias"], "y"),
  ];
  return { inputs, bytes: model(nodes, inputs, constants) };
}

const rms = (opType) => (test) => {
  const inputs = normInputs(test);
  const constants = { weight: floats(made(test.x.slice(-1), 1)) };
  return { inputs, bytes: model([node(opType, ["x", "weight"], "y", { axis: -1, epsilon: EPS })], inputs, constants) };
};

const variants = {
  attention: {
    plain,
    "plain-heads": plainHeads,
    "attention-23": attention23,
    "multi-head-attention": multiHeadAttention,
  },
  group_norm: { "group-normalization": groupNormalization, "instance-normalization": instanceNormalization },
  rms_norm: { "rms-normalization": rms("RMSNormalization"), "simplified-layer-normalization": rms("SimplifiedLayerNormalization") },
};

// Measured at 4096 and 8192 tokens: the most memory of a process, in score maps of all heads.
const mapsInMemory = { plain: 6.5, "plain-heads": 1.2, "attention-23": 1.4, "multi-head-attention": 2.4 };

/** A machine without the memory would end the process, or others. WebAssembly has an end of its own and says so. */
function needMaps({ q, k }, count) {
  const needed = (count * q[0] * q[1] * q[2] * k[2] * 4) / 2;
  const gib = (bytes) => `${Math.round(bytes / 2 ** 30)} GiB`;
  if (needed > 0.8 * totalmem()) throw new Error(`its score maps need about ${gib(needed)}, this machine has ${gib(totalmem())}`);
}

// ---- the subject ----
// Tried and rejected: GroupQueryAttention (always causal, four calls on halves of v: 38 GFLOP/s at 512 tokens where a plain graph
// has 71; in WebAssembly 1), and results preallocated by the caller (no faster in Node, left unfilled by onnxruntime-web).

let threadsOfWeb;
let loaded;

const run = async () => (loaded.result = (await loaded.session.run(loaded.inputs)).y);

serve({
  info: () => ({
    name: library,
    version: ort.env.versions[isWeb ? "web" : "node"],
    runtime: `Node ${process.versions.node}`,
    notes: ["the two maps' q and k heads are given apart; making these inputs is not timed"],
  }),
  variants: ({ case: test }) => ({ variants: Object.keys(formsOf(variants, test)) }),
  async load({ case: test, variant, threads = 1 }) {
    await loaded?.session.release();
    loaded = undefined;
    if (isWeb) {
      if (threadsOfWeb !== undefined && threadsOfWeb !== threads)
        throw new Error("onnxruntime-web takes its number of threads once in a process");
      ort.env.wasm.numThreads = threadsOfWeb = threads;
    }
    if (!isWeb && test.op === "attention") needMaps(test, mapsInMemory[variant]);
    const { inputs, bytes, layout } = formsOf(variants, test)[variant](test);
    const options = { graphOptimizationLevel: "all", executionMode: "sequential" };
    if (isWeb) options.executionProviders = ["wasm"];
    else Object.assign(options, { executionProviders: ["cpu"], intraOpNumThreads: threads, interOpNumThreads: 1 });
    loaded = { test, layout, inputs, session: await ort.InferenceSession.create(bytes, options) };
    // Twice: the arena still grows in the second.
    await run();
    await run();
  },
  run: async () => ({ seconds: await timed(run) }),
  answer({ at }) {
    const [, heads, rows, width] = loaded.test.out;
    // What lies as (batch, row, head, channel) is found by the index of (batch, head, row, channel).
    const transposed = (i) => {
      const [channel, row, head] = [i % width, Math.floor(i / width) % rows, Math.floor(i / width / rows) % heads];
      return ((Math.floor(i / width / rows / heads) * rows + row) * heads + head) * width + channel;
    };
    return { values: pick(loaded.result.data, loaded.layout === "bshd" ? at.map(transposed) : at) };
  },
});
