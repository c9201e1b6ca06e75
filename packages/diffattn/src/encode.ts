// Writes requests: one stream and one encoder per operator, in the order of crates/diffattn-door/PROTOCOL.md. Does no
// arithmetic and knows no default: what the user left out travels as absent.

import type { Handle, Operand, Request } from "./backend.js";
import { arrayType, bytesOf, checkOptions, dtypeOf, Kind, oneOf, shapeOf, show } from "./check.js";
import { fail } from "./errors.js";
import { Op } from "./ops.js";
import type * as types from "./types.js";

const LAYOUTS = ["bhsd", "bshd"] as const;
const PAIRINGS = ["interleaved", "halves", "grouped", "shared"] as const;
const KV_REPEATS = ["paired", "flat"] as const;
const ROPE_TYPES = ["default", "linear", "llama3", "yarn"] as const;
const DTYPES = ["float32", "float16", "bfloat16"] as const;

const CALL = ["signal", "onProgress", "transfer"] as const;
const ATTENTION = [
  "lambda", "coefficients", "pairing", "heads", "ratio", "kvRepeat", "layout", "scale", "isCausal", "softcap", "window", "attnMask",
  "attnBias", "keyLengths", "queryOffset", "cuSeqlensQ", "cuSeqlensK", "deterministic",
] as const;
const SCALING = [
  "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
  "mscale", "mscale_all_dim",
] as const;
const V1_WEIGHTS = [
  "q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias", "out_proj.weight", "out_proj.bias",
  "lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "lambda_a", "lambda_b", "subln.weight", "subln.bias",
] as const;
const V2_WEIGHTS = [...V1_WEIGHTS.slice(0, 8), "lambda_proj.weight", "lambda_proj.bias"] as const;

type Maybe<T> = T | null | undefined;
type Integers = number | readonly number[] | Int32Array;

/** A request under construction. Absent = undefined or null. */
class Stream implements Request {
  params: number[] = [];
  operands: Operand[] = [];
  objects: { slot: number; handle: Handle }[] = [];

  constructor(readonly op: number) {}

  number(name: string, x: unknown): void {
    if (typeof x !== "number") fail("OPTION", name, "a number", show(x));
    this.params.push(x);
  }

  flag(name: string, x: unknown): void {
    if (typeof x !== "boolean") fail("OPTION", name, "true or false", show(x));
    this.params.push(x ? 1 : 0);
  }

  choice(name: string, x: unknown, names: readonly string[]): void {
    const index = names.indexOf(x as string);
    if (index < 0) fail("OPTION", name, oneOf(names), show(x));
    this.params.push(index);
  }

  /** 0, or 1 and what `write` writes. */
  optional<T>(x: Maybe<T>, write: (x: T) => void): void {
    const present = x !== undefined && x !== null;
    this.params.push(present ? 1 : 0);
    if (present) write(x);
  }

  maybeNumber = (name: string, x: unknown): void => this.optional(x, (x) => this.number(name, x));
  maybeFlag = (name: string, x: unknown): void => this.optional(x, (x) => this.flag(name, x));
  maybeChoice = (name: string, x: unknown, names: readonly string[]): void => this.optional(x, (x) => this.choice(name, x, names));

  list<T>(name: string, x: unknown, write: (x: T, index: number) => void): void {
    if (!Array.isArray(x) && arrayType(x) !== "Int32Array") fail("OPTION", name, "an array", show(x));
    const items = x as ArrayLike<T>;
    this.params.push(items.length);
    for (let i = 0; i < items.length; i++) write(items[i] as T, i);
  }

  numbers(name: string, x: unknown): void {
    this.list(name, x, (x) => this.number(name, x));
  }

  /** Numbers of which one alone is a list of one. */
  maybeNumbers(name: string, x: Maybe<Integers>): void {
    this.optional(x, (x) => this.numbers(name, typeof x === "number" ? [x] : x));
  }

  private operand(name: string, kind: number, shape: readonly number[], data: ArrayBufferView): void {
    this.params.push(kind, shape.length, ...shape);
    this.operands.push({ name, bytes: bytesOf(name, data) });
  }

  /** A tensor of q, k, v, x and weights: float32, float16 or bfloat16. Returns its form. */
  tensor(name: string, x: unknown): Form {
    if (typeof x !== "object" || x === null || !("data" in x)) return fail("DTYPE", name, "a tensor { data, shape }", show(x));
    const { data, dtype, type } = x as Record<keyof types.TensorLike, unknown>;
    const element = dtypeOf(name, data, dtype, type);
    this.operand(name, Kind[element], shapeOf(name, x as object), data as ArrayBufferView);
    return { dtype: element, half: arrayType(data) === "Float16Array" };
  }

  /** The same, or a bare Float32Array, which has one axis. */
  vector(name: string, x: unknown): void {
    if (arrayType(x) === "Float32Array") this.operand(name, Kind.float32, [(x as Float32Array).length], x as Float32Array);
    else this.tensor(name, x);
  }

  maybeVector(name: string, x: unknown): void {
    if (x === undefined || x === null) this.params.push(0);
    else this.vector(name, x);
  }

  maybeMask(name: string, mask: Maybe<types.MaskLike>): void {
    if (mask === undefined || mask === null) {
      this.params.push(0);
      return;
    }
    const kind = { Uint8Array: Kind.uint8, Uint8ClampedArray: Kind.uint8 }[arrayType(mask.data) ?? ""];
    if (kind === undefined) fail("DTYPE", name, "a tensor whose data is a Uint8Array", show(mask.data ?? mask));
    this.operand(name, kind, shapeOf(name, mask), mask.data);
  }

  object(handle: Handle): void {
    this.objects.push({ slot: this.params.length, handle });
    this.params.push(0);
  }

  rope(rope: types.LayerRope): void {
    this.maybeFlag("interleaved", rope.interleaved);
    this.maybeNumber("theta", rope.theta);
    this.optional(rope.scaling, (given) => {
      const scaling = checkOptions("scaling", given, ["rope_type", "rope_theta", ...SCALING, "truncate"]);
      this.choice("rope_type", scaling.rope_type, ROPE_TYPES);
      this.maybeNumber("rope_theta", scaling.rope_theta);
      for (const name of SCALING) this.maybeNumber(name, scaling[name]);
      this.maybeFlag("truncate", scaling.truncate);
    });
  }

  attention(o: Partial<types.DiffAttentionOptions>): void {
    const { lambda } = o;
    if (lambda === undefined || lambda === null) {
      this.params.push(0);
    } else if (typeof lambda === "number") {
      this.params.push(1, lambda);
    } else {
      this.params.push(2);
      this.vector("lambda", lambda);
    }
    this.optional(o.coefficients, (x) => this.numbers("coefficients", x));
    this.maybeChoice("pairing", o.pairing, PAIRINGS);
    this.optional(o.heads, (heads) =>
      this.list<types.HeadPlan>("heads", heads, (given, index) => {
        const name = `heads[${index}]`;
        const head = checkOptions(name, given, ["q", "k", "v", "coefficients"]);
        this.numbers(`${name}.q`, head.q);
        this.numbers(`${name}.k`, head.k);
        this.numbers(`${name}.v`, head.v);
        this.optional(head.coefficients, (x) => this.numbers(`${name}.coefficients`, x));
      }),
    );
    this.maybeNumber("ratio", o.ratio);
    this.maybeChoice("kvRepeat", o.kvRepeat, KV_REPEATS);
    this.choice("layout", o.layout ?? LAYOUTS[0], LAYOUTS);
    this.maybeNumber("scale", o.scale);
    this.flag("isCausal", o.isCausal ?? false);
    this.maybeNumber("softcap", o.softcap);
    this.optional(o.window, (window) => {
      if (!Array.isArray(window) || window.length !== 2) fail("OPTION", "window", "[left, right]", show(window));
      this.maybeNumber("window", window[0]);
      this.maybeNumber("window", window[1]);
    });
    this.maybeMask("attnMask", o.attnMask);
    this.maybeVector("attnBias", o.attnBias);
    this.maybeNumbers("keyLengths", o.keyLengths);
    this.maybeNumbers("queryOffset", o.queryOffset);
    this.maybeNumbers("cuSeqlensQ", o.cuSeqlensQ);
    this.maybeNumbers("cuSeqlensK", o.cuSeqlensK);
    this.optional(o.norm, (given) => {
      const norm = checkOptions("norm", given, ["eps", "weight", "scale"]);
      this.maybeNumber("norm.eps", norm.eps);
      this.maybeVector("norm.weight", norm.weight);
      this.maybeNumber("norm.scale", norm.scale);
    });
    this.flag("returnLse", o.returnLse ?? false);
    this.flag("deterministic", o.deterministic ?? false);
  }

  weights(names: readonly string[], given: unknown): void {
    const known = [...names, "o_proj.weight", "o_proj.bias"];
    if (given === undefined || given === null) fail("OPTION", "weights", "an object of tensors", show(given));
    const weights: Record<string, unknown> = checkOptions("weights", given, known);
    for (const name of names) {
      const alias = name.replace("out_proj", "o_proj");
      if (alias !== name && weights[alias] && weights[name]) fail("OPTION", "weights", `one of ${name} and ${alias}`, "both");
      const said = weights[name] ? name : alias;
      this.maybeVector(said, weights[said]);
    }
  }
}

/** A request and how its result is given, where the caller's tensor decides that. */
export type Encoded = Request & Form;

/** A tensor's element type, and whether a Float16Array holds it. */
interface Form {
  dtype: types.DType;
  half: boolean;
}

export function diffAttention(q: unknown, k: unknown, v: unknown, given: types.DiffAttentionOptions, cache: Handle | undefined): Encoded {
  const options = checkOptions("options", given, [...ATTENTION, "norm", "returnLse", "out", ...CALL]);
  const s = new Stream(Op.diffAttention);
  const form = s.tensor("q", q);
  s.params.push(cache ? 1 : 0);
  if (cache) {
    if (v !== undefined && v !== null) fail("OPTION", "v", "null beside a KvCache", show(v));
    s.object(cache);
  } else {
    s.tensor("k", k);
    s.tensor("v", v);
  }
  s.attention(options);
  return Object.assign(s, form);
}

export function diffAttentionMaps(q: unknown, k: unknown, given: types.DiffAttentionMapsOptions, cache: Handle | undefined): Request {
  const options = checkOptions("options", given, [...ATTENTION, "numKvHeads", "rows", ...CALL]);
  const s = new Stream(Op.diffAttentionMaps);
  s.tensor("q", q);
  s.params.push(cache ? 1 : 0);
  if (cache) s.object(cache);
  else s.tensor("k", k);
  s.attention(options);
  s.maybeNumber("numKvHeads", options.numKvHeads);
  s.optional(options.rows, (rows) => {
    if (!Array.isArray(rows) || rows.length !== 2) fail("OPTION", "rows", "[first, end]", show(rows));
    s.number("rows", rows[0]);
    s.number("rows", rows[1]);
  });
  return s;
}

export function groupNorm(x: unknown, given: types.GroupNormOptions): Encoded {
  const options = checkOptions("options", given, ["numGroups", "weight", "bias", "eps", "layout", "activation", "out", ...CALL]);
  const s = new Stream(Op.groupNorm);
  const form = s.tensor("x", x);
  s.number("numGroups", options.numGroups);
  s.maybeVector("weight", options.weight);
  s.maybeVector("bias", options.bias);
  s.maybeNumber("eps", options.eps);
  s.choice("layout", options.layout ?? "nchw", ["nchw", "nhwc"]);
  s.maybeChoice("activation", options.activation, ["silu"]);
  return Object.assign(s, form);
}

export function rmsNorm(x: unknown, given?: types.RmsNormOptions): Encoded {
  const options = checkOptions("options", given, ["weight", "eps", "scale", "out", ...CALL]);
  const s = new Stream(Op.rmsNorm);
  const form = s.tensor("x", x);
  s.maybeVector("weight", options.weight);
  s.maybeNumber("eps", options.eps);
  s.maybeNumber("scale", options.scale);
  return Object.assign(s, form);
}

export function applyRope(x: unknown, given?: types.RopeOptions): Encoded {
  const options = checkOptions("options", given, [
    "layout", "interleaved", "theta", "firstPosition", "positions", "rotaryDim", "scaling", "out", ...CALL,
  ]);
  const s = new Stream(Op.applyRope);
  const form = s.tensor("x", x);
  s.rope(options);
  s.choice("layout", options.layout ?? LAYOUTS[0], LAYOUTS);
  s.maybeNumbers("firstPosition", options.firstPosition);
  s.optional(options.positions, (positions) => {
    const tensor = "data" in positions;
    const values = tensor ? positions.data : positions;
    s.numbers("positions", tensor ? shapeOf("positions", positions) : [values.length]);
    s.numbers("positions", values);
  });
  s.maybeNumber("rotaryDim", options.rotaryDim);
  return Object.assign(s, form);
}

export function sequenceDifference(x: unknown, given?: types.SequenceDifferenceOptions): Encoded {
  const options = checkOptions("options", given, ["order", "layout", "out", ...CALL]);
  const s = new Stream(Op.sequenceDifference);
  const form = s.tensor("x", x);
  s.maybeNumber("order", options.order);
  s.choice("layout", options.layout ?? LAYOUTS[0], LAYOUTS);
  return Object.assign(s, form);
}

export function lambdaInit(layer: unknown): Request {
  const s = new Stream(Op.lambdaInit);
  s.number("layer", layer);
  return s;
}

export function lambdaFull(given: Parameters<typeof types.lambdaFull>[0]): Request {
  const vectors = checkOptions("vectors", given, ["q1", "k1", "q2", "k2", "init"]);
  const s = new Stream(Op.lambdaFull);
  for (const name of ["q1", "k1", "q2", "k2"] as const) s.vector(name, vectors[name]);
  s.number("init", vectors.init);
  return s;
}

export function createKvCache(given: types.KvCacheOptions): Request {
  const options = checkOptions("options", given, ["groups", "headDim", "valueDim", "capacity", "terms", "dtype", "batch"]);
  const s = new Stream(Op.createKvCache);
  s.number("groups", options.groups);
  s.number("headDim", options.headDim);
  s.number("valueDim", options.valueDim);
  s.maybeNumber("capacity", options.capacity);
  s.maybeNumber("terms", options.terms);
  s.choice("dtype", options.dtype ?? DTYPES[0], DTYPES);
  s.maybeNumber("batch", options.batch);
  return s;
}

export function append(cache: Handle, k: unknown, v: unknown, given?: { layout?: types.AttentionLayout | undefined }): Request {
  const options = checkOptions("options", given, ["layout"]);
  const s = new Stream(Op.append);
  s.object(cache);
  s.tensor("k", k);
  s.tensor("v", v);
  s.choice("layout", options.layout ?? LAYOUTS[0], LAYOUTS);
  return s;
}

export function rewind(cache: Handle, length: unknown): Request {
  const s = new Stream(Op.rewind);
  s.object(cache);
  s.number("length", length);
  return s;
}

/** A request that names an object and nothing else. */
export function aboutObject(op: number, handle: Handle): Request {
  const s = new Stream(op);
  s.object(handle);
  return s;
}

/** Drops the object that a door knows by `id`. */
export function drop(id: number): Request {
  const s = new Stream(Op.drop);
  s.params.push(id);
  return s;
}

/** Appends what exportCache gave. */
export function appendExported(cache: Handle, exported: { kind: number; shape: number[]; buffer: ArrayBuffer | null }[]): Request {
  const s = new Stream(Op.append);
  s.object(cache);
  for (const { kind, shape, buffer } of exported) {
    s.params.push(kind, shape.length, ...shape);
    s.operands.push({ name: "cache", bytes: new Uint8Array(buffer ?? new ArrayBuffer(0)) });
  }
  s.choice("layout", "bhsd", LAYOUTS);
  return s;
}

function layerRope(s: Stream, rope: Maybe<types.LayerRope>): void {
  s.optional(rope, (given) => s.rope(checkOptions("rope", given, ["interleaved", "theta", "scaling"])));
}

export function createMultiheadDiffAttn(given: types.MultiheadDiffAttnOptions): Request {
  const options = checkOptions("options", given, [
    "embedDim", "depth", "numHeads", "numKvHeads", "headDim", "rope", "pairing", "kvRepeat", "isCausal", "norm", "lambdaForm",
    "sequence", "weights",
  ]);
  const s = new Stream(Op.createMultiheadDiffAttn);
  s.number("embedDim", options.embedDim);
  s.number("depth", options.depth);
  s.number("numHeads", options.numHeads);
  s.maybeNumber("numKvHeads", options.numKvHeads);
  s.maybeNumber("headDim", options.headDim);
  layerRope(s, options.rope);
  s.maybeChoice("pairing", options.pairing, PAIRINGS);
  s.maybeChoice("kvRepeat", options.kvRepeat, KV_REPEATS);
  s.maybeFlag("isCausal", options.isCausal);
  s.optional(options.norm, (given) => {
    const norm = checkOptions("norm", given, ["eps", "affine"]);
    s.maybeNumber("norm.eps", norm.eps);
    s.maybeFlag("norm.affine", norm.affine);
  });
  s.maybeChoice("lambdaForm", options.lambdaForm, ["vectors", "scalars"]);
  s.optional(options.sequence, (given) => {
    const sequence = checkOptions("sequence", given, ["order", "share", "fusion"]);
    s.number("sequence.order", sequence.order);
    s.number("sequence.share", sequence.share);
    s.number("sequence.fusion", sequence.fusion);
  });
  s.weights(V1_WEIGHTS, options.weights);
  return s;
}

export function createMultiheadDiffAttnV2(given: types.MultiheadDiffAttnV2Options): Request {
  const options = checkOptions("options", given, ["embedDim", "numHeads", "numKvHeads", "headDim", "ratio", "rope", "isCausal", "weights"]);
  const s = new Stream(Op.createMultiheadDiffAttnV2);
  s.number("embedDim", options.embedDim);
  s.number("numHeads", options.numHeads);
  s.maybeNumber("numKvHeads", options.numKvHeads);
  s.number("headDim", options.headDim);
  s.maybeNumber("ratio", options.ratio);
  layerRope(s, options.rope);
  s.maybeFlag("isCausal", options.isCausal);
  s.weights(V2_WEIGHTS, options.weights);
  return s;
}

export function forward(layer: Handle, x: unknown, cache: Handle | undefined, given?: types.LayerForwardOptions): Encoded {
  const options = checkOptions("options", given, ["cache", "attnMask", "out", ...CALL]);
  const s = new Stream(Op.forward);
  s.object(layer);
  const form = s.tensor("x", x);
  s.optional(cache, (cache) => s.object(cache));
  s.maybeMask("attnMask", options.attnMask);
  return Object.assign(s, form);
}

export function layerMaps(layer: Handle, x: unknown, given?: types.CallOptions): Request {
  checkOptions("options", given, CALL);
  const s = new Stream(Op.layerMaps);
  s.object(layer);
  s.tensor("x", x);
  return s;
}
