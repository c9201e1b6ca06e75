// Pictures of maps from plain numbers.
import assert from "node:assert/strict";
import { DiffAttnError } from "diffattn";
import { drawMap, drawMaps } from "diffattn/viz";

const tensor = (values) => ({
  data: Float32Array.from(values),
  shape: [1, 1, 2, 2],
  dims: [1, 1, 2, 2],
  dtype: "float32",
  type: "float32",
});
const tokens = ["<a> & b", "\n"];
const plain = drawMap(tensor([1, 0, 0.25, 0.75]), { tokens, title: "first" });
assert.match(plain, /^<svg [^>]*role="img"/);
assert.match(plain, /<title>first<\/title><desc>.*from 0 to 1/);
assert.ok(plain.includes("&#60;a&#62; &#38; b") && plain.includes("↵"), "tokens are escaped and visible");
assert.ok(!plain.includes('<path class="da-minus"'), "a map without negative values has one hue");
// 1 in step 12, 0.75 in step 10, 0.25 in step 6: the root of the value.
assert.match(plain, /<path class="da-plus" stroke-opacity="1" d="M0 0h1"\/>/);
assert.match(plain, /<path class="da-plus" stroke-opacity="0\.5" d="M0 1h1"\/>/);

const signed = drawMap(tensor([0.5, 0, -0.5, 0.5]));
assert.match(signed, /<path class="da-minus" stroke-opacity="1" d="M0 1h1"\/>/);
assert.ok(signed.includes("−0.5") && signed.includes("+0.5"), "the legend says the sign");

const three = drawMaps({ map1: tensor([1, 0, 0, 1]), map2: tensor([1, 0, 1, 0]), diff: tensor([0.5, 0, -0.5, 1]) }, { tokens });
assert.equal(three.match(/class="da-frame"/g).length, 6);
const odd = drawMap(tensor([1, 0, 0, 1]), { tokens: ["\f", "\u001b[31m"], title: "\f" });
assert.ok(!odd.includes("\f") && !odd.includes("\u001b") && odd.includes("␛[31m"), "what XML forbids is a sign");

// One class of errors for all entries, and what this entry threw before.
for (const options of [{ tokens: ["one"] }, { head: 1 }, { theme: "constructor" }, { cell: Infinity }, { colour: "red" }])
  for (const type of [DiffAttnError, RangeError])
    assert.throws(
      () => drawMap(tensor([1, 0, 0, 1]), options),
      (error) => error instanceof type && error.code === "OPTION",
    );
