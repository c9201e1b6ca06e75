// All files in a folder of the caller's, and none beside the package's scripts: operators, models
// and the worker come from there.
import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import { pathToFileURL } from "node:url";
import * as operators from "diffattn";
import * as models from "diffattn/models";
import { runWasm } from "./run-wasm.mjs";

const [dist, folder] = ["node_modules/diffattn/dist/", "elsewhere/"];
const files = readdirSync(dist).filter((name) => /^worker\.js$|\.wasm$/.test(name));
mkdirSync(folder);
for (const name of files) copyFileSync(dist + name, folder + name);
for (const name of files) renameSync(dist + name, `${dist}${name}.away`);
try {
  await operators.init({ wasm: pathToFileURL(folder) });
  const { notes } = await runWasm(operators, models, process.argv[2]);
  assert.ok(!notes.some((note) => note.includes("no worker")), notes.join("; "));
  // The folder stays known to what starts anew.
  operators.dispose();
  await runWasm(operators, models, process.argv[2]);
  operators.dispose();
} finally {
  for (const name of files) renameSync(`${dist}${name}.away`, dist + name);
}
