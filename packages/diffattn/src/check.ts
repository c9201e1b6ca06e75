// What TypeScript alone can know of an argument: its JavaScript type, an unknown option name, a shape that disagrees with
// dims, a detached buffer. Everything else is checked in Rust, once for both backends.

import { fail } from "./errors.js";
import type { DType } from "./types.js";

/** A value as an error sentence prints it. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) return value.length > 8 ? `an array of ${value.length}` : `[${value.map(show).join(", ")}]`;
  return Object.prototype.toString.call(value).slice(8, -1) === "Object"
    ? "an object"
    : `a ${arrayType(value) ?? (value.constructor as { name?: string } | undefined)?.name ?? "value"}`;
}

/** `"a", "b" or "c"`. */
export const oneOf = (names: readonly string[]): string =>
  names
    .map(show)
    .join(", ")
    .replace(/, ("[^"]*")$/, " or $1");

/** The getters that all typed arrays share: what they tell of one is so, whatever properties that has of its own. */
const shared = Object.getOwnPropertyDescriptors(Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array<ArrayBuffer>);
type Getter<T> = (this: unknown) => T;
const typeTag = shared[Symbol.toStringTag].get as Getter<string | undefined>;
const bufferOf = shared.buffer.get as Getter<ArrayBuffer>;
const offsetOf = shared.byteOffset.get as Getter<number>;
const lengthOf = shared.byteLength.get as Getter<number>;

/** A typed array's type by its tag, so that arrays of another realm count too; undefined for anything else. */
export const arrayType = (data: unknown): string | undefined => typeTag.call(data);

/** Options as an object whose names are all known; null and undefined are none. */
export function checkOptions<T extends object>(argument: string, options: T | null | undefined, names: readonly string[]): Partial<T> {
  if (options === undefined || options === null) return {};
  if (typeof options !== "object") fail("OPTION", argument, "an object", show(options));
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) fail("OPTION", argument, `only ${names.join(", ")}`, show(name));
  }
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

/** A tensor's shape from `shape` and `dims`. */
export function shapeOf(argument: string, tensor: object): readonly number[] {
  const given = tensor as { shape?: unknown; dims?: unknown };
  const { shape = given.dims, dims = shape } = given;
  const numbers = (x: unknown): x is readonly number[] => Array.isArray(x) && x.every((n) => typeof n === "number");
  if (!numbers(shape)) return fail("SHAPE", argument, "a shape (or dims) of numbers", show(shape));
  if (dims === shape) return shape;
  if (!numbers(dims)) return fail("SHAPE", argument, "a shape (or dims) of numbers", show(dims));
  if (shape.length !== dims.length || shape.some((n, i) => n !== dims[i]))
    fail("SHAPE", argument, "shape and dims that agree", `${show(shape)} and ${show(dims)}`);
  return shape;
}

/** The protocol's numbers for element types. */
export const Kind = { float32: 1, float16: 2, bfloat16: 3, uint8: 4, int32: 5 } as const;

/** Element types in the order of their kinds, from 1. */
export const DTYPES: readonly DType[] = ["float32", "float16", "bfloat16"];

/** The element type of a tensor's data, in agreement with what it says of itself. */
export function dtypeOf(argument: string, data: unknown, dtype: unknown, type: unknown): DType {
  const array = arrayType(data);
  const said = dtype ?? type;
  if (type !== undefined && said !== type) fail("DTYPE", argument, "dtype and type that agree", `${show(dtype)} and ${show(type)}`);
  if (said !== undefined && !DTYPES.includes(said as DType)) fail("DTYPE", argument, `a dtype of ${oneOf(DTYPES)}`, show(said));
  const held: readonly DType[] =
    array === "Float32Array"
      ? ["float32"]
      : array === "Float16Array"
        ? ["float16"]
        : array === "Uint16Array"
          ? ["float16", "bfloat16"]
          : [];
  if (held.length === 0)
    return fail("DTYPE", argument, "data in a Float32Array, a Float16Array, or a Uint16Array with a dtype", show(data));
  const [only] = held;
  if (said === undefined)
    return held.length === 1 && only ? only : fail("DTYPE", argument, `a dtype of ${oneOf(held)} with a Uint16Array`, "none");
  return held.includes(said as DType) ? (said as DType) : fail("DTYPE", argument, `a dtype of ${oneOf(held)} with a ${array}`, show(said));
}

/** The array that results go into: of the result's element type. */
export function checkOut(out: unknown, dtype: DType): Uint8Array {
  const arrays = { float32: ["Float32Array"], float16: ["Uint16Array", "Float16Array"], bfloat16: ["Uint16Array"] }[dtype];
  const array = arrayType(out);
  if (array === undefined || !arrays.includes(array))
    return fail("DTYPE", "out", `a ${arrays.join(" or a ")} for a ${dtype} result`, show(out));
  return bytesOf("out", out as ArrayBufferView);
}

/** Whether two ranges of bytes share memory. */
export const overlaps = (a: Uint8Array, b: Uint8Array): boolean =>
  a.buffer === b.buffer && Math.max(a.byteOffset, b.byteOffset) < Math.min(a.byteOffset + a.byteLength, b.byteOffset + b.byteLength);
