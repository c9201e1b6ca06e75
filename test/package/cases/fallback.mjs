// Where no native binary loads, WASM runs and says why; asked for, native is refused by one sentence.
import assert from "node:assert/strict";
import { diffAttention, diffAttentionSync, info, init, dispose } from "diffattn";

const { backend, notes } = info();
assert.equal(backend, "wasm");
assert.ok(
  notes.some((note) => note.includes("native") && note.includes("WASM")),
  `notes: ${JSON.stringify(notes)}`,
);
const q = { data: Float32Array.of(1, 0, 0, 1, 0, 1, 1, 0), shape: [1, 2, 2, 2] };
const v = { data: Float32Array.of(1, 2, 3, 4), shape: [1, 1, 2, 2] };
const options = { lambda: 0.25, isCausal: true };
const y = await diffAttention(q, q, v, options);
// The first query sees the first key alone: (1 − λ) v[0].
assert.deepEqual([...y.data.subarray(0, 2)], [0.75, 1.5]);
assert.deepEqual(y.data, diffAttentionSync(q, q, v, options).data);
await assert.rejects(init({ backend: "native" }), { name: "DiffAttnError", code: "UNAVAILABLE" });
assert.equal(info().backend, "wasm");
dispose();
