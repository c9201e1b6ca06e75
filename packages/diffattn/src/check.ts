// What TypeScript alone can know of an argument: its JavaScript type, an unknown option name, a
// shape that disagrees with dims, strides that are not the shape's, a detached buffer. Everything
// else is checked in Rust, once for both backends.

import { cut, DiffAttnError, fail, reasonOf, SHOWN } from "./errors.js";
import { hint } from "./hint.js";
import type { DType, ErrorCode } from "./types.js";

/** How deep arrays within arrays are shown. */
const DEPTH = 3;
/** How many items of an array are shown. */
const ITEMS = 8;
/** The digits of larger ones take long to find. */
const LARGEST_BIGINT = 1n << 512n;

function shown(value: unknown, depth: number): string {
  switch (typeof value) {
    case "string":
      // Cut first: escapes make a text longer.
      return JSON.stringify(cut(value, SHOWN - 2));
    case "function":
      return "a function";
    case "bigint":
      return value < LARGEST_BIGINT && value > -LARGEST_BIGINT ? `${value}n` : "a BigInt of more than 154 digits";
    case "object":
      break;
    default:
      return String(value);
  }
  if (value === null) return "null";
  if (Array.isArray(value)) {
    const { length } = value as unknown[];
    if (length > ITEMS || (depth === 0 && length > 0)) return `an array of ${length}`;
    return `[${Array.from(value as unknown[], (item) => shown(item, depth - 1)).join(", ")}]`;
  }
  if (tagOf(value) === "Object") return "an object";
  const name: unknown = arrayType(value) ?? (value.constructor as { name?: unknown } | undefined)?.name;
  return `a ${typeof name === "string" && name !== "" ? name : "value"}`;
}

/** A value as an error sentence prints it: of bounded length, whatever it is. */
export function show(value: unknown): string {
  try {
    return cut(shown(value, DEPTH));
  } catch {
    // A revoked proxy, or a getter that throws.
    return "a value that cannot be read";
  }
}

/** `"a", "b" or "c"`. */
export const oneOf = (names: readonly string[]): string =>
  names
    .map(show)
    .join(", ")
    .replace(/, ("[^"]*")$/, " or $1");

/**
 * The getters that all typed arrays share: what they tell of one is so, whatever properties that
 * has of its own.
 */
const shared = Object.getOwnPropertyDescriptors(Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array<ArrayBuffer>);
type Getter<T> = (this: unknown) => T;
const typeTag = shared[Symbol.toStringTag].get as Getter<string | undefined>;
const bufferOf = shared.buffer.get as Getter<ArrayBuffer>;
const offsetOf = shared.byteOffset.get as Getter<number>;
const lengthOf = shared.byteLength.get as Getter<number>;

/** The tag that a value has in every realm; empty where it cannot be read (a revoked proxy). */
export function tagOf(x: unknown): string {
  try {
    return Object.prototype.toString.call(x).slice(8, -1);
  } catch {
    return "";
  }
}

/** Whether a value is an object that has a property of that name; no, where it cannot be read. */
export function has<K extends string | symbol>(x: unknown, name: K): x is Record<K, unknown> {
  try {
    return typeof x === "object" && x !== null && name in x;
  } catch {
    return false;
  }
}

/** Whether a value is of a class, through a proxy too; no, where it cannot be read. */
export function isOf<T>(x: unknown, type: abstract new (...args: never[]) => T): x is T {
  try {
    return x instanceof type;
  } catch {
    return false;
  }
}

/** Whether a value is an array; no, where it cannot be read. */
export function isArray(x: unknown): x is unknown[] {
  try {
    return Array.isArray(x);
  } catch {
    return false;
  }
}

export const isAbsent = (x: unknown): x is null | undefined => x === undefined || x === null;

/** What reading an argument threw (a getter of the caller's, a proxy), as our own error. */
export function unreadable(code: ErrorCode, argument: string, thrown: unknown): never {
  if (thrown instanceof DiffAttnError) throw thrown;
  return fail(code, argument, "a value that can be read", `an exception: ${reasonOf(thrown)}`, thrown);
}

/**
 * A typed array's type by its tag, so that arrays of another realm count too; undefined for
 * anything else.
 */
export const arrayType = (data: unknown): string | undefined => typeTag.call(data);

/** Options as an object whose names are all known; null and undefined are none. */
export function checkOptions<T extends object>(argument: string, options: T | null | undefined, names: readonly string[]): Partial<T> {
  if (options === undefined || options === null) return {};
  if (typeof options !== "object") fail("OPTION", argument, "an object", show(options));
  let given: string[];
  try {
    given = Object.keys(options);
  } catch (thrown) {
    return unreadable("OPTION", argument, thrown);
  }
  for (const name of given) {
    if (!names.includes(name)) fail("OPTION", argument, `only ${names.join(", ")}`, `${show(name)}${hint(name, names)}`);
  }
  // A Map, a promise or an array says nothing that would be heard.
  if (given.length === 0 && tagOf(options) !== "Object") fail("OPTION", argument, "an object", show(options));
  return options;
}

/** A view's bytes, in place. */
export function bytesOf(argument: string, view: ArrayBufferView): Uint8Array {
  try {
    if (typeTag.call(view) === undefined) return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    return new Uint8Array(bufferOf.call(view), offsetOf.call(view), lengthOf.call(view));
  } catch {
    // The one way in which a view of a view's own range fails.
    return fail("SHAPE", argument, "a buffer with its memory", "a detached one");
  }
}

/** An array of numbers, without holes. */
function numbers(x: unknown): x is readonly number[] {
  if (!isArray(x)) return false;
  for (let i = 0; i < x.length; i++) if (typeof x[i] !== "number") return false;
  return true;
}

/** A tensor's shape from `shape` and `dims`. */
export function shapeOf(argument: string, tensor: object): readonly number[] {
  const given = tensor as { shape?: unknown; dims?: unknown };
  const { shape = given.dims, dims = shape } = given;
  if (!numbers(shape)) return fail("SHAPE", argument, "a shape (or dims) of numbers", show(shape));
  if (dims === shape) return shape;
  if (!numbers(dims)) return fail("SHAPE", argument, "a shape (or dims) of numbers", show(dims));
  if (shape.length !== dims.length || shape.some((n, i) => n !== dims[i]))
    fail("SHAPE", argument, "shape and dims that agree", `${show(shape)} and ${show(dims)}`);
  return shape;
}

/**
 * What a tensor may say of where its elements lie, in elements (ndarray: `stride`; others:
 * `strides`).
 */
interface Placed {
  stride?: unknown;
  strides?: unknown;
  offset?: unknown;
}

/**
 * Whether strides are those of elements side by side, last axis fastest. An axis of one element has
 * none that matters.
 */
function contiguous(shape: readonly number[], strides: ArrayLike<unknown>): boolean {
  for (let axis = shape.length - 1, expected = 1; axis >= 0; axis--) {
    const extent = shape[axis] ?? 0;
    if (extent !== 1 && strides[axis] !== expected) return false;
    expected *= extent;
  }
  return true;
}

/**
 * The elements of a tensor, in place: `data` itself, or, where the tensor says an offset or
 * strides, the part of it that they name. Elements that do not lie side by side are refused: a copy
 * is the caller's to make.
 */
export function elementsOf<D extends ArrayLike<unknown>>(argument: string, tensor: object, shape: readonly number[], data: D): D {
  const { stride, strides, offset } = tensor as Placed;
  if (stride === undefined && strides === undefined && offset === undefined) return data;
  return placed(argument, shape, data, [stride, strides], offset);
}

function placed<D extends ArrayLike<unknown>>(
  argument: string,
  shape: readonly number[],
  data: D,
  said: readonly unknown[],
  offset: unknown,
): D {
  const count = shape.reduce((product, extent) => product * extent, 1);
  for (const strides of said) {
    if (isAbsent(strides)) continue;
    const isList = Array.isArray(strides) || arrayType(strides) !== undefined;
    const list = isList ? (strides as ArrayLike<unknown>) : [];
    if (!isList || list.length !== shape.length) fail("SHAPE", argument, "a stride per axis", `${show(strides)} for ${show(shape)}`);
    if (count > 0 && !contiguous(shape, list)) {
      const wanted = "elements side by side, last axis fastest (of a strided view: a contiguous copy)";
      fail("SHAPE", argument, wanted, `the strides ${show(Array.from(list))} for ${show(shape)}`);
    }
  }
  if (isAbsent(offset) && said.every(isAbsent)) return data;
  const start = offset ?? 0;
  if (!Number.isInteger(start) || (start as number) < 0) fail("SHAPE", argument, "an offset in elements", show(offset));
  const [first, end] = [start as number, (start as number) + (count > 0 ? count : 0)];
  // (What is no count as an extent is refused in Rust.)
  if (end > data.length) fail("SHAPE", argument, `${count} elements from ${first} on`, `data of ${data.length}`);
  if (first === 0 && end === data.length) return data;
  return Array.isArray(data)
    ? (data.slice(first, end) as unknown as D)
    : (data as unknown as { subarray(first: number, end: number): D }).subarray(first, end);
}

/** The protocol's numbers for element types. */
export const Kind = { float32: 1, float16: 2, bfloat16: 3, uint8: 4, int32: 5 } as const;

/** Element types in the order of their kinds, from 1. */
export const DTYPES: readonly DType[] = ["float32", "float16", "bfloat16"];

/** What each array holds elements of. */
const HELD: Readonly<Record<string, readonly DType[]>> = {
  Float32Array: ["float32"],
  Uint16Array: ["float16", "bfloat16"],
  Float16Array: ["float16"],
};

/** The element type of a tensor's data, in agreement with what it says of itself. */
export function dtypeOf(argument: string, data: unknown, dtype: unknown, type: unknown): DType {
  const said = dtype ?? type;
  if (type !== undefined && said !== type) fail("DTYPE", argument, "dtype and type that agree", `${show(dtype)} and ${show(type)}`);
  if (said !== undefined && !DTYPES.includes(said as DType)) fail("DTYPE", argument, `a dtype of ${oneOf(DTYPES)}`, show(said));
  const array = arrayType(data) ?? "";
  const held = HELD[array];
  if (!held) return fail("DTYPE", argument, "data in a Float32Array, a Float16Array, or a Uint16Array with a dtype", show(data));
  const [only] = held;
  if (said === undefined && only && held.length === 1) return only;
  if (held.includes(said as DType)) return said as DType;
  return fail("DTYPE", argument, `a dtype of ${oneOf(held)} with a ${array}`, said === undefined ? "none" : show(said));
}

/**
 * A tensor of q, k, v, x, weights, pixels: its element type, whether a Float16Array holds it, its
 * shape and its bytes in place.
 */
export interface Read {
  readonly dtype: DType;
  readonly half: boolean;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** The one reader of tensors. */
export function readTensor(argument: string, x: unknown): Read {
  if (!has(x, "data")) return fail("DTYPE", argument, "a tensor { data, shape }", show(x));
  try {
    const { data, dtype: said, type } = x as { data: unknown; dtype?: unknown; type?: unknown };
    const dtype = dtypeOf(argument, data, said, type);
    const shape = shapeOf(argument, x);
    const bytes = bytesOf(argument, elementsOf(argument, x, shape, data as Float32Array));
    return { dtype, half: arrayType(data) === "Float16Array", shape, bytes };
  } catch (thrown) {
    return unreadable("DTYPE", argument, thrown);
  }
}

/** The array that results go into: of the result's element type. */
export function checkOut(argument: string, out: unknown, dtype: DType): Uint8Array {
  if (!HELD[arrayType(out) ?? ""]?.includes(dtype)) {
    const arrays = Object.keys(HELD).filter((array) => HELD[array]?.includes(dtype));
    fail("DTYPE", argument, `a ${arrays.join(" or a ")} for a ${dtype} result`, show(out));
  }
  return bytesOf(argument, out as ArrayBufferView);
}

/** Whether two ranges of bytes share memory. */
export const overlaps = (a: Uint8Array, b: Uint8Array): boolean =>
  a.buffer === b.buffer && Math.max(a.byteOffset, b.byteOffset) < Math.min(a.byteOffset + a.byteLength, b.byteOffset + b.byteLength);
