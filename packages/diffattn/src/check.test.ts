import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { bytesOf, checkOptions, checkOut, dtypeOf, oneOf, overlaps, readTensor, shapeOf, show } from "./check.js";
import { DiffAttnError } from "./errors.js";

const refuses = (code: string, message: string | RegExp) =>
  expect.objectContaining({
    code,
    message: typeof message === "string" ? message : (expect.stringMatching(message) as unknown),
  }) as unknown as Error;

test("values print as a reader knows them", () => {
  expect([1, "a", null, undefined, [1, [2, "x"]], new Float64Array(2), {}, () => 0, new Map()].map(show)).toEqual([
    "1",
    '"a"',
    "null",
    "undefined",
    '[1, [2, "x"]]',
    "a Float64Array",
    "an object",
    "a function",
    "a Map",
  ]);
  expect(show(Array.from({ length: 9 }))).toBe("an array of 9");
  expect([2n, [1n, 2], -(2n ** 600n), Symbol("a"), -0, NaN, new Date(0), new DiffAttnError("FILE", "a")].map(show)).toEqual([
    "2n",
    "[1n, 2]",
    "a BigInt of more than 154 digits",
    "Symbol(a)",
    "0",
    "NaN",
    "a Date",
    "a DiffAttnError",
  ]);
  expect(show(Object.create(null))).toBe("an object");
  expect(oneOf(["a"])).toBe('"a"');
  expect(oneOf(["a", "b", "c"])).toBe('"a", "b" or "c"');
});

test("what is shown of a value is bounded, whatever it is", () => {
  const self: unknown[] = [1];
  self.push(self);
  expect(show(self)).toBe("[1, [1, [1, an array of 2]]]");
  let deep: unknown = [1];
  for (let i = 0; i < 20_000; i++) deep = [deep];
  expect(show(deep)).toBe("[[[an array of 1]]]");
  let wide: unknown[] = [1];
  for (let i = 0; i < 6; i++) wide = Array.from({ length: 8 }, () => wide);
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const throwing = (name: PropertyKey): object =>
    Object.defineProperty({}, name, {
      get() {
        throw new Error("a getter of the caller's");
      },
    });
  const tagged = { [Symbol.toStringTag]: "Odd", constructor: { name: "N".repeat(1e5) } };
  const values = [wide, "x".repeat(1e6), "\0".repeat(1e6), Symbol("s".repeat(1e6)), 2n ** 100_000n, tagged];
  for (const value of [...values, proxy, throwing(Symbol.toStringTag), throwing("constructor"), new Proxy([], {})]) {
    expect(show(value).length).toBeLessThanOrEqual(300);
    expect(show([value]).length).toBeLessThanOrEqual(300);
  }
  expect(show("x".repeat(1e6))).toBe(`"${"x".repeat(297)}…"`);
  expect(show(proxy)).toBe("a value that cannot be read");
});

test("unknown option names are refused, absent options are none", () => {
  expect(checkOptions("options", undefined, ["eps"])).toEqual({});
  expect(checkOptions("options", null, ["eps"])).toEqual({});
  expect(() => checkOptions("options", { epsilon: 1 }, ["eps", "scale"])).toThrow(
    refuses("OPTION", 'options: expected only eps, scale, got "epsilon" (did you mean eps?)'),
  );
  expect(() => checkOptions("norm", 3 as unknown as object, ["eps"])).toThrow(refuses("OPTION", "norm: expected an object, got 3"));
  // What says nothing that would be heard.
  for (const [given, got] of [
    [[], "[]"],
    [new Map([["eps", 1]]), "a Map"],
    [Promise.resolve({}), "a Promise"],
  ] as const)
    expect(() => checkOptions("norm", given as object, ["eps"])).toThrow(refuses("OPTION", `norm: expected an object, got ${got}`));
  expect(checkOptions("norm", Object.create(null) as object, ["eps"])).toEqual({});
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  expect(() => checkOptions("norm", proxy, ["eps"])).toThrow(
    refuses("OPTION", /^norm: expected a value that can be read, got an exception: /),
  );
});

test("shape and dims are one, and agree", () => {
  expect(shapeOf("q", { shape: [2, 3] })).toEqual([2, 3]);
  expect(shapeOf("q", { dims: [2, 3] })).toEqual([2, 3]);
  expect(shapeOf("q", { shape: [], dims: [] })).toEqual([]);
  expect(() => shapeOf("q", { shape: [2, 3], dims: [3, 2] })).toThrow(
    refuses("SHAPE", "q: expected shape and dims that agree, got [2, 3] and [3, 2]"),
  );
  expect(() => shapeOf("q", {})).toThrow(refuses("SHAPE", "q: expected a shape (or dims) of numbers, got undefined"));
  expect(() => shapeOf("q", { shape: ["2"] })).toThrow(refuses("SHAPE", /got \["2"\]$/));
  expect(() => shapeOf("q", { shape: [1, 2n] })).toThrow(refuses("SHAPE", /got \[1, 2n\]$/));
  // eslint-disable-next-line no-sparse-arrays
  expect(() => shapeOf("q", { shape: [1, , 2] })).toThrow(refuses("SHAPE", /got \[1, undefined, 2\]$/));
  expect(() => shapeOf("q", { shape: [2], dims: "2" })).toThrow(refuses("SHAPE", /got "2"$/));
});

test("strides and offsets: elements side by side are taken in place, others refused with a sentence", () => {
  const data = Float32Array.from({ length: 12 }, (_, i) => i);
  const of = (tensor: object) => Array.from(new Float32Array(readTensor("q", { data, ...tensor }).bytes.slice().buffer));
  const whole = Array.from(data);
  expect(of({ shape: [3, 4], stride: [4, 1], offset: 0 })).toEqual(whole);
  expect(of({ shape: [3, 4], strides: Int32Array.of(4, 1) })).toEqual(whole);
  expect(of({ shape: [3, 4], stride: null, strides: undefined, offset: null })).toEqual(whole);
  // A part of a longer array: of a slice, or of whoever says where it begins.
  expect(of({ shape: [2, 4], stride: [4, 1], offset: 4 })).toEqual(whole.slice(4));
  expect(of({ shape: [2, 4], stride: [4, 1] })).toEqual(whole.slice(0, 8));
  expect(of({ shape: [4], offset: 8 })).toEqual(whole.slice(8));
  // An axis of one element goes nowhere; without elements no axis does.
  expect(of({ shape: [1, 12, 1], stride: [-7, 1, 99], offset: 0 })).toEqual(whole);
  expect(of({ shape: [0, 4], stride: [1, 7], offset: 12 })).toEqual([]);
  const strided = "q: expected elements side by side, last axis fastest (of a strided view: a contiguous copy), got the strides";
  for (const [tensor, sentence] of [
    [{ shape: [4, 3], stride: [1, 4] }, `${strided} [1, 4] for [4, 3]`],
    [{ shape: [6], strides: [2] }, `${strided} [2] for [6]`],
    [{ shape: [12], stride: [-1], offset: 11 }, `${strided} [-1] for [12]`],
    [{ shape: [2, 12], stride: [0, 1] }, `${strided} [0, 1] for [2, 12]`],
    [{ shape: [3, 4], stride: [4, 1], strides: [1, 3] }, `${strided} [1, 3] for [3, 4]`],
    [{ shape: [3, 4], stride: [4] }, "q: expected a stride per axis, got [4] for [3, 4]"],
    [{ shape: [3, 4], stride: 4 }, "q: expected a stride per axis, got 4 for [3, 4]"],
    [{ shape: [3, 4], offset: 1 }, "q: expected 12 elements from 1 on, got data of 12"],
    [{ shape: [4], offset: -1 }, "q: expected an offset in elements, got -1"],
    [{ shape: [4], offset: "1" }, 'q: expected an offset in elements, got "1"'],
  ] as const)
    expect(() => of(tensor)).toThrow(refuses("SHAPE", sentence));
});

test("the element type follows from the data, or from what a Uint16Array says of itself", () => {
  expect(dtypeOf("q", new Float32Array(1), undefined, undefined)).toBe("float32");
  expect(dtypeOf("q", new Float32Array(1), "float32", "float32")).toBe("float32");
  expect(dtypeOf("q", new Uint16Array(1), "bfloat16", undefined)).toBe("bfloat16");
  expect(dtypeOf("q", new Uint16Array(1), undefined, "float16")).toBe("float16");
  expect(dtypeOf("q", runInNewContext("new Float32Array(1)"), undefined, undefined)).toBe("float32");
  expect(() => dtypeOf("q", new Uint16Array(1), undefined, undefined)).toThrow(
    refuses("DTYPE", 'q: expected a dtype of "float16" or "bfloat16" with a Uint16Array, got none'),
  );
  expect(() => dtypeOf("q", new Uint16Array(1), "float32", undefined)).toThrow(refuses("DTYPE", /with a Uint16Array, got "float32"$/));
  expect(() => dtypeOf("q", new Float32Array(1), "float16", undefined)).toThrow(
    refuses("DTYPE", /"float32" with a Float32Array, got "float16"$/),
  );
  expect(() => dtypeOf("q", new Uint16Array(1), "float16", "bfloat16")).toThrow(refuses("DTYPE", /dtype and type that agree/));
  expect(() => dtypeOf("q", new Float64Array(1), undefined, undefined)).toThrow(refuses("DTYPE", /got a Float64Array$/));
  expect(() => dtypeOf("q", [1, 2], undefined, undefined)).toThrow(refuses("DTYPE", /got \[1, 2\]$/));
});

test("a detached buffer is named; an offset view keeps its range", () => {
  const view = new Float32Array(new ArrayBuffer(32), 8, 4);
  expect(bytesOf("q", view)).toMatchObject({ byteOffset: 8, byteLength: 16 });
  structuredClone(view.buffer, { transfer: [view.buffer] });
  expect(() => bytesOf("q", view)).toThrow(refuses("SHAPE", "q: expected a buffer with its memory, got a detached one"));
});

test("out is of the result's element type", () => {
  expect(checkOut("out", new Float32Array(4), "float32").byteLength).toBe(16);
  expect(checkOut("out", new Uint16Array(4), "bfloat16").byteLength).toBe(8);
  expect(() => checkOut("out", new Float64Array(4), "float32")).toThrow(
    refuses("DTYPE", "out: expected a Float32Array for a float32 result, got a Float64Array"),
  );
  expect(() => checkOut("out", { data: 1 }, "float16")).toThrow(
    refuses("DTYPE", /^out: expected a Uint16Array or a Float16Array for a float16 result/),
  );
});

test("ranges overlap only where they share bytes", () => {
  const buffer = new ArrayBuffer(64);
  const range = (offset: number, length: number) => new Uint8Array(buffer, offset, length);
  expect(overlaps(range(0, 16), range(15, 16))).toBe(true);
  expect(overlaps(range(0, 16), range(16, 16))).toBe(false);
  expect(overlaps(range(8, 0), range(0, 16))).toBe(false);
  expect(overlaps(range(0, 16), new Uint8Array(16))).toBe(false);
});
