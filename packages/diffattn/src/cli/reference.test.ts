import { expect, test } from "vitest";
import { attentionRow, normalised, relativeError } from "./reference.js";

test("a row of differential attention, by hand", () => {
  const about = { heads: 1, length: 2, queries: 2, width: 2, lambda: 0.5 };
  const qk = Float32Array.of(1, 0, 0, 1, 0, 1, 1, 0);
  // [map, token, width]: as the README's example, with v twice as wide.
  const v = Float32Array.of(1, 2, 0, 0, 3, 4, 0, 0);
  expect([...attentionRow(about, { q: qk, k: qk, v }, 0, 0)].slice(0, 2)).toEqual([0.5, 1]);
  const [a = 0, b = 0] = attentionRow(about, { q: qk, k: qk, v }, 0, 1);
  expect(a).toBeCloseTo(1.1698, 4);
  expect(b).toBeCloseTo(1.6698, 4);
});

test("norms and errors", () => {
  expect([...normalised(Float32Array.of(1, -1), 0, true)]).toEqual([1, -1]);
  expect([...normalised(Float32Array.of(3, 3), 0, false)]).toEqual([1, 1]);
  expect(relativeError([1, 2], Float64Array.of(1, 4))).toBe(0.5);
  expect(relativeError([1, NaN], Float64Array.of(1, 4))).toBeNaN();
  expect(relativeError([1], Float64Array.of(1, 4))).toBeNaN();
});
