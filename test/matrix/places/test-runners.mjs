// Test runners as they come, without a file of configuration: jest (which knows only CommonJS then)
// and vitest.
import { native } from "../lib/judge.mjs";
import { nodeOf } from "./node.mjs";

/** A test that runs check.cjs by `require` and prints its report past the runner's console. */
const jestTest = (context, docblock, more) => `${docblock}const library = require("diffattn");
const models = require("diffattn/models");
${more}const { check } = require("./check.cjs");
test("the package runs", async () => {
  const report = await check({ library, models, source: ${JSON.stringify(context.modelFolder)} });
  process.stdout.write("\\n${context.mark}" + JSON.stringify(report) + "\\n");
}, 30_000);\n`;

const jest = (name, { docblock = "", more = "", packages = ["jest"], expected, note }) => ({
  name,
  group: "Test runners",
  async run(context) {
    const { node } = await nodeOf(context, 24);
    await context.install(packages, { type: "commonjs" });
    context.write({ "package.test.js": jestTest(context, docblock, more) });
    const report = await context.report(node, [context.path("node_modules/jest/bin/jest.js")]);
    return { version: context.versionOf("jest"), report, expected, note };
  },
});

const vitest = {
  name: "vitest",
  group: "Test runners",
  async run(context) {
    const { node } = await nodeOf(context, 24);
    await context.install(["vitest"]);
    context.write({
      "package.test.js": `import * as library from "diffattn";
import * as models from "diffattn/models";
import { test } from "vitest";
import { check } from "./check.mjs";
test("the package runs", async () => {
  const report = await check({ library, models, source: ${JSON.stringify(context.modelFolder)} });
  process.stdout.write("\\n${context.mark}" + JSON.stringify(report) + "\\n");
}, 30_000);\n`,
    });
    const report = await context.report(node, [context.path("node_modules/vitest/vitest.mjs"), "run"]);
    return { version: context.versionOf("vitest"), report, expected: native };
  },
};

export const places = [
  jest("jest", { expected: native }),
  jest("jest, jsdom", {
    docblock: "/** @jest-environment jsdom */\n",
    packages: ["jest", "jest-environment-jsdom"],
    more: `const { TextEncoder, TextDecoder } = require("node:util");\nObject.assign(globalThis, { TextEncoder, TextDecoder });\n`,
    expected: native,
    note: "jsdom lacks `TextEncoder` and `TextDecoder`, which texts of models want (`@huggingface/tokenizers`): from `node:util`",
  }),
  vitest,
];
