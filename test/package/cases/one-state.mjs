// `import` and `require` of the installed package are one module: one backend, one set of threads,
// one error class.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import * as imported from "diffattn";

const required = createRequire(import.meta.url)("diffattn");
assert.equal(required.DiffAttnError, imported.DiffAttnError);
assert.equal(required.MultiheadDiffAttn, imported.MultiheadDiffAttn);
required.setThreads(3);
assert.equal(imported.getThreads(), 3);
assert.equal(imported.info().backend, "native");
assert.deepEqual(imported.info().notes, []);
const x = { data: Float32Array.of(3, 4), shape: [1, 2] };
const { data } = await imported.rmsNorm(x, { eps: 0 });
assert.deepEqual(data, required.rmsNormSync(x, { eps: 0 }).data);
assert.ok(Math.abs(data[1] - 4 / Math.sqrt(12.5)) < 1e-6);
