// Where no native binary loads, WASM runs and says why; asked for, native is refused by one
// sentence.
import assert from "node:assert/strict";
import * as operators from "diffattn";
import { runOperators } from "./run-wasm.mjs";

const { info, init, dispose } = operators;
const { backend, notes } = info();
assert.equal(backend, "wasm");
assert.ok(
  notes.some((note) => note.includes("native") && note.includes("WASM")),
  `notes: ${JSON.stringify(notes)}`,
);
await runOperators(operators);
await assert.rejects(init({ backend: "native" }), { name: "DiffAttnError", code: "UNAVAILABLE" });
assert.equal(info().backend, "wasm");
dispose();
