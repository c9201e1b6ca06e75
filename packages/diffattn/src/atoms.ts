// How values travel in requests: the atoms of crates/diffattn-door/PROTOCOL.md, by the names that
// the tables (*.generated.ts) have for them. No arithmetic: what the user left out travels as
// absent, or as the value that its table names. Knows no request.

import type { Handle, Request } from "./backend.js";
import { arrayType, bytesOf, checkOptions, elementsOf, has, isAbsent, isArray, Kind, oneOf, readTensor, shapeOf, show } from "./check.js";
import { fail } from "./errors.js";
import { instead } from "./hint.js";
import type * as types from "./types.js";

/**
 * A request that is being written, front to end, and the form of its first tensor: that of the
 * result.
 */
export interface Stream extends Request {
  dtype: types.DType;
  /** Whether a Float16Array holds its elements. */
  half: boolean;
}

/** Writes a value that errors call `name`. `T`: what it takes. */
export interface Write<T = unknown> {
  (s: Stream, name: string, x: unknown): void;
  readonly takes?: T;
}

/** Makes a writer of its arguments. `N`: its name, which tells the types of combinators apart. */
interface Combinator<N extends string> {
  (...args: never[]): Write;
  readonly combinator?: N;
}

// Numbers.

export const number: Write<number> = (s, name, x) => {
  if (typeof x !== "number") fail("OPTION", name, "a number", show(x));
  s.params.push(x);
};

// To Rust these are more; here they are numbers.
export { number as integer, number as size };

export const flag: Write<boolean> = (s, name, x) => {
  if (typeof x !== "boolean") fail("OPTION", name, "true or false", show(x));
  s.params.push(x ? 1 : 0);
};

export const choice: Combinator<"choice"> =
  (...names: readonly string[]): Write =>
  (s, name, x) => {
    const index = names.indexOf(x as string);
    if (index < 0) fail("OPTION", name, instead(x, names) ?? oneOf(names), show(x));
    s.params.push(index);
  };

export const object: Write<Handle> = (s, _name, x) => {
  s.objects.push({ slot: s.params.length, handle: x as Handle });
  s.params.push(0);
};

// What may be absent.

/** 0, or 1 and the value. */
export const optional: Combinator<"optional"> =
  (write: Write): Write =>
  (s, name, x) => {
    s.params.push(isAbsent(x) ? 0 : 1);
    if (!isAbsent(x)) write(s, name, x);
  };

/** 0; 1 where null says that there is to be none; or 2 and the value. */
export const orNone: Combinator<"orNone"> =
  (write: Write): Write =>
  (s, name, x) => {
    s.params.push(x === undefined ? 0 : x === null ? 1 : 2);
    if (!isAbsent(x)) write(s, name, x);
  };

/** A tensor, or kind 0. */
export const nullable: Combinator<"nullable"> =
  (write: Write): Write =>
  (s, name, x) => {
    if (isAbsent(x)) s.params.push(0);
    else write(s, name, x);
  };

/** What the protocol wants always and users may leave out. */
export const or: Combinator<"or"> =
  (value: unknown, write: Write): Write =>
  (s, name, x) =>
    write(s, name, isAbsent(x) ? value : x);

// Several values.

const isList = (x: unknown): x is ArrayLike<unknown> => isArray(x) || arrayType(x) === "Int32Array";

/**
 * A count and the values. Errors call a number as they call its list, anything else by its place in
 * it.
 */
export const writeList = (s: Stream, name: string, x: unknown, write: Write): void => {
  if (!isList(x)) return fail("OPTION", name, "an array", show(x));
  s.params.push(x.length);
  for (let i = 0; i < x.length; i++) write(s, write === number ? name : `${name}[${i}]`, x[i]);
};

export const list: Combinator<"list"> =
  (write: Write): Write =>
  (s, name, x) =>
    writeList(s, name, x, write);

/** A list; one value is a list of one. */
export const oneOrMore: Combinator<"oneOrMore"> =
  (write: Write): Write =>
  (s, name, x) =>
    writeList(s, name, typeof x === "number" ? [x] : x, write);

/** Two values without a count before them, by the names that a sentence has for them. */
export const pair: Combinator<"pair"> =
  (first: string, second: string, write: Write): Write =>
  (s, name, x) => {
    if (!isArray(x) || x.length !== 2) fail("OPTION", name, `[${first}, ${second}]`, show(x));
    for (const value of x) write(s, name, value);
  };

/** An object of options of its own. */
export const record: Combinator<"record"> = (table: Record<string, Write>): Write => {
  const names = Object.keys(table);
  return (s, name, x) => {
    const options = checkOptions(name, x as Record<string, unknown>, names);
    for (const key in table) table[key]?.(s, `${name}.${key}`, options[key]);
  };
};

/** An object that the package made: its fields go by their own names. */
export const fields: Combinator<"fields"> =
  (table: Record<string, Write>): Write =>
  (s, _name, x) => {
    for (const key in table) table[key]?.(s, key, (x as Record<string, unknown>)[key]);
  };

/** One of several forms: `{ form: value }`. */
export const variant: Combinator<"variant"> = (table: Record<string, Write>): Write => {
  const forms = Object.keys(table);
  return (s, name, x) => {
    for (const form in x as object) {
      s.params.push(forms.indexOf(form));
      table[form]?.(s, name, (x as Record<string, unknown>)[form]);
    }
  };
};

// Tensors.

export const operand = (s: Stream, kind: number, shape: readonly number[], bytes: Uint8Array): void => {
  s.params.push(kind, shape.length);
  // (No spread: as arguments a rank could overflow the stack.)
  for (const extent of shape) s.params.push(extent);
  s.operands.push(bytes);
};

/** The caller's q, k, v, x, pixels. */
export const tensor: Write<types.TensorLike> = (s, name, x) => {
  const { dtype, half, shape, bytes } = readTensor(name, x);
  if (s.operands.length === 0) {
    s.dtype = dtype;
    s.half = half;
  }
  operand(s, Kind[dtype], shape, bytes);
};

/** A tensor of float32, or a bare Float32Array, which has one axis. */
export const vector: Write<types.Float32Like> = (s, name, x) => {
  if (arrayType(x) === "Float32Array") operand(s, Kind.float32, [(x as Float32Array).length], bytesOf(name, x as Float32Array));
  else tensor(s, name, x);
};

export const mask: Write<types.MaskLike> = (s, name, x) => {
  const wanted = "a tensor whose data is a Uint8Array";
  if (!has(x, "data")) return fail("DTYPE", name, wanted, show(x));
  const { data } = x;
  if (!/^Uint8/.test(arrayType(data) ?? "")) fail("DTYPE", name, wanted, show(data));
  const shape = shapeOf(name, x);
  operand(s, Kind.uint8, shape, bytesOf(name, elementsOf(name, x, shape, data as Uint8Array)));
};

/** λ: nothing, a number or a tensor. */
export const numberOrVector: Write<number | types.Float32Like | null | undefined> = (s, name, x) => {
  s.params.push(isAbsent(x) ? 0 : typeof x === "number" ? 1 : 2);
  if (!isAbsent(x)) (typeof x === "number" ? number : vector)(s, name, x);
};

/** Integers in an array, or in a tensor: its shape as a list, then its elements as a list. */
export const integerTensor: Write<types.Integers | types.PositionsLike> = (s, name, x) => {
  const isTensor = has(x, "data");
  const values: unknown = isTensor ? x.data : x;
  if (!isList(values)) return fail("OPTION", name, "an array, or a tensor of one", show(values));
  const shape = isTensor ? shapeOf(name, x) : [values.length];
  writeList(s, name, shape, number);
  writeList(s, name, isTensor ? elementsOf(name, x, shape, values) : values, number);
};

/** A layer's weights, in the protocol's order. The out projection has two names. */
export const weights: Combinator<"weights"> = (...names: readonly string[]): Write => {
  const [out, other] = ["out_proj.", "o_proj."];
  const known = [...names, ...names.filter((key) => key.startsWith(out)).map((key) => key.replace(out, other))];
  return (s, name, x) => {
    if (isAbsent(x)) fail("OPTION", name, "an object of tensors", show(x));
    const given = checkOptions(name, x as Record<string, unknown>, known);
    for (const key of names) {
      const alias = key.replace(out, other);
      if (alias !== key && !isAbsent(given[alias]) && !isAbsent(given[key])) fail("OPTION", name, `one of ${key} and ${alias}`, "both");
      const said = isAbsent(given[key]) ? alias : key;
      if (isAbsent(given[said])) s.params.push(0);
      else vector(s, said, given[said]);
    }
  };
};
