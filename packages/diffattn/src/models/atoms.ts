// The atoms of requests of models: those of operators, and what the package itself makes of files,
// texts and images. Knows no request.

import { operand, type Stream, tensor, type Write, writeList } from "../atoms.js";
import { arrayType, bytesOf, elementsOf, has, isArray, Kind, shapeOf, show } from "../check.js";
import { fail } from "../errors.js";
import type * as types from "../types.js";
import type { Int8Tensor } from "./types.js";

export * from "../atoms.js";

/** Elements and their shape. */
export interface Raw<D> {
  readonly data: D;
  readonly shape: readonly number[];
}

type Elements = Uint8Array | Int32Array;

const elements = (s: Stream, kind: number, x: Elements | Raw<Elements>): void => {
  const { data, shape } = ArrayBuffer.isView(x) ? { data: x, shape: [x.length] } : x;
  operand(s, kind, shape, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
};

export const uint8: Write<Uint8Array | Raw<Uint8Array>> = (s, _name, x) => elements(s, Kind.uint8, x as Uint8Array);

export const int32: Write<Int32Array | Raw<Int32Array>> = (s, _name, x) => elements(s, Kind.int32, x as Int32Array);

/** Numbers of a cache: a tensor of floats, or codes. */
export const numbers: Write<types.TensorLike | Int8Tensor> = (s, name, x) => {
  if (!has(x, "data") || arrayType(x.data) !== "Int8Array") return tensor(s, name, x);
  const shape = shapeOf(name, x);
  operand(s, Kind.uint8, shape, bytesOf(name, elementsOf(name, x, shape, x.data as Int8Array)));
};

/** A text, or its bytes. */
export const text: Write<string | Uint8Array> = (s, _name, x) =>
  elements(s, Kind.uint8, typeof x === "string" ? new TextEncoder().encode(x) : (x as Uint8Array));

/** A list of the caller's tensors. */
export const tensors: Write<readonly types.TensorLike[]> = (s, name, x) => {
  if (!isArray(x)) return fail("OPTION", name, "an array of tensors", show(x));
  writeList(s, name, x, tensor);
};
