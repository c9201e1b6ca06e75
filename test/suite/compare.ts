// Comparing results: float64 bounds, bits, hashes. Runs no operator.

import type { Tensor, TensorData } from "../../packages/diffattn/src/types.js";

/** float16 and bfloat16 elements as numbers. */
function half(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits;
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 * bias + 1) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

/** A result's elements as numbers. */
export function values({ data, dtype }: Pick<Tensor<TensorData>, "data" | "dtype">): Float64Array {
  if (dtype === "float32" || data[Symbol.toStringTag] === "Float16Array") return Float64Array.from(data as ArrayLike<number>);
  return Float64Array.from(data as Uint16Array, (bits) => half(bits, dtype === "float16" ? 5 : 8));
}

/** How far an element may be from what is expected. */
export type Bound = (expected: number, index: number) => number;

/**
 * Throws, with the largest error and its place, when an element is out of its bound. Returns the
 * largest error over its bound.
 */
export function within(actual: ArrayLike<number>, expected: ArrayLike<number>, bound: Bound): number {
  if (actual.length !== expected.length) throw new Error(`expected ${expected.length} elements, got ${actual.length}`);
  let worst = 0;
  let at = -1;
  for (let i = 0; i < expected.length; i++) {
    const want = expected[i] ?? NaN;
    const got = actual[i] ?? NaN;
    const over =
      Object.is(got, want) || got === want || (Number.isNaN(got) && Number.isNaN(want)) ? 0 : Math.abs(got - want) / bound(want, i);
    // A NaN on one side only is out of every bound.
    if (!(over <= worst)) {
      worst = Number.isNaN(over) ? Infinity : over;
      at = i;
    }
  }
  if (worst > 1) {
    throw new Error(`element ${at}: expected ${expected[at]}, got ${actual[at]}, ${worst.toPrecision(3)} times the bound`);
  }
  return worst;
}

export const largest = (x: ArrayLike<number>): number => {
  let max = 0;
  for (let i = 0; i < x.length; i++) if (Number.isFinite(x[i])) max = Math.max(max, Math.abs(x[i] ?? 0));
  return max;
};

export const rms = (actual: ArrayLike<number>, expected: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < expected.length; i++) {
    const [got, want] = [actual[i] ?? NaN, expected[i] ?? NaN];
    // (An infinity is itself, and its difference from itself no number.)
    if (got !== want) sum += (got - want) ** 2;
  }
  return Math.sqrt(sum / Math.max(1, expected.length));
};

/** A result's bits; NaN counts as NaN, whatever its payload. */
export function bits({ data, dtype }: Pick<Tensor<TensorData>, "data" | "dtype">): Uint8Array {
  if (dtype === "float32") {
    const copy = Float32Array.from(data as Float32Array);
    for (let i = 0; i < copy.length; i++) if (Number.isNaN(copy[i])) copy[i] = NaN;
    return new Uint8Array(copy.buffer);
  }
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
}

/** FNV-1a, 64 bits, of several results' bits. */
export function hash(results: Iterable<Pick<Tensor<TensorData>, "data" | "dtype">>): string {
  let sum = 0xcbf29ce484222325n;
  for (const result of results) {
    for (const byte of bits(result)) sum = BigInt.asUintN(64, (sum ^ BigInt(byte)) * 0x100000001b3n);
  }
  return sum.toString(16).padStart(16, "0");
}

/** Throws when two results differ in a bit. */
export function sameBits(a: Pick<Tensor<TensorData>, "data" | "dtype">, b: Pick<Tensor<TensorData>, "data" | "dtype">): void {
  const [left, right] = [bits(a), bits(b)];
  if (left.length !== right.length) throw new Error(`${left.length} bytes against ${right.length}`);
  const at = left.findIndex((byte, i) => byte !== right[i]);
  if (at < 0) return;
  const element = Math.floor(at / (a.dtype === "float32" ? 4 : 2));
  const count = left.filter((byte, i) => byte !== right[i]).length;
  throw new Error(`bits differ in ${count} bytes, first in element ${element}: ${values(a)[element]} against ${values(b)[element]}`);
}
