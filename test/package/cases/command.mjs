// The command line as npm installs it: its own libraries are inside, and a program that imports the
// package loads none of them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const bin = join("node_modules", ".bin", process.platform === "win32" ? "diffattn.cmd" : "diffattn");
const run = (...args) => spawnSync(bin, args, { encoding: "utf8", shell: process.platform === "win32" });

const { version } = JSON.parse(readFileSync("node_modules/diffattn/package.json", "utf8"));
assert.deepEqual([run("--version").status, run("--version").stdout], [0, `${version}\n`]);
const { status, stdout, stderr } = run("doctor", "--json");
assert.equal(status, 0, stderr);
const { backend, right } = JSON.parse(stdout);
const [expected, folder] = process.argv.slice(2);
assert.deepEqual({ backend, right }, { backend: expected, right: true });

// The tokenizer's package is not installed here.
const generated = run("generate", folder, "This function panics if", "-n", "5");
assert.deepEqual([generated.status, generated.stdout, generated.stderr], [0, " the function returns an error", ""]);
for (const name of ["@huggingface/tokenizers", "commander"]) assert.ok(!existsSync(join("node_modules", name)), `${name} is installed`);

const notices = readFileSync("node_modules/diffattn/dist/cli-licences.txt", "utf8");
for (const name of ["commander", "cli-progress", "pngjs", "jpeg-js", "@huggingface/tokenizers"])
  assert.match(notices, new RegExp(`^${name} \\d[\\d.]*, (MIT|BSD-3-Clause|Apache-2.0)$`, "m"));
for (const entry of ["node.js", "models-node.js", "browser.js", "models.js", "viz.js"])
  assert.ok(!readFileSync(join("node_modules/diffattn/dist", entry), "utf8").includes("cli.js"), `${entry} names the command line`);
