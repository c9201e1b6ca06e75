// Which crates are compiled into a binary, walked along Cargo's tree: what the notices of the
// packages are compared with. Reads no licence.

import { execFileSync } from "node:child_process";
import { root } from "../../scripts/tools.mjs";

const binaries = {
  native: ["-p", "diffattn-napi"],
  wasm: ["-p", "diffattn-wasm", "--all-features"],
};

/**
 * Names and versions of all that a binary is made of for a target, but for ours: no macro nor what
 * only macros use, nothing that builds or tests it.
 */
export function compiledInto(binary, target = "wasm32-unknown-unknown") {
  const args = ["tree", "--locked", "--no-dedupe", "--edges", "normal", "--prefix", "depth", "--target", target, ...binaries[binary]];
  const lines = execFileSync("cargo", args, { cwd: root, encoding: "utf8", maxBuffer: 1 << 28 }).split("\n");
  const crates = new Set();
  /** Within a macro: how deep that stands. */
  let macro = Infinity;
  for (const line of lines) {
    const [, digits, name, version, rest] = /^(\d+)(\S+) v(\S+)(.*)$/.exec(line) ?? [];
    if (digits === undefined) continue;
    const depth = Number(digits);
    if (depth > macro) continue;
    macro = rest.includes("(proc-macro)") ? depth : Infinity;
    // Ours come from a folder, which stands behind the version.
    if (macro === Infinity && !rest.includes("(/") && !/\([A-Z]:/.test(rest)) crates.add(`${name} ${version}`);
  }
  return [...crates];
}
