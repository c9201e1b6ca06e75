// Writes requests. Each operator's options are a table in the order of crates/diffattn-door/PROTOCOL.md: a name and how its value
// is written; what no table names is refused. No arithmetic and no default: what the user left out travels as absent.

import type { Handle, Request } from "./backend.js";
import {
  arrayType,
  bytesOf,
  checkOptions,
  DTYPES,
  elementsOf,
  has,
  isAbsent,
  isArray,
  Kind,
  oneOf,
  readTensor,
  shapeOf,
  show,
  unreadable,
} from "./check.js";
import { fail } from "./errors.js";
import { Op } from "./ops.js";
import type * as types from "./types.js";

/** Writes a value that errors call `name`. */
type Write = (s: Request, name: string, x: unknown) => void;

/** How each option is written, in the protocol's order. `T` has no other name. */
type Table<T> = { readonly [K in keyof Required<T>]: Write };

/** A request and how its result is given, where the caller's tensor decides that. */
export type Encoded = Request & Form;

/** A tensor's element type, and whether a Float16Array holds it. */
interface Form {
  dtype: types.DType;
  half: boolean;
}

/** An empty request, in the one form that the engine's code for small calls is made for; `dtype` and `half` mean nothing yet. */
const stream = (op: number): Encoded => ({ op, params: [], operands: [], objects: [], dtype: "float32", half: false });

// How values are written.

const number: Write = (s, name, x) => {
  if (typeof x !== "number") fail("OPTION", name, "a number", show(x));
  s.params.push(x);
};

const flag: Write = (s, name, x) => {
  if (typeof x !== "boolean") fail("OPTION", name, "true or false", show(x));
  s.params.push(x ? 1 : 0);
};

const choice =
  (...names: readonly string[]): Write =>
  (s, name, x) => {
    const index = names.indexOf(x as string);
    if (index < 0) fail("OPTION", name, oneOf(names), show(x));
    s.params.push(index);
  };

/** 0, or 1 and the value. */
const optional =
  (write: Write): Write =>
  (s, name, x) => {
    s.params.push(isAbsent(x) ? 0 : 1);
    if (!isAbsent(x)) write(s, name, x);
  };

/** What the protocol wants always and users may leave out. */
const or =
  (value: unknown, write: Write): Write =>
  (s, name, x) =>
    write(s, name, isAbsent(x) ? value : x);

const isList = (x: unknown): x is ArrayLike<unknown> => isArray(x) || arrayType(x) === "Int32Array";

const list =
  (write: (s: Request, name: string, x: unknown, index: number) => void): Write =>
  (s, name, x) => {
    if (!isList(x)) return fail("OPTION", name, "an array", show(x));
    s.params.push(x.length);
    for (let i = 0; i < x.length; i++) write(s, name, x[i], i);
  };

const numbers = list(number);

/** Two values without a count before them. */
const pair =
  (names: string, write: Write): Write =>
  (s, name, x) => {
    if (!isArray(x) || x.length !== 2) fail("OPTION", name, names, show(x));
    for (const value of x) write(s, name, value);
  };

/** An object of options of its own. */
const record = (table: Record<string, Write>): Write => {
  const names = Object.keys(table);
  return (s, name, x) => {
    const options = checkOptions(name, x as Record<string, unknown>, names);
    for (const key in table) table[key]?.(s, `${name}.${key}`, options[key]);
  };
};

const operand = (s: Request, kind: number, shape: readonly number[], bytes: Uint8Array): void => {
  s.params.push(kind, shape.length);
  // (No spread: as arguments a rank could overflow the stack.)
  for (const extent of shape) s.params.push(extent);
  s.operands.push(bytes);
};

/** A tensor whose form is that of the result. */
function leading(s: Encoded, name: string, x: unknown): void {
  const { dtype, half } = tensor(s, name, x);
  s.dtype = dtype;
  s.half = half;
}

/** A tensor of q, k, v, x and weights. */
function tensor(s: Request, name: string, x: unknown): Form {
  const read = readTensor(name, x);
  operand(s, Kind[read.dtype], read.shape, read.bytes);
  return read;
}

/** Kind 0, or a tensor, or a bare Float32Array, which has one axis. */
const vector: Write = (s, name, x) => {
  if (isAbsent(x)) s.params.push(0);
  else if (arrayType(x) === "Float32Array") operand(s, Kind.float32, [(x as Float32Array).length], bytesOf(name, x as Float32Array));
  else tensor(s, name, x);
};

const mask: Write = (s, name, x) => {
  if (isAbsent(x)) return void s.params.push(0);
  const wanted = "a tensor whose data is a Uint8Array";
  if (!has(x, "data")) return fail("DTYPE", name, wanted, show(x));
  const { data } = x;
  if (!/^Uint8/.test(arrayType(data) ?? "")) fail("DTYPE", name, wanted, show(data));
  const shape = shapeOf(name, x);
  operand(s, Kind.uint8, shape, bytesOf(name, elementsOf(name, x, shape, data as Uint8Array)));
};

const object = (s: Request, handle: Handle): void => {
  s.objects.push({ slot: s.params.length, handle });
  s.params.push(0);
};

const maybeNumber = optional(number);
const maybeNumbers = optional(numbers);
/** One number is a list of one. */
const integers = optional((s, name, x) => numbers(s, name, typeof x === "number" ? [x] : x));
const layout = or("bhsd", choice("bhsd", "bshd"));
const pairing = optional(choice("interleaved", "halves", "grouped", "shared"));
const kvRepeat = optional(choice("paired", "flat"));

// The tables.

const HEAD: Table<types.HeadPlan> = { q: numbers, k: numbers, v: numbers, coefficients: maybeNumbers };

const ATTENTION: Table<types.AttentionOptions & Pick<types.DiffAttentionOptions, "norm" | "returnLse">> = {
  lambda(s, name, x) {
    s.params.push(isAbsent(x) ? 0 : typeof x === "number" ? 1 : 2);
    if (!isAbsent(x)) (typeof x === "number" ? number : vector)(s, name, x);
  },
  coefficients: maybeNumbers,
  pairing,
  heads: optional(list((s, name, x, index) => record(HEAD)(s, `${name}[${index}]`, x))),
  ratio: maybeNumber,
  kvRepeat,
  layout,
  scale: maybeNumber,
  isCausal: or(false, flag),
  softcap: maybeNumber,
  window: optional(pair("[left, right]", maybeNumber)),
  attnMask: mask,
  attnBias: vector,
  keyLengths: maybeNumbers,
  queryOffset: integers,
  cuSeqlensQ: maybeNumbers,
  cuSeqlensK: maybeNumbers,
  norm: optional(record({ eps: maybeNumber, weight: vector, scale: maybeNumber } satisfies Table<types.AttentionNorm>)),
  returnLse: or(false, flag),
  deterministic: or(false, flag),
};

const MAPS = { numKvHeads: maybeNumber, rows: optional(pair("[first, end]", number)) };

const GROUP_NORM = {
  numGroups: number,
  weight: vector,
  bias: vector,
  eps: maybeNumber,
  layout: or("nchw", choice("nchw", "nhwc")),
  activation: optional(choice("silu")),
};

const RMS_NORM = { weight: vector, eps: maybeNumber, scale: maybeNumber };

const ropeType = choice("default", "linear", "llama3", "yarn");

const SCALING: Table<types.RopeScaling> = {
  rope_type(s, name, x) {
    // An operator knows no model, and so not the length up to which it is the default.
    if (x === "dynamic") fail("OPTION", name, `"default" up to a model's length and "yarn" or "linear" past it`, show(x));
    ropeType(s, name, x);
  },
  rope_theta: maybeNumber,
  factor: maybeNumber,
  low_freq_factor: maybeNumber,
  high_freq_factor: maybeNumber,
  original_max_position_embeddings: maybeNumber,
  attention_factor: maybeNumber,
  beta_fast: maybeNumber,
  beta_slow: maybeNumber,
  mscale: maybeNumber,
  mscale_all_dim: maybeNumber,
  truncate: optional(flag),
};

const LAYER_ROPE: Table<types.LayerRope> = { interleaved: optional(flag), theta: maybeNumber, scaling: optional(record(SCALING)) };

const ROPE = {
  ...LAYER_ROPE,
  layout,
  firstPosition: integers,
  positions: optional((s, name, x) => {
    const isTensor = has(x, "data");
    const values = isTensor ? x.data : x;
    if (!isList(values)) return fail("OPTION", name, "an array, or a tensor of one", show(values));
    const shape = isTensor ? shapeOf(name, x) : [values.length];
    numbers(s, name, shape);
    numbers(s, name, isTensor ? elementsOf(name, x, shape, values) : values);
  }),
  rotaryDim: maybeNumber,
};

const DIFFERENCE = { order: maybeNumber, layout };

const KV_CACHE: Table<types.KvCacheOptions> = {
  groups: number,
  headDim: number,
  valueDim: number,
  capacity: maybeNumber,
  terms: maybeNumber,
  dtype: or("float32", choice(...DTYPES)),
  batch: maybeNumber,
};

const PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"].flatMap((name) => [`${name}.weight`, `${name}.bias`]);

/** A layer's weights, in the protocol's order. */
const weights =
  (...names: string[]): Write =>
  (s, name, x) => {
    const all = [...PROJECTIONS, ...names];
    if (isAbsent(x)) fail("OPTION", name, "an object of tensors", show(x));
    const given = checkOptions(name, x as Record<string, unknown>, [...all, "o_proj.weight", "o_proj.bias"]);
    for (const key of all) {
      const alias = key.replace("out_proj", "o_proj");
      if (alias !== key && !isAbsent(given[alias]) && !isAbsent(given[key])) fail("OPTION", name, `one of ${key} and ${alias}`, "both");
      const said = isAbsent(given[key]) ? alias : key;
      vector(s, said, given[said]);
    }
  };

const rope = optional(record(LAYER_ROPE));

const LAYER: Table<types.MultiheadDiffAttnOptions> = {
  embedDim: number,
  depth: number,
  numHeads: number,
  numKvHeads: maybeNumber,
  headDim: maybeNumber,
  rope,
  pairing,
  kvRepeat,
  isCausal: optional(flag),
  norm: optional(record({ eps: maybeNumber, affine: optional(flag) })),
  lambdaForm: optional(choice("vectors", "scalars")),
  sequence: optional(record({ order: or(1, number), share: number, fusion: number } satisfies Table<types.SequenceMix>)),
  weights: weights("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "lambda_a", "lambda_b", "subln.weight", "subln.bias"),
};

const LAYER_V2: Table<types.MultiheadDiffAttnV2Options> = {
  embedDim: number,
  numHeads: number,
  numKvHeads: maybeNumber,
  headDim: number,
  ratio: maybeNumber,
  rope,
  isCausal: optional(flag),
  weights: weights("lambda_proj.weight", "lambda_proj.bias"),
};

// The requests.

/** Options that are no part of a request (run.ts). */
const CALL = ["signal", "onProgress", "transfer"];

/** How options are written by their table. `besides` are known names that are not written, `refused` names of the table are unknown here. */
function writer(table: Record<string, Write>, besides: readonly string[] = [], refused: readonly string[] = []) {
  // Once per table: a small call feels it.
  const entries = Object.entries(table);
  const names = [...Object.keys(table).filter((name) => !refused.includes(name)), ...besides];
  return <T extends Request>(s: T, given: unknown): T => {
    const options = checkOptions("options", given as Record<string, unknown>, names);
    let at = "options";
    try {
      for (const [name, write] of entries) {
        at = name;
        write(s, name, options[name]);
      }
    } catch (thrown) {
      return unreadable("OPTION", at, thrown);
    }
    return s;
  };
}

const write = {
  nothing: writer({}, CALL),
  attention: writer(ATTENTION, ["out", ...CALL]),
  maps: writer({ ...ATTENTION, ...MAPS }, CALL, ["norm", "returnLse"]),
  layer: writer({ layer: number }),
  length: writer({ length: number }),
  layout: writer({ layout }),
  kvCache: writer(KV_CACHE),
  multiheadDiffAttn: writer(LAYER),
  multiheadDiffAttnV2: writer(LAYER_V2),
  forward: writer({ attnMask: mask }, ["cache", "out", ...CALL]),
};

/** An operator of one tensor. */
const ofTensor = (op: number, table: Record<string, Write>) => {
  const write = writer(table, ["out", ...CALL]);
  return (x: unknown, options: unknown): Encoded => {
    const s = stream(op);
    leading(s, "x", x);
    return write(s, options);
  };
};

export const groupNorm = ofTensor(Op.groupNorm, GROUP_NORM);
export const rmsNorm = ofTensor(Op.rmsNorm, RMS_NORM);
export const applyRope = ofTensor(Op.applyRope, ROPE);
export const sequenceDifference = ofTensor(Op.sequenceDifference, DIFFERENCE);

/** q, and either tensors or a cache. */
function source(op: number, q: unknown, cache: Handle | undefined, tensors: Record<string, unknown>): Encoded {
  const s = stream(op);
  leading(s, "q", q);
  s.params.push(cache ? 1 : 0);
  if (cache) object(s, cache);
  else for (const name in tensors) tensor(s, name, tensors[name]);
  return s;
}

export function diffAttention(q: unknown, k: unknown, v: unknown, options: unknown, cache: Handle | undefined): Encoded {
  if (cache && !isAbsent(v)) fail("OPTION", "v", "null beside a KvCache", show(v));
  return write.attention(source(Op.diffAttention, q, cache, { k, v }), options);
}

export function diffAttentionMaps(q: unknown, k: unknown, options: unknown, cache: Handle | undefined): Request {
  return write.maps(source(Op.diffAttentionMaps, q, cache, { k }), options);
}

export const lambdaInit = (layer: unknown): Request => write.layer(stream(Op.lambdaInit), { layer });

const given: Write = (s, name, x) => (isAbsent(x) ? tensor(s, name, x) : vector(s, name, x));
const lambdaVectors = writer({ q1: given, k1: given, q2: given, k2: given, init: number });

export const lambdaFull = (vectors: unknown): Request => lambdaVectors(stream(Op.lambdaFull), vectors);

export const createKvCache = (options: unknown): Request => write.kvCache(stream(Op.createKvCache), options);
export const createMultiheadDiffAttn = (options: unknown): Request => write.multiheadDiffAttn(stream(Op.createMultiheadDiffAttn), options);
export const createMultiheadDiffAttnV2 = (options: unknown): Request =>
  write.multiheadDiffAttnV2(stream(Op.createMultiheadDiffAttnV2), options);

/** A request that names an object and nothing else. */
export function aboutObject(op: number, handle: Handle): Encoded {
  const s = stream(op);
  object(s, handle);
  return s;
}

export function append(cache: Handle, k: unknown, v: unknown, options: unknown): Request {
  const s = aboutObject(Op.append, cache);
  tensor(s, "k", k);
  tensor(s, "v", v);
  return write.layout(s, options);
}

export const rewind = (cache: Handle, length: unknown): Request => write.length(aboutObject(Op.rewind, cache), { length });

export function forward(layer: Handle, x: unknown, cache: Handle | undefined, options: unknown): Encoded {
  const s = aboutObject(Op.forward, layer);
  leading(s, "x", x);
  s.params.push(cache ? 1 : 0);
  if (cache) object(s, cache);
  return write.forward(s, options);
}

export function layerMaps(layer: Handle, x: unknown, options: unknown): Request {
  const s = aboutObject(Op.layerMaps, layer);
  tensor(s, "x", x);
  return write.nothing(s, options);
}
