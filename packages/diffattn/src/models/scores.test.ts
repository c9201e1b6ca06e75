// Losses beside plain float64 sums, and texts through a model of a few lines: however they go through
// it, what they cost is the same.

import { expect, test } from "vitest";
import { lossOf, summedLoss } from "./loss.js";
import { type Limits, Scores } from "./scores.js";
import type * as types from "./types.js";

/** −ln softmax, written straight on. */
function plainLoss(logits: readonly number[], label: number): number {
  const highest = Math.max(...logits);
  return Math.log(logits.reduce((sum, x) => sum + Math.exp(x - highest), 0)) + highest - (logits[label] ?? NaN);
}

test("losses are those of a plain sum in float64", () => {
  const rows = [Array.from({ length: 50_000 }, (_, i) => 10 * Math.sin(i * i)), [0, 0, 0, 0], [5], [1e4, -1e4], [-Infinity, 1, 2]].map(
    (row) => Float32Array.from(row),
  );
  for (const row of rows)
    for (const label of [0, row.length - 1]) {
      const wanted = plainLoss([...row], label);
      if (wanted === Infinity) expect(lossOf(row, label)).toBe(Infinity);
      else expect(Math.abs(lossOf(row, label) - wanted)).toBeLessThanOrEqual(1e-13 * Math.max(1, wanted));
    }
  expect(lossOf(Float32Array.of(0, 0, 0, 0), 2)).toBeCloseTo(Math.log(4), 15);
  // (A sum in float32 would lose the small ones: each is 2⁻²⁶ of the large one.)
  const many = Float32Array.from({ length: 2 ** 20 + 1 }, (_, i) => (i === 0 ? 0 : -26 * Math.LN2));
  expect(lossOf(many, 0)).toBeCloseTo(Math.log1p(2 ** 20 * Math.exp(Math.fround(-26 * Math.LN2))), 9);
  expect(lossOf(Float32Array.of(1, NaN), 0)).toBeNaN();
});

test("a token counts by the row before it", () => {
  const ids = Int32Array.of(0, 1, 1);
  const rows = Float32Array.of(2, 3, 5, 7);
  expect(summedLoss(ids, rows, 2)).toBeCloseTo(plainLoss([2, 3], 1) + plainLoss([5, 7], 1), 14);
  expect(summedLoss(ids, rows.subarray(2), 2, 1)).toBeCloseTo(plainLoss([5, 7], 1), 14);
});

const VOCAB = 11;

/** Logits of an id behind others: of all of them. */
const logitsAfter = (before: readonly number[]): number[] =>
  Array.from({ length: VOCAB }, (_, v) => Math.fround(3 * Math.sin(before.reduce((sum, id, i) => sum + (id + 1) * (i + 2), v * v))));

/** A causal model of a few lines; `calls` are the shapes that it was asked for. */
function modelOf(calls: number[][]): Pick<types.LanguageModel, "forward" | "createCache"> {
  const held = new Map<unknown, number[]>();
  const forward: types.LanguageModel["forward"] = (given, options) => {
    const { data, shape = [1, (given as Int32Array).length] } = "data" in given ? given : { data: given };
    const [B = 0, L = 0] = shape;
    calls.push([B, L]);
    const texts = Array.from({ length: B }, (_, b) => [...data.slice(b * L, (b + 1) * L)]);
    const before = held.get(options?.cache) ?? [];
    const rows = texts.flatMap((ids) => ids.flatMap((_, i) => logitsAfter([...before, ...ids.slice(0, i + 1)])));
    held.get(options?.cache)?.push(...(texts[0] ?? []));
    return Promise.resolve({ data: Float32Array.from(rows), shape: [B, L, VOCAB] } as unknown as types.ModelOutput);
  };
  const createCache = (): Promise<types.ModelCache> => {
    const cache = { dispose: () => held.delete(cache) } as unknown as types.ModelCache;
    held.set(cache, []);
    return Promise.resolve(cache);
  };
  return { forward, createCache };
}

const texts = [5, 2, 9, 3].map((length, t) => Int32Array.from({ length }, (_, i) => (7 * t + 3 * i * i) % VOCAB));

async function scored(limits: Limits): Promise<{ scores: Scores; calls: number[][] }> {
  const calls: number[][] = [];
  const scores = new Scores(modelOf(calls), VOCAB, undefined, limits);
  let waiting: Int32Array[] = [];
  for (const ids of texts) {
    const longest = Math.max(ids.length, ...waiting.map(({ length }) => length));
    if (waiting.length > 0 && !scores.fits(waiting.length + 1, longest)) {
      await scores.add(waiting);
      waiting = [];
    }
    waiting.push(ids);
  }
  await scores.add(waiting);
  return { scores, calls };
}

const wanted = texts.map((ids) => [...ids.slice(1)].reduce((sum, id, i) => sum + plainLoss(logitsAfter([...ids.slice(0, i + 1)]), id), 0));

test.each([
  ["side by side, shorter ones filled up", { tokens: 100, logits: 1e6 }, [[4, 8]]],
  [
    "a few at a time",
    { tokens: 8, logits: 1e6 },
    [
      [2, 4],
      [1, 8],
      [1, 2],
    ],
  ],
  [
    "one at a time",
    { tokens: 1, logits: 1e6 },
    [
      [1, 4],
      [1, 1],
      [1, 8],
      [1, 2],
    ],
  ],
  [
    "piece by piece where logits are too many",
    { tokens: 100, logits: 3 * VOCAB },
    [
      [1, 3],
      [1, 1],
      [1, 1],
      [1, 3],
      [1, 3],
      [1, 2],
      [1, 2],
    ],
  ],
  ["token by token at least", { tokens: 100, logits: 1 }, Array.from({ length: 15 }, () => [1, 1])],
])("%s", async (_, limits, shapes) => {
  const { scores, calls } = await scored(limits);
  expect(calls).toEqual(shapes);
  expect(scores.counted).toBe(15);
  expect(scores.loss).toBeCloseTo(
    wanted.reduce((a, b) => a + b, 0),
    12,
  );
});

test("an id outside the vocabulary is refused, though it were a label alone", async () => {
  const scores = new Scores(modelOf([]), VOCAB, undefined);
  await expect(scores.add([Int32Array.of(1, VOCAB)])).rejects.toThrow("data: expected ids from 0 to 10, got 11");
  await expect(scores.add([Int32Array.of(-1, 1)])).rejects.toThrow("data: expected ids from 0 to 10, got -1");
});
