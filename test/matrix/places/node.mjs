// Node of each supported major, by import and by require. The binaries are those of npm's package
// `node`.

import { delimiter, join } from "node:path";
import { native } from "../lib/judge.mjs";

/**
 * A Node of a major, installed once for all places: `{ node, version, env }`; with `env`, programs
 * that start `node` start this one.
 */
export const nodeOf = (context, major) =>
  context.shared(`node ${major}`, async ({ exec, path, versionOf, write }) => {
    const version = versionOf("node", String(major));
    // Its package brings the binary by a script, so nothing else is installed beside it.
    write({ "package.json": { private: true, dependencies: { node: version }, allowScripts: { node: true } } });
    await exec("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline"], { timeout: 300 });
    const folder = path("node_modules/node/bin");
    return {
      node: join(folder, process.platform === "win32" ? "node.exe" : "node"),
      version,
      env: { PATH: `${folder}${delimiter}${process.env.PATH}` },
    };
  });

/**
 * A folder with the package and programs that import and require it, for all places that only
 * differ in what runs them.
 */
export const installed = (context, options = {}) =>
  context.shared(`installed ${JSON.stringify(options)}`, async (inner) => {
    await inner.install([], options);
    inner.write({ "main.mjs": inner.program(), "main.cjs": inner.program({ commonjs: true }) });
    return inner;
  });

const forms = [
  ["import", "main.mjs"],
  ["require", "main.cjs"],
];

const majors = [20, 22, 24, 26].flatMap((major) =>
  forms.map(([form, file]) => ({
    name: `Node ${major}, ${form}`,
    group: "Node",
    async run(context) {
      const [{ node, version }, { report }] = [await nodeOf(context, major), await installed(context)];
      return { version, report: await report(node, [file]), expected: native };
    },
  })),
);

/** The workspace's own Node without a registry. */
const short = forms.map(([form, file]) => ({
  name: `the Node that runs this, ${form}`,
  group: "Node",
  short: true,
  async run(context) {
    const { report } = await installed(context, { offline: true });
    return { version: process.versions.node, report: await report(process.execPath, [file]), expected: native };
  },
}));

export const places = [...short, ...majors];
