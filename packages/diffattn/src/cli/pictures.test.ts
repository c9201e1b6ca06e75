// Files of pictures, read and written.

import { encode as encodeJpeg } from "jpeg-js";
import { parseHTML } from "linkedom";
import { PNG } from "pngjs";
import { SaxesParser } from "saxes";
import { expect, test } from "vitest";
import { drawMap } from "../viz/index.js";
import { visible } from "../viz/markup.js";
import { drawCells, extent } from "./cells.js";
import { decodeImage } from "./images.js";
import { formatOf, patchNames } from "./maps.js";
import { pageOf } from "./page.js";

const tensor = (values: number[], shape: number[]) => ({
  data: Float32Array.from(values),
  shape,
  dims: shape,
  dtype: "float32" as const,
  type: "float32" as const,
});

test("a PNG of every kind is RGBA of 8 bits", () => {
  const png = new PNG({ width: 2, height: 1 });
  png.data.set([255, 0, 0, 255, 0, 0, 255, 128]);
  expect(decodeImage("a.png", PNG.sync.write(png))).toMatchObject({ width: 2, height: 1 });
  expect([...decodeImage("a.png", PNG.sync.write(png)).data]).toEqual([255, 0, 0, 255, 0, 0, 255, 128]);
  const grey = PNG.sync.write(png, { colorType: 0, inputHasAlpha: true });
  expect(decodeImage("a.png", grey).data).toHaveLength(8);
});

test("a JPEG's pixels are near those that were written", () => {
  const data = Buffer.alloc(16 * 16 * 4, 255);
  for (let i = 0; i < data.length; i += 4) data.set([200, 100, 50], i);
  const image = decodeImage("named.png", encodeJpeg({ data, width: 16, height: 16 }, 95).data);
  expect([image.width, image.height, image.data.length]).toEqual([16, 16, 1024]);
  for (const [channel, value] of [200, 100, 50].entries()) expect(Math.abs((image.data[channel] ?? 0) - value)).toBeLessThan(6);
});

test("what is no picture, or half of one, is a sentence with its name", () => {
  expect(() => decodeImage("a.txt", Buffer.from("hello"))).toThrow("a.txt: expected a PNG or JPEG file, got something else");
  const whole = PNG.sync.write(new PNG({ width: 40, height: 40 }));
  expect(() => decodeImage("half.png", whole.subarray(0, 60))).toThrow(/^half\.png: cannot be decoded: \S/);
  expect(() => decodeImage("half.jpg", Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0]))).toThrow(/^half\.jpg: cannot be decoded: \S/);
});

test("a picture that claims more pixels than anyone has is refused before memory is taken", () => {
  const claim = PNG.sync.write(new PNG({ width: 1, height: 1 }));
  claim.writeUInt32BE(2 ** 31 - 1, 16);
  claim.writeUInt32BE(2 ** 31 - 1, 20);
  expect(() => decodeImage("bomb.png", claim)).toThrow("bomb.png: cannot be decoded: it says 2147483647 × 2147483647 pixels");
});

test("cells have the colours of the value's root, each head's maps one scale", () => {
  const first = tensor([1, 0, 0.25, 0.75, 0, 0, 0, 0], [1, 2, 2, 2]);
  const difference = tensor([1, 0, -1, 0, 0, 0, 0, 0], [1, 2, 2, 2]);
  const { width, height, data } = PNG.sync.read(drawCells([first, difference], [0], 3));
  expect({ width, height }).toEqual(extent(1, 2, 2, 2, 3));
  const at = (x: number, y: number): number[] => [...data.subarray(4 * (y * width + x), 4 * (y * width + x) + 3)];
  const [left, right, top] = [8 + 1, 8 + 8 + 8 + 1, 8 + 1];
  expect(at(0, 0)).toEqual([255, 255, 255]);
  expect(at(left, top)).toEqual([7, 87, 181]);
  expect(at(left + 3, top)).toEqual([255, 255, 255]);
  // A quarter of the largest: half of the steps.
  expect(at(left, top + 3)).toEqual([131, 171, 218]);
  expect(at(right, top + 3)).toEqual([194, 65, 12]);
  expect(at(left - 1, top)).toEqual([139, 148, 158]);
});

test("the format follows the option, then the name", () => {
  expect(formatOf({})).toBe("html");
  expect(formatOf({ output: "a.PNG" })).toBe("png");
  expect(formatOf({ output: "a.htm" })).toBe("html");
  expect(formatOf({ output: "a.txt", format: "json" })).toBe("json");
  expect(() => formatOf({ output: "a" })).toThrow("a: expected a name that ends with");
});

test("a vision transformer's tokens are registers, then patches by row and column", () => {
  expect(patchNames(5)).toEqual(["register 1", "1,1", "1,2", "2,1", "2,2"]);
  expect(patchNames(260).slice(2, 6)).toEqual(["register 3", "register 4", "1,1", "1,2"]);
});

test("a page escapes what it is given", () => {
  const page = pageOf({ title: "<a>", subject: "x & y", remarks: ['"r"'], pictures: [{ title: "1", svg: "<svg/>" }] });
  expect(page).toContain("<title>&#60;a&#62;</title>");
  expect(page).toContain("<pre>x &#38; y</pre>");
  expect(page).toContain('<div class="scroll"><svg/></div>');
});

test("a page's texts are what a reader of the file gets, whatever they hold", () => {
  const odd = "a\f\u0000\u001b[31m\u0085\ud800</pre><script>]]>&amp;'\"\ufffe\r\n\tb";
  const svg = drawMap(tensor([1, 0, 0, 1], [1, 1, 2, 2]), { tokens: [odd, "x"], title: odd });
  const page = pageOf({ title: odd, subject: odd, remarks: [odd], pictures: [{ title: odd, svg }] });
  const { document } = parseHTML(page);
  for (const selector of ["head > title", "h1", "pre", "p", "h2", "svg > title"])
    expect(document.querySelector(selector)?.textContent, selector).toBe(visible(odd));
  expect(document.querySelectorAll("script")).toHaveLength(0);
  // But for its doctype it is XML: every element is closed or takes no content.
  const parser = new SaxesParser();
  const errors: string[] = [];
  parser.on("error", ({ message }) => void errors.push(message));
  parser.write(page.replace(/^<!doctype html>\n/, "").replaceAll(/<meta [^>]*>/g, "")).close();
  expect(errors).toEqual([]);
});

test("a text that begins with a line end keeps it", () => {
  const page = pageOf({ title: "a", subject: "\nb", remarks: [], pictures: [] });
  expect(page).toContain("<pre>\n&#10;b</pre>");
});
