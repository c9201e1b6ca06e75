// The structure of the product's sources: import circles, lengths of files and functions,
// arguments, widths of comments, tests within product files, unsafe blocks. Prints what every rule
// of structure/rules.mjs finds; fails where one that gates finds anything.
//
//   node scripts/structure.mjs [--root FOLDER] [--table] [--gate]     another checkout; a table of measures by crate; every rule gates
import { existsSync, readdirSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { judge, unsafeLines } from "./structure/rules.mjs";
import { table } from "./structure/table.mjs";
import { facts as typescriptFacts, imports as typescriptImports } from "./structure/typescript.mjs";
import { isMain, root as here, run } from "./tools.mjs";

const PACKAGE = "packages/diffattn/src";
const PACKAGES = [PACKAGE, "packages/demo/src", "packages/native"];
/** Findings that are shown of a rule that only reports. */
const REPORTED = 12;

/** What structure/src says of every crate: facts and imports, by path from `root`. */
function rustFacts(root) {
  const crates = readdirSync(join(root, "crates")).toSorted();
  const folders = crates.map((name) => join(root, "crates", name, "src")).filter((folder) => existsSync(join(folder, "lib.rs")));
  const tool = ["run", "--quiet", "--package", "diffattn-structure", "--", ...folders];
  const byFolder = JSON.parse(run("cargo", tool, { capture: true }));
  const facts = { files: {}, rust: new Map(), rustWithParents: new Map() };
  for (const [folder, files] of Object.entries(byFolder)) {
    const path = (name) => `${relative(root, folder).replaceAll("\\", "/")}/${name}`;
    for (const [name, { imports, from_below: below, ...measures }] of Object.entries(files)) {
      facts.files[path(name)] = measures;
      facts.rust.set(path(name), Object.keys(imports).map(path));
      facts.rustWithParents.set(path(name), [...Object.keys(imports), ...Object.keys(below)].map(path));
    }
  }
  return facts;
}

/** All that the rules judge. */
export async function structure(root) {
  const rust = rustFacts(root);
  const folders = PACKAGES.filter((folder) => existsSync(join(root, folder)));
  return {
    ...rust,
    files: { ...rust.files, ...typescriptFacts(root, folders) },
    typescript: await typescriptImports(root, PACKAGE),
  };
}

if (isMain(import.meta)) {
  const { values } = parseArgs({
    options: { root: { type: "string", default: here }, table: { type: "boolean" }, gate: { type: "boolean" } },
  });
  const facts = await structure(resolve(values.root));
  if (values.table) console.log(table(facts).join("\n"));
  const judged = judge(facts).map((rule) => ({ ...rule, gates: rule.gates || values.gate }));
  for (const { what, gates, findings } of judged) {
    const verdict = findings.length === 0 ? "none" : `${findings.length}${gates ? "" : " (reported only)"}`;
    console.log(`${what}: ${verdict}`);
    const shown = gates ? findings : findings.slice(0, REPORTED);
    for (const finding of shown) console.log(`  ${finding}`);
    if (shown.length < findings.length) console.log(`  and ${findings.length - shown.length} more`);
  }
  console.log(`lines with \`unsafe {\` in the crates, tests apart: ${unsafeLines(facts.files)}`);
  if (judged.some(({ gates, findings }) => gates && findings.length > 0)) process.exitCode = 1;
}
