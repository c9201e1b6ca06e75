// The drawings against what they must say, from plain numbers. Rasterising wants a browser: test/browser/demo.mjs.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { AttentionMaps, Tensor } from "../types.js";
import { attentionNoise, attentionRow, drawMap, drawMaps, drawNoise, drawRow, mapsToJson, stylesheet, summarizeNoise } from "./index.js";

function tensor(values: readonly number[], shape: readonly number[]): Tensor {
  return { data: Float32Array.from(values), shape, dims: shape, dtype: "float32", type: "float32" };
}

/** One head, two queries, three keys; λ = ½. */
const map1 = tensor([1, 0, 0, 0.5, 0.25, 0.25], [1, 1, 2, 3]);
const map2 = tensor([1, 0, 0, 0, 0.75, 0.25], [1, 1, 2, 3]);
const diff = tensor([0.5, 0, 0, 0.5, -0.125, 0.125], [1, 1, 2, 3]);
const maps: AttentionMaps = { map1, map2, diff };
const tokens = ["a", "<b>", "\n"];

describe("maps", () => {
  test("NaN has no colour and ends nothing", () => {
    expect(drawMap(tensor([NaN, NaN, 1, NaN], [1, 1, 2, 2]))).toContain('d="M0 1h1"');
  });

  test("a theme of its own, and no style where the page brings it", () => {
    expect(drawMaps(maps)).toContain("prefers-color-scheme:dark");
    expect(drawMaps(maps, { theme: "dark" })).not.toContain("@media");
    const bare = drawMaps(maps, { styled: false });
    expect(bare).not.toContain("<style");
    for (const [, name] of bare.matchAll(/class="(da-\w+)/g)) expect(stylesheet).toContain(`.${name}{`);
    expect(() => drawMap(map1, { theme: "blue" as "dark" })).toThrow(/theme: expected/);
  });
});

describe("rows", () => {
  test("the numbers of one query, up to the last key that any map weighs", () => {
    expect(attentionRow(maps, { query: 0 })).toEqual({ query: 0, columns: [0, 1], terms: [[1], [1]], diff: [0.5], max: 1 });
    expect(attentionRow(maps, { query: 1, columns: [1, 3] })).toEqual({
      query: 1,
      columns: [1, 3],
      terms: [
        [0.25, 0.25],
        [0.75, 0.25],
      ],
      diff: [-0.125, 0.125],
      max: 0.75,
    });
    expect(() => attentionRow(maps, { query: 2 })).toThrow(/query: expected an index below 2, got 2/);
  });

  test("the picture has each token once per map, escaped, with its sign", () => {
    const svg = drawRow(maps, { query: 1, tokens });
    expect(svg.match(/<title>a: /g)).toHaveLength(3);
    expect(svg).toContain("&#60;b&#62;: −0.13");
    expect(svg).toContain("↵");
    expect(svg).toMatch(/da-minus/);
    expect(() => drawRow(maps, { query: 1, tokens: ["a"] })).toThrow(/tokens: expected 3, one per key, got 1/);
    expect(() => drawRow(maps, { query: 1, tokens, width: 50 })).toThrow(/width: expected/);
  });

  test("lines end within the width", () => {
    const long = Array.from({ length: 60 }, (_, i) => `token${i}`);
    const wide = tensor(
      long.map(() => 0.1),
      [1, 1, 1, 60],
    );
    const svg = drawRow({ map1: wide, map2: wide, diff: wide }, { query: 0, tokens: long, width: 300 });
    expect(svg).toMatch(/^<svg [^>]*width="300"/);
    for (const [, x, across] of svg.matchAll(/stroke-width="6"[^>]* d="M(\d+) [\d.]+h(\d+)"/g))
      expect(Number(x) + Number(across)).toBeLessThanOrEqual(300);
  });
});

describe("noise", () => {
  test("the share beside the keys that a row's maps weigh most together, the same for all of them", () => {
    const noise = attentionNoise(maps, { keep: 1 });
    expect(noise.rows).toEqual([0, 2]);
    // Key 0 of the first row; of the second key 1: 0.25 + 0.75. The difference has no say.
    expect(noise.terms).toEqual([
      [0, 0.75],
      [0, 0.25],
    ]);
    // All but |−0.125| of 0.75.
    expect(noise.diff[0]).toBe(0);
    expect(noise.diff[1]).toBeCloseTo(5 / 6, 12);
    expect(noise.relevant).toEqual({ keep: 1 });
  });

  test("the share beside given keys", () => {
    const noise = attentionNoise(maps, { relevant: [0], rows: [1, 2] });
    expect(noise.terms).toEqual([[0.5], [1]]);
    expect(noise.diff[0]).toBeCloseTo(1 / 3, 12);
    expect(() => attentionNoise(maps, { relevant: [3] })).toThrow(/relevant: expected keys below 3, got 3/);
    expect(() => attentionNoise(maps, { keep: 0 })).toThrow(/keep: expected/);
  });

  test("over heads: each counts once, by the mean over its rows", () => {
    const noise = attentionNoise(maps, { relevant: [0] });
    expect(noise.terms[0]).toEqual([0, 0.5]);
    const other = { ...noise, terms: [[1, 1], ...noise.terms.slice(1)], diff: [0.5, 0.5] };
    const { count, terms, diff, change, lower } = summarizeNoise([noise, other]);
    expect([count, lower]).toEqual([2, 2]);
    // 0.25 and 1; a sixth and a half.
    expect(terms[0]).toEqual({ mean: 0.625, sd: 0.375 });
    expect(diff.mean).toBeCloseTo(1 / 3, 12);
    expect(diff.sd).toBeCloseTo(1 / 6, 12);
    expect(change.mean).toBeCloseTo((1 / 6 - 0.25 + 0.5 - 1) / 2, 12);
    expect(summarizeNoise([noise]).change.sd).toBe(0);
    expect(() => summarizeNoise([])).toThrow(/noises: expected the noise of one head or more, got none/);
    expect(() => summarizeNoise([attentionNoise(maps, { rows: [1, 1] })])).toThrow(/noises: expected one row or more in each, got none/);
  });

  test("is a share, whatever the map", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, min: -4, max: 4 }), { minLength: 6, maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        (v, keep) => {
          const map = tensor(v, [1, 1, 2, 3]);
          for (const options of [{ keep }, { relevant: [keep % 3] }])
            for (const share of attentionNoise({ map1: map, map2: map, diff: map }, options).diff) {
              expect(share).toBeGreaterThanOrEqual(0);
              expect(share).toBeLessThanOrEqual(1);
            }
        },
      ),
    );
  });

  test("the curve runs over all queries and says its means", () => {
    const svg = drawNoise(attentionNoise(maps, { relevant: [0] }), { tokens: ["a", "b"], query: 1 });
    expect(svg).toContain("map 1 (mean 25 %)");
    expect(svg).toContain("difference (mean 16.7 %)");
    expect(svg.match(/class="da-line [^"]*" d="M[\d. ]+L[\d. ]+"/g)).toHaveLength(2);
    expect(svg).toContain("Attention on irrelevant tokens");
  });

  test("nothing is called irrelevant where nobody said what matters", () => {
    const svg = drawNoise(attentionNoise(maps, { keep: 1 }));
    expect(svg).not.toContain("irrelevant");
    expect(svg).toContain("beside the 1 keys that a row");
  });
});

test("JSON gives the same float32 again", () => {
  fc.assert(
    fc.property(fc.array(fc.float(), { minLength: 4, maxLength: 4 }), (values) => {
      const map = tensor(values, [1, 1, 2, 2]);
      const read = JSON.parse(JSON.stringify(mapsToJson({ map1: map, map2: map, diff: map }, { tokens: ["x", "y"] }))) as {
        maps: (number | null)[][][];
      };
      const expected = Array.from(map.data, (value) => (Number.isFinite(value) ? value : null));
      expect(read.maps[0]?.flat().map((v) => (v === null ? null : Math.fround(v) + 0))).toEqual(
        expected.map((v) => (v === null ? null : v + 0)),
      );
    }),
  );
  const noise = attentionNoise(maps, { relevant: [0], rows: [1, 2] });
  expect(mapsToJson(maps, { noise }).noise).toBe(noise);
  expect(mapsToJson(maps, { tokens, about: { layer: 3 } })).toMatchObject({ about: { layer: 3 }, head: 0, rows: [0, 2], tokens });
});
