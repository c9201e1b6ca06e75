// The small ONNX models on which onnxruntime computes a case, and their inputs. Inputs lie as each
// operator likes them best: the two maps' q and k heads apart. Runs nothing and needs no library:
// who wants a model's bytes gives onnx-proto.
import { attentionInputs, EPS, LAMBDA, made, maskOf } from "./inputs.mjs";

// Numbers of onnx.proto: TensorProto.DataType and AttributeProto.AttributeType.
const [FLOAT, INT64] = [1, 7];
const ATTRIBUTE = { float: 1, int: 2, ints: 7 };

/** A node: `output = op(...inputs)`. */
function node(opType, input, output, attributes = {}, domain = "") {
  const attribute = Object.entries(attributes).map(([name, value]) => {
    if (Array.isArray(value)) return { name, type: ATTRIBUTE.ints, ints: value };
    return Number.isInteger(value) ? { name, type: ATTRIBUTE.int, i: value } : { name, type: ATTRIBUTE.float, f: value };
  });
  return { opType, domain, input, output: [output].flat(), attribute };
}

const scalar = (value) => ({ dataType: FLOAT, dims: [], floatData: [value] });
const floats = (data) => ({ dataType: FLOAT, dims: [data.length], floatData: Array.from(data) });
const ints = (...values) => ({ dataType: INT64, dims: [values.length], int64Data: values });

const difference = (a, b, y) => [node("Mul", [b, "lambda"], `${y}.scaled`), node("Sub", [a, `${y}.scaled`], y)];
const lambda = scalar(LAMBDA);

// ---- variants: each says a case's inputs (name → data and dims), nodes and constants; `layout` is
// its answer's ----

/**
 * Both maps as matrices, their difference, and one product with v. The optimiser fuses
 * transposition and scale into MatMul. `of` is a suffix of all names.
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

const plain = {
  layout: "bhsd",
  inputs: (test) => ({ ...attentionInputs(test), mask: maskOf(test) }),
  nodes: () => matrices(),
  constants: (test) => ({ lambda, scale: scalar(test.q[3] ** -0.5) }),
};

/** The same, head after head: memory for the matrices of one head. */
const plainHeads = {
  ...plain,
  nodes(test) {
    const heads = Array.from({ length: test.out[1] }, (_, head) => `.${head}`);
    const of = (name) => heads.map((head) => name + head);
    const split = (name) => node("Split", [name], of(name), { axis: 1, num_outputs: heads.length });
    return [
      ...["q0", "q1", "k0", "k1", "v"].map(split),
      ...heads.flatMap((head) => matrices(head)),
      node("Concat", of("y"), "y", { axis: 1 }),
    ];
  },
};

/** ONNX's own operator; v may be wider than q. */
const attention23 = {
  layout: "bhsd",
  inputs: (test) => attentionInputs(test),
  nodes(test) {
    const map = (n) => node("Attention", [`q${n}`, `k${n}`, "v"], `a${n}`, { is_causal: Number(test.causal) });
    return [map(0), map(1), ...difference("a0", "a1", "y")];
  },
  constants: () => ({ lambda }),
};

const multiHeadAttention = {
  layout: "bshd",
  inputs: (test) => attentionInputs(test, "bshd"),
  nodes(test) {
    const attributes = { num_heads: test.q[1] / 2, unidirectional: Number(test.causal) };
    const map = (n) => node("MultiHeadAttention", [`q${n}`, `k${n}`, "v"], `a${n}`, attributes, "com.microsoft");
    return [map(0), map(1), ...difference("a0", "a1", "y")];
  },
  constants: () => ({ lambda }),
};

const normInputs = (test) => ({ x: { data: made(test.x, 0), dims: test.x } });

const groupNormalization = {
  inputs: normInputs,
  nodes: (test) => [node("GroupNormalization", ["x", "weight", "bias"], "y", { num_groups: test.groups, epsilon: EPS })],
  constants: (test) => ({ weight: floats(made([test.x[1]], 1)), bias: floats(made([test.x[1]], 2)) }),
};

/** As PyTorch exports it: instance norm of the groups, then weight and bias of the channels. */
const instanceNormalization = {
  inputs: normInputs,
  nodes: () => [
    node("Reshape", ["x", "groups"], "grouped"),
    node("InstanceNormalization", ["grouped", "one", "zero"], "normed", { epsilon: EPS }),
    node("Reshape", ["normed", "shape"], "shaped"),
    node("Mul", ["shaped", "weight"], "weighted"),
    node("Add", ["weighted", "bias"], "y"),
  ],
  constants(test) {
    const [n, c, ...rest] = test.x;
    const column = (data) => ({ ...floats(data), dims: [c, ...rest.map(() => 1)] });
    return {
      groups: ints(n, test.groups, -1),
      shape: ints(...test.x),
      one: floats(new Float32Array(test.groups).fill(1)),
      zero: floats(new Float32Array(test.groups)),
      weight: column(made([c], 1)),
      bias: column(made([c], 2)),
    };
  },
};

const rms = (opType) => ({
  inputs: normInputs,
  nodes: () => [node(opType, ["x", "weight"], "y", { axis: -1, epsilon: EPS })],
  constants: (test) => ({ weight: floats(made(test.x.slice(-1), 1)) }),
});

/** By operator and name. */
export const graphs = {
  attention: {
    plain,
    "plain-heads": plainHeads,
    "attention-23": attention23,
    "multi-head-attention": multiHeadAttention,
  },
  group_norm: { "group-normalization": groupNormalization, "instance-normalization": instanceNormalization },
  rms_norm: { "rms-normalization": rms("RMSNormalization"), "simplified-layer-normalization": rms("SimplifiedLayerNormalization") },
};

/** A case's ONNX model with one output `y`, as the bytes of its file. */
export function encodeGraph(onnx, graph, test) {
  const value = (name, dims) => ({
    name,
    type: { tensorType: { elemType: FLOAT, ...(dims && { shape: { dim: dims.map((dimValue) => ({ dimValue })) } }) } },
  });
  return onnx.ModelProto.encode({
    irVersion: 10,
    opsetImport: [
      { domain: "", version: 23 },
      { domain: "com.microsoft", version: 1 },
    ],
    graph: {
      name: "graph",
      node: graph.nodes(test),
      input: Object.entries(graph.inputs(test)).map(([name, { dims }]) => value(name, dims)),
      output: [value("y")],
      initializer: Object.entries(graph.constants(test)).map(([name, tensor]) => ({ name, ...tensor })),
    },
  }).finish();
}

/** Where an answer of a graph holds what (batch, head, row, channel) number `i` is. */
export function indexIn({ layout }, test, i) {
  if (layout !== "bshd") return i;
  const [, heads, rows, width] = test.out;
  const [channel, row, head] = [i % width, Math.floor(i / width) % rows, Math.floor(i / width / rows) % heads];
  return ((Math.floor(i / width / rows / heads) * rows + row) * heads + head) * width + channel;
}
