// Shares of attention by hand: of a row, of the heads of a layer, over prompts and heads.

import { expect, test } from "vitest";
import type { AttentionMaps, Tensor } from "../types.js";
import { headMasses, Masses, massOf, spreadOf } from "./attention-mass.js";

const map = (heads: number, rows: readonly number[][]): Tensor => {
  const keys = rows[0]?.length ?? 0;
  const shape = [1, heads, rows.length / heads, keys];
  return { data: Float32Array.from(rows.flat()), shape, dims: shape, dtype: "float32", type: "float32" };
};

test("a share is of magnitudes", () => {
  expect(massOf([0.5, 0.25, 0.25], [1, 3])).toBe(0.5);
  // What is subtracted counts as what it weighs.
  expect(massOf([0.5, -0.25, -0.25], [0, 2])).toBe(0.75);
  expect(massOf([1, -1], [0, 2])).toBe(1);
  expect(massOf([1, 1], [1, 1])).toBe(0);
  expect(massOf([0, 0], [0, 1])).toBe(0);
});

test("of maps the last query counts, head by head", () => {
  const maps: AttentionMaps = {
    map1: map(2, [
      [1, 0],
      [0.75, 0.25],
      [1, 0],
      [0.5, 0.5],
    ]),
    map2: map(2, [
      [1, 0],
      [0.5, 0.5],
      [1, 0],
      [0, 1],
    ]),
    diff: map(2, [
      [0.5, 0],
      [0.5, 0],
      [0.5, 0],
      [0.5, -0.5],
    ]),
  };
  expect(headMasses(maps, [1, 2])).toEqual([
    { terms: [0.25, 0.5], diff: 0 },
    { terms: [0.5, 1], diff: 0.5 },
  ]);
});

test("a head of one map, in a layer of its own and beside heads of two", () => {
  const only = map(1, [[0.25, 0.75]]);
  expect(headMasses({ maps: [only], diff: only }, [0, 1])).toEqual([{ terms: [0.25], diff: 0.25 }]);
  const maps: AttentionMaps = {
    map1: map(2, [
      [0.25, 0.75],
      [0.5, 0.5],
    ]),
    map2: map(2, [
      [0, 0],
      [0.5, 0.5],
    ]),
    diff: map(2, [
      [0.25, 0.75],
      [0.25, 0.25],
    ]),
  };
  expect(headMasses(maps, [0, 1])).toEqual([
    { terms: [0.25], diff: 0.25 },
    { terms: [0.5, 0.5], diff: 0.5 },
  ]);
});

test("mean and deviation over heads, each by its mean over the prompts", () => {
  expect(spreadOf([])).toBeNull();
  expect(spreadOf([0.25, 0.75])).toEqual({ mean: 0.5, sd: 0.25, heads: 2 });
  const masses = new Masses();
  expect(masses.summary()).toBeNull();
  const head = (first: number, second: number, diff: number) => ({ terms: [first, second], diff });
  masses.add([head(0, 0.5, 0.25), head(0.5, 0.5, 1), { terms: [0.125], diff: 0.125 }], [4, 8], 16);
  masses.add([head(0.5, 0.5, 0.25), head(1, 0.5, 0), { terms: [0.375], diff: 0.375 }], [0, 8], 16);
  expect(masses.summary()).toEqual({
    prompts: 2,
    even: 0.375,
    plain: { mean: 0.25, sd: 0, heads: 1 },
    terms: [
      { mean: 0.5, sd: 0.25, heads: 2 },
      { mean: 0.5, sd: 0, heads: 2 },
    ],
    difference: { mean: 0.375, sd: 0.125, heads: 2 },
  });
});

test("a plain Llama has one spread", () => {
  const masses = new Masses();
  masses.add([{ terms: [0.5], diff: 0.5 }], [0, 1], 4);
  expect(masses.summary()).toEqual({ prompts: 1, even: 0.25, plain: { mean: 0.5, sd: 0, heads: 1 }, terms: [], difference: null });
});
