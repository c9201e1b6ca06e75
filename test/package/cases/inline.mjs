// The files are gone: what the scripts carry runs in their place, and a worker starts from its
// text.
import assert from "node:assert/strict";
import * as operators from "diffattn";
import * as models from "diffattn/models";
import { runWasm } from "./run-wasm.mjs";

await assert.rejects(operators.init(), ({ code, message }) => code === "UNAVAILABLE" && message.includes('import "diffattn/inline"'));
await import("diffattn/inline");
await import("diffattn/inline-models");
await import("diffattn/inline-training");
const { notes } = await runWasm(operators, models, process.argv[2]);
assert.ok(!notes.some((note) => note.includes("no worker")), notes.join("; "));
operators.dispose();
