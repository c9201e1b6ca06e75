// Completes dist, once tsup has ended, by what CommonJS asks for: entries that give the module
// where it can be required, so that there is one state whichever way the package is loaded, else
// the same code as CommonJS (commonjs.cjs: jest); and types by the names of that kind. Compiles
// nothing.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const dist = (name) => fileURLToPath(new URL(`dist/${name}`, import.meta.url));

/** Entries, and what commonjs.cjs calls them. */
const entries = { node: "operators", "models-node": "models", "training-node": "training", viz: "viz" };
for (const [entry, name] of Object.entries(entries))
  writeFileSync(
    dist(`${entry}.cjs`),
    `"use strict";
let entry;
try {
  entry = require("./${entry}.js");
} catch {
  // Where no module can be required.
  entry = require("./commonjs.cjs").${name};
}
module.exports = entry;
`,
  );

// To TypeScript a file is of the kind that its name says, and so is what it imports. (By the text,
// because tsup would make them all anew: 11 s of CPU time.)
for (const name of ["types", "models", "training", "viz"])
  writeFileSync(dist(`${name}.d.cts`), readFileSync(dist(`${name}.d.ts`), "utf8").replaceAll(/(from '\.\/\w+)\.js'/g, "$1.cjs'"));

// They are there for what they do, and have no name to give.
for (const name of ["inline", "inline-models", "inline-training", "in-thread"]) {
  for (const types of ["d.ts", "d.cts"]) writeFileSync(dist(`${name}.${types}`), "export {};\n");
  writeFileSync(dist(`${name}.cjs`), `"use strict";\nrequire("./${name}.js");\n`);
}
