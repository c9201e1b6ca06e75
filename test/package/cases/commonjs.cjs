// A CommonJS program: no import anywhere.
const assert = require("node:assert/strict");
const { rmsNormSync, info } = require("diffattn");
const { DiffLlama } = require("diffattn/models");
const { drawMap } = require("diffattn/viz");

const { data } = rmsNormSync({ data: Float32Array.of(3, 4), shape: [1, 2] }, { eps: 0 });
assert.ok(Math.abs(data[0] - 3 / Math.sqrt(12.5)) < 1e-6);
assert.equal(info().backend, "native");
assert.equal(typeof drawMap, "function");
assert.equal(typeof DiffLlama.load, "function");
