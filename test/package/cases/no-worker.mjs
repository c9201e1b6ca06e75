// Where no worker starts, async calls run on this thread, in slices: timers go on, an abort is
// seen, and the notes say so.
import assert from "node:assert/strict";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { runWasm } from "./run-wasm.mjs";

createRequire(import.meta.url)("node:worker_threads").Worker = class {
  constructor() {
    throw new Error("none is allowed");
  }
};
syncBuiltinESMExports();
const operators = await import("diffattn");
const { notes } = await runWasm(operators, await import("diffattn/models"), process.argv[2]);
assert.ok(notes.includes("no worker starts here (none is allowed), so async calls run in slices on the caller's thread"), notes.join("; "));

const tensor = (heads) => ({ data: new Float32Array(heads * 1024 * 64).fill(0.5), shape: [1, heads, 1024, 64] });
const [q, v] = [tensor(16), tensor(8)];
const longest = async (call) => {
  let [gap, last] = [0, performance.now()];
  const timer = setInterval(() => {
    gap = Math.max(gap, performance.now() - last);
    last = performance.now();
  }, 1);
  const begun = performance.now();
  await call;
  clearInterval(timer);
  return { gap, took: performance.now() - begun };
};
const { gap, took } = await longest(operators.diffAttention(q, q, v, { lambda: 0.5 }));
assert.ok(gap > 0 && gap < took / 2, `the event loop waited ${gap} ms of ${took} ms`);
const controller = new AbortController();
setTimeout(() => controller.abort(), 1);
await assert.rejects(operators.diffAttention(q, q, v, { lambda: 0.5, signal: controller.signal }), { code: "ABORTED" });
await assert.rejects(operators.init({ backend: "wasm", isa: "relaxed-simd+threads" }), { code: "UNAVAILABLE" });
operators.dispose();
