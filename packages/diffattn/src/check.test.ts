import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { bytesOf, checkOptions, checkOut, dtypeOf, oneOf, overlaps, shapeOf, show } from "./check.js";

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
  expect(show(Object.create(null))).toBe("an object");
  expect(oneOf(["a"])).toBe('"a"');
  expect(oneOf(["a", "b", "c"])).toBe('"a", "b" or "c"');
});

test("unknown option names are refused, absent options are none", () => {
  expect(checkOptions("options", undefined, ["eps"])).toEqual({});
  expect(checkOptions("options", null, ["eps"])).toEqual({});
  expect(() => checkOptions("options", { epsilon: 1 }, ["eps", "scale"])).toThrow(
    refuses("OPTION", 'options: expected only eps, scale, got "epsilon"'),
  );
  expect(() => checkOptions("norm", 3 as unknown as object, ["eps"])).toThrow(refuses("OPTION", "norm: expected an object, got 3"));
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
  expect(() => shapeOf("q", { shape: [2], dims: "2" })).toThrow(refuses("SHAPE", /got "2"$/));
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
  expect(checkOut(new Float32Array(4), "float32").byteLength).toBe(16);
  expect(checkOut(new Uint16Array(4), "bfloat16").byteLength).toBe(8);
  expect(() => checkOut(new Float64Array(4), "float32")).toThrow(
    refuses("DTYPE", "out: expected a Float32Array for a float32 result, got a Float64Array"),
  );
  expect(() => checkOut({ data: 1 }, "float16")).toThrow(
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
