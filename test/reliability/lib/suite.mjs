// The helpers of test/suite, which are TypeScript: the oracle in float64, and results as numbers
// and as bits. Compiled on the way in, which takes a second: whoever needs none of it loads nothing
// of this.

import { readFileSync } from "node:fs";
import ts from "typescript";

/** A helper that imports nothing but types. */
async function suite(name) {
  const source = readFileSync(new URL(`../../suite/${name}.ts`, import.meta.url), "utf8");
  const { outputText } = ts.transpileModule(source, { compilerOptions: { target: "ES2022", module: "ESNext" } });
  return import(`data:text/javascript;base64,${Buffer.from(outputText).toString("base64")}`);
}

export const { attentionFloat64 } = await suite("reference");
export const { bits, values } = await suite("compare");
