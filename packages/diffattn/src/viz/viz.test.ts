// The drawings against what they must say, from plain numbers. Rasterising wants a browser:
// test/browser/demo.mjs.
import fc from "fast-check";
import { SaxesParser } from "saxes";
import { describe, expect, test } from "vitest";
import { show } from "../check.js";
import { DiffAttnError } from "../errors.js";
import type { AttentionMaps, Tensor } from "../types.js";
import {
  attentionNoise,
  attentionRow,
  drawMap,
  drawMaps,
  drawNoise,
  drawRow,
  mapsToJson,
  stylesheet,
  summarizeNoise,
  svgToPng,
  type AttentionNoise,
} from "./index.js";
import { visible } from "./markup.js";
import { label } from "./svg.js";

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
    for (const wrong of [undefined, noise, [null], [{ ...noise, terms: [[1]] }], [noise, { ...noise, terms: [] }]])
      expect(() => summarizeNoise(wrong as AttentionNoise[])).toThrow(expect.objectContaining({ code: "OPTION" }));
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

describe("what is drawn is XML, whatever texts hold", () => {
  const everyCharacter = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => String.fromCharCode(from + i));
  const square: AttentionMaps = {
    map1: tensor([1, 0, 0.5, 0.5], [1, 1, 2, 2]),
    map2: tensor([1, 0, 0, 1], [1, 1, 2, 2]),
    diff: tensor([0.5, 0, 0.5, -0.5], [1, 1, 2, 2]),
  };

  /**
   * The texts of a document by an XML parser: content of each element and each attribute, in order.
   */
  function read(svg: string): { name: string; attributes: Record<string, string>; text: string }[] {
    const elements: { name: string; attributes: Record<string, string>; text: string }[] = [];
    const open: { text: string }[] = [];
    const parser = new SaxesParser();
    parser.on("error", (error) => {
      throw error;
    });
    parser.on("opentag", ({ name, attributes }) => {
      const element = { name, attributes: attributes as Record<string, string>, text: "" };
      elements.push(element);
      open.push(element);
    });
    parser.on("text", (text) => {
      const last = open.at(-1);
      if (last) last.text += text;
    });
    parser.on("closetag", () => void open.pop());
    parser.write(svg).close();
    return elements;
  }

  const drawers: Record<string, (tokens: string[], text: string) => string> = {
    drawMap: (tokens, text) => drawMap(square.diff, { tokens, rowTokens: tokens, title: text, description: text }),
    drawMaps: (tokens, text) => drawMaps(square, { tokens, title: text, headings: [text, text, text] }),
    drawRow: (tokens, text) => drawRow(square, { query: 1, tokens, title: text, headings: [text, text, text] }),
    drawNoise: (tokens, text) => drawNoise(attentionNoise(square, { keep: 1 }), { tokens, title: text }),
  };

  /** Every code unit: halves of pairs, controls and what is no character come up often. */
  const hostile = fc.array(
    fc.oneof(
      fc.integer({ min: 0, max: 0xa0 }),
      fc.integer({ min: 0xd800, max: 0xdfff }),
      fc.integer({ min: 0xfff0, max: 0xffff }),
      fc.integer({ min: 0, max: 0x10ffff }),
      fc.constantFrom(...Array.from("]]>&<\"'-\r\n", (c) => c.charCodeAt(0))),
    ),
    { maxLength: 12 },
  );
  const text = hostile.map((points) => points.map((point) => String.fromCodePoint(point)).join(""));

  test.each(Object.entries(drawers))("%s", (_, draw) => {
    fc.assert(
      fc.property(fc.tuple(text, text), text, (tokens, given) => {
        const svg = read(draw(tokens, given));
        const said = svg.find(({ name }) => name === "svg")?.attributes["aria-label"];
        const name = svg.find(({ name }) => name === "title")?.text;
        const texts = svg.filter(({ name }) => name === "text").map((element) => element.text);
        expect([said, name]).toEqual([visible(given), visible(given)]);
        // An empty title is no heading.
        if (given !== "") expect(texts).toContain(visible(given));
        for (const token of tokens) expect(texts).toContain(label(token));
      }),
      { numRuns: 300 },
    );
  });

  test("each character that XML forbids has a sign that is none of them", () => {
    const controls = everyCharacter(0, 0xa0).filter((c) => !"\t\n".includes(c));
    const others = [...everyCharacter(0xd800, 0xe000), "\uFFFE", "\uFFFF"];
    for (const character of [...controls, ...others]) {
      const one = visible(`a${character}b`);
      expect([one.length, visible(one)], character.charCodeAt(0).toString(16)).toEqual([3, one]);
      const seen = one.charAt(1);
      if (character < " " || character === "\x7f") expect(seen).toMatch(/[\u2400-\u2421]/);
      else expect(seen).toBe(character < "\x7f" ? character : "\uFFFD");
      expect(() => drawMap(map1, { title: character, tokens: [character, "a", "b"] })).not.toThrow();
    }
    expect(visible("\t\n\u{1F600} é\u2028")).toBe("\t\n\u{1F600} é\u2028");
  });

  test("a description says a token as it is, and is escaped once", () => {
    const [desc] = read(drawRow(maps, { query: 1, tokens })).filter(({ name }) => name === "desc");
    expect(desc?.text).toContain("a 0.5, <b> −0.13, ↵ 0.13");
    const said = read(drawMap(map1, { description: "\f]]> & \ud800" })).find(({ name }) => name === "desc");
    expect(said?.text).toBe("␌]]> & �");
  });

  test("tabs and line ends of a name are kept, in the attribute too", () => {
    const [svg] = read(drawMap(map1, { title: "a\tb\nc\rd" }));
    expect(svg?.attributes["aria-label"]).toBe("a\tb\nc␍d");
  });
});

describe("what cannot be meant is OPTION", () => {
  const noise = attentionNoise(maps, { keep: 1 });
  type Case = [name: string, body: () => unknown];
  const wrong: Record<string, () => unknown> = {
    "a theme that every object has": () => drawMap(map1, { theme: "constructor" as "dark" }),
    "a theme in a list": () => drawMaps(maps, { theme: ["dark"] as unknown as "dark" }),
    "the prototype as a theme": () => drawRow(maps, { query: 0, tokens, theme: "__proto__" as "dark" }),
    "a theme that objects inherit": () => drawNoise(noise, { theme: "toString" as "dark" }),
    styled: () => drawMap(map1, { styled: "no" as unknown as boolean }),
    signed: () => drawMap(map1, { signed: 1 as unknown as boolean }),
    ...Object.fromEntries(
      [Infinity, -Infinity, NaN, 0, -1, 0.5, 1001, 1e300, "13", 13n, null, {}].flatMap((size): Case[] => [
        [`cell ${show(size)}`, () => drawMap(map1, { cell: (size ?? -1) as number })],
        [`cell ${show(size)} of all maps`, () => drawMaps(maps, { cell: (size ?? -1) as number })],
        [
          `width ${show(size)} of a row`,
          () => drawRow(maps, { query: 0, tokens, width: (size === 1001 ? 100_001 : (size ?? -1)) as number }),
        ],
        [`width ${show(size)} of noise`, () => drawNoise(noise, { width: (size === 1001 ? 100_001 : (size ?? -1)) as number })],
        [`height ${show(size)} of noise`, () => drawNoise(noise, { height: (size === 1001 ? 100_001 : (size ?? -1)) as number })],
      ]),
    ),
    ...Object.fromEntries(
      [Infinity, NaN, 0, -1, "1"].flatMap((max): Case[] => [
        [`max ${show(max)}`, () => drawMap(map1, { max: max as number })],
        [`max ${show(max)} of a row`, () => drawRow(maps, { query: 0, tokens, max: max as number })],
      ]),
    ),
    ...Object.fromEntries(
      [[1], [0, 3], [1, 0], [-1, 1], [0, 0.5], [0n, 1n], "01", 3, null, { 0: 0, 1: 1 }, [0, NaN]].flatMap((rows): Case[] => [
        [`rows ${show(rows)}`, () => drawMap(map1, { rows: rows as unknown as [number, number] })],
        [`rows ${show(rows)} in JSON`, () => mapsToJson(maps, { rows: rows as unknown as [number, number] })],
        [`rows ${show(rows)} of noise`, () => attentionNoise(maps, { rows: rows as unknown as [number, number] })],
      ]),
    ),
    columns: () => attentionRow(maps, { query: 0, columns: [0, 4] }),
    "rows of a row": () => attentionRow(maps, { query: 0, rows: [0, 1] } as never),
    "a head": () => drawMap(map1, { head: 1 }),
    "a batch entry": () => mapsToJson(maps, { batch: -1 }),
    "no query": () => drawRow(maps, { tokens } as never),
    "a query as a text": () => attentionRow(maps, { query: "0" as never }),
    "tokens that are no texts": () => drawMap(map1, { tokens: ["a", 1, "b"] as never }),
    "tokens in one text": () => drawMap(map1, { tokens: "abc" as never }),
    rowTokens: () => drawMap(map1, { rowTokens: ["a"] }),
    "no tokens": () => drawRow(maps, { query: 0 } as never),
    "tokens of noise": () => drawNoise(noise, { tokens: [{}] as never }),
    "a title": () => drawMap(map1, { title: {} as never }),
    "a description": () => drawMap(map1, { description: 1 as never }),
    headings: () => drawMaps(maps, { headings: [1, 2, 3] as never }),
    "headings of a row": () => drawRow(maps, { query: 0, tokens, headings: "abc" as never }),
    keep: () => attentionNoise(maps, { keep: 1.5 }),
    keys: () => attentionNoise(maps, { relevant: "0" as never }),
    "a key": () => attentionNoise(maps, { relevant: [3] }),
    "noise of no maps": () => drawNoise({} as never),
    "noise without numbers": () => drawNoise({ ...noise, diff: ["1", "2"] } as never),
    "noise of a range without values": () => drawNoise({ ...noise, rows: [0, 1e9] }),
    "an unknown option": () => drawMap(map1, { colour: "red" } as never),
    "an unknown option of all maps": () => drawMaps(maps, { signed: true } as never),
    "an unknown option of a row": () => drawRow(maps, { query: 0, tokens, row: 1 } as never),
    "an unknown option of noise": () => drawNoise(noise, { keep: 8 } as never),
    "an unknown option of JSON": () => mapsToJson(maps, { theme: "dark" } as never),
    "options that are none": () => drawMap(map1, "dark" as never),
  };

  test.each(Object.entries(wrong))("%s", (_, body) => {
    expect(body).toThrow(DiffAttnError);
    // As it was before there was a code.
    expect(body).toThrow(RangeError);
    expect(body).toThrow(
      expect.objectContaining({
        name: "DiffAttnError",
        code: "OPTION",
        message: expect.stringMatching(/^[^:]+: expected .+, got .+$/s) as string,
      }),
    );
  });

  test("whatever is given for an option, there is a picture or one of our errors", () => {
    const calls: Record<string, (options: object) => unknown> = {
      drawMap: (options) => drawMap(map1, options),
      drawMaps: (options) => drawMaps(maps, options),
      attentionRow: (options) => attentionRow(maps, { query: 0, ...options }),
      drawRow: (options) => drawRow(maps, { query: 0, tokens, ...options }),
      attentionNoise: (options) => attentionNoise(maps, options),
      drawNoise: (options) => drawNoise(noise, options),
      mapsToJson: (options) => mapsToJson(maps, options),
    };
    const names =
      "theme styled batch head rows columns tokens rowTokens title description signed max cell headings query width height keep relevant about";
    const value = fc.oneof(
      fc.anything({
        withBigInt: true,
        withDate: true,
        withMap: true,
        withNullPrototype: true,
        withObjectString: true,
        withSparseArray: true,
        withTypedArray: true,
      }),
      fc.array(fc.oneof(fc.double(), fc.integer({ min: -1, max: 4 }), fc.string())),
      fc.double(),
      fc.constantFrom("light", "__proto__", "valueOf", Infinity, -0, 2 ** 53, 1e308, 5e-324),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(calls)),
        fc.dictionary(fc.constantFrom(...names.split(" ")), value, { maxKeys: 3 }),
        (name, options) => {
          try {
            calls[name]?.(options);
          } catch (error) {
            if (!(error instanceof DiffAttnError)) throw error;
            expect(error.code).toBe("OPTION");
          }
        },
      ),
      { numRuns: 3000 },
    );
  });

  test("a picture that no program shows", () => {
    const long = tensor(
      Array.from({ length: 2000 }, () => 0),
      [1, 1, 1, 2000],
    );
    expect(() => drawMap(long, { cell: 1000 })).toThrow("the picture: expected sides of at most 1000000 pixels");
    expect(drawMap(long, { cell: 100 })).toContain("<svg");
  });

  test("options that are absent are none", () => {
    expect(drawMap(map1, null as never)).toBe(drawMap(map1));
    expect(attentionNoise(maps, null as never)).toEqual(attentionNoise(maps));
    expect(mapsToJson(maps, null as never)).toEqual(mapsToJson(maps));
  });

  test.each([
    ["no maps", "SHAPE", () => drawMaps(null as never)],
    ["maps without a difference", "SHAPE", () => attentionRow({ map1, map2 } as never, { query: 0 })],
    ["no tensor", "SHAPE", () => drawMap(undefined as never)],
    ["three axes", "SHAPE", () => drawMap(tensor([1], [1, 1, 1]))],
    ["more elements than there are", "SHAPE", () => drawMap(tensor([1], [1, 1, 2 ** 26, 2 ** 26]))],
    ["extents that are none", "SHAPE", () => drawMap(tensor([], [1, 1, -1, NaN]))],
    ["a term of another size", "SHAPE", () => mapsToJson({ map1: tensor([1], [1, 1, 1, 1]), map2, diff })],
    ["numbers of another type", "DTYPE", () => drawMap({ ...map1, data: [1, 0, 0, 0.5, 0.25, 0.25] } as never)],
  ] as const)("%s", (_, code, body) => {
    expect(body).toThrow(expect.objectContaining({ name: "DiffAttnError", code }));
    expect(body).toThrow(DiffAttnError);
  });

  test("a PNG where there is no document", async () => {
    await expect(svgToPng("<svg/>")).rejects.toMatchObject({ name: "DiffAttnError", code: "UNAVAILABLE" });
    for (const scale of [0, -1, NaN, Infinity, "2"])
      await expect(svgToPng("<svg/>", { scale: scale as number })).rejects.toMatchObject({ code: "OPTION" });
    await expect(svgToPng({} as never)).rejects.toMatchObject({ code: "OPTION" });
  });
});

test("NaN leaves the others their scale", () => {
  const values = tensor([NaN, 0.1, 0.05, -0.1], [1, 1, 2, 2]);
  expect(drawMap(values)).toContain("values from −0.1 to 0.1");
});

test("as many tokens as a text has", () => {
  const count = 130_000;
  const tall = tensor(
    Array.from({ length: count }, () => 1),
    [1, 1, count, 1],
  );
  expect(() => drawMap(tall, { cell: 1, rowTokens: Array.from({ length: count }, () => "a") })).not.toThrow();
  expect(() => drawNoise(attentionNoise({ map1: tall, map2: tall, diff: tall }))).not.toThrow();
});
