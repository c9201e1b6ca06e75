// Maps in every format, and classes of pictures.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decode as decodeJpeg, encode as encodeJpeg } from "jpeg-js";
import { parseHTML } from "linkedom";
import { PNG } from "pngjs";
import { expect, test } from "vitest";
import { DiffLlama, DiffViT } from "./models.js";
import { diffattn, folder, modelOf, trained } from "./run.js";

const text = "Returns the number of elements in the vector";
const out = folder();
const vit = modelOf("diff_vit");

/** A picture with edges and slopes. */
const side = 96;
const pixels = Buffer.alloc(side * side * 4, 255);
for (let y = 0; y < side; y += 1)
  for (let x = 0; x < side; x += 1) pixels.set([2 * x, (x ^ y) & 64 ? 200 : 20, 255 - 2 * y], 4 * (y * side + x));
const png = new PNG({ width: side, height: side });
png.data = pixels;
const files = { png: join(out, "picture.png"), jpeg: join(out, "picture.jpg") };
writeFileSync(files.png, PNG.sync.write(png));
writeFileSync(files.jpeg, encodeJpeg({ data: pixels, width: side, height: side }, 100).data);

test("JSON has the library's own numbers", async () => {
  const { code, out } = await diffattn(["maps", trained, text, "--layer", "3", "--format", "json"]);
  expect(code).toBe(0);
  const told = JSON.parse(out) as {
    layer: number;
    heads: number[];
    tokens: string[];
    ids: number[];
    map1: number[][][];
    diff: number[][][];
  };
  using model = await DiffLlama.load(trained);
  const ids = model.encode(text);
  const maps = await model.maps(ids, 3);
  expect(told).toMatchObject({ layer: 3, heads: [0, 1, 2, 3], ids });
  expect(told.tokens.join("")).toBe(text);
  expect(Float32Array.from(told.diff.flat(2))).toEqual(maps.diff.data);
  expect(Float32Array.from(told.map1.flat(2))).toEqual(maps.map1?.data);
});

test("HTML is a page with a picture of each head and the text", async () => {
  const { code, out, err } = await diffattn(["maps", trained, `${text} <b>`]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const { document } = parseHTML(out);
  expect(document.querySelectorAll("svg")).toHaveLength(4);
  expect(document.querySelector("pre")?.textContent).toBe(`${text} <b>`);
  expect(document.querySelector("b")).toBe(null);
  expect(document.querySelectorAll("script, link, img, [src]")).toHaveLength(0);
});

test("SVG is one head's picture", async () => {
  const file = join(out, "head.svg");
  expect(await diffattn(["maps", trained, text, "--head", "2", "-o", file])).toMatchObject({ code: 0, out: "", err: "" });
  const { document } = parseHTML(readFileSync(file, "utf8"));
  expect(document.querySelector("svg > title")?.textContent).toBe("Layer 0, head 2");
  const several = await diffattn(["maps", trained, text, "-o", file]);
  expect(several).toMatchObject({ code: 2, err: "diffattn: an SVG file shows one head: choose --head 0 to 3\n" });
});

test("PNG goes to a file or a pipe, larger with larger cells", async () => {
  const piped = await diffattn(["maps", trained, "--format", "png", "--cell", "4"], { input: `${text}\n` });
  expect(piped).toMatchObject({ code: 0, err: "" });
  const small = PNG.sync.read(piped.bytes);
  const file = join(out, "maps.png");
  expect((await diffattn(["maps", trained, text, "-o", file, "--cell", "8"])).code).toBe(0);
  const large = PNG.sync.read(readFileSync(file));
  using model = await DiffLlama.load(trained);
  const tokens = model.encode(text).length;
  expect([large.width - small.width, large.height - small.height]).toEqual([3 * 4 * tokens, 4 * 4 * tokens]);
});

test("a vision transformer's maps are of a picture", async () => {
  const { code, out } = await diffattn(["maps", vit, files.png, "--layer", "1", "--format", "json"]);
  expect(code).toBe(0);
  const { tokens, diff } = JSON.parse(out) as { tokens: string[]; diff: number[][][] };
  using model = await DiffViT.load(vit);
  const maps = await model.maps({ data: pixels, width: side, height: side }, 1);
  expect(Float32Array.from(diff.flat(2))).toEqual(maps.diff.data);
  expect(tokens).toHaveLength(maps.diff.shape[3] ?? 0);
  expect(tokens.slice(0, 3)).toEqual(["register 1", "1,1", "1,2"]);
});

test("classify says what the library says of the same pixels", async () => {
  using model = await DiffViT.load(vit);
  const expected = await model.classify({ data: pixels, width: side, height: side }, { top: 3 });
  const { code, out, err } = await diffattn(["classify", vit, files.png, files.jpeg, "--top", "3", "--json"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const [first, second] = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { file: string; classes: typeof expected });
  expect(first).toEqual({ file: files.png, classes: expected });
  const decoded = decodeJpeg(readFileSync(files.jpeg), { useTArray: true });
  expect(second).toEqual({ file: files.jpeg, classes: await model.classify(decoded, { top: 3 }) });

  const plain = await diffattn(["classify", vit, "-", "--top", "1"], { input: readFileSync(files.png) });
  expect(plain.out).toBe(`${expected[0]?.probability.toFixed(4)}  ${expected[0]?.index}\n`);
});

test.each([
  [["maps", trained, text, "--layer", "8"], 1, "diffattn: --layer: expected a layer below 8, got 8\n"],
  [["maps", trained, text, "--head", "4"], 1, "diffattn: --head: expected a head below 4, got 4\n"],
  [["maps", trained, ""], 1, "diffattn: the text: expected one token or more, got none\n"],
  [["maps", trained, text, "-o", join(out, "nowhere", "a.html")], 1, /^diffattn: .*a\.html: cannot be written: there is no such folder\n$/],
  [["classify", vit, join(out, "none.png")], 1, /^diffattn: .*none\.png: cannot be read: there is no such file\n$/],
  [["classify", vit, out], 1, /^diffattn: .*: cannot be read: it is a folder\n$/],
  [["classify", vit, join(vit, "config.json")], 1, /^diffattn: .*config\.json: expected a PNG or JPEG file, got something else\n$/],
  [
    ["classify", trained, files.png],
    1,
    `diffattn: ${trained}: it is a DIFF Llama, a language model; "diffattn generate", "diffattn maps" and "diffattn bench" take it\n`,
  ],
  [["maps", vit, files.png, files.png], 2, "diffattn: maps: expected one picture\n"],
] as const)("%j is one sentence", async (args, code, sentence) => {
  const ended = await diffattn(args);
  expect(ended).toMatchObject({ code, out: "" });
  if (typeof sentence === "string") expect(ended.err).toBe(sentence);
  else expect(ended.err).toMatch(sentence);
});
