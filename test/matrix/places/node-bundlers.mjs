// Services of Node that a bundler made one file of: esbuild and ncc. Run beside the node_modules
// that they were built from, or moved to a folder that has nothing else.
import { join } from "node:path";
import { INLINE } from "../lib/bundles.mjs";
import { fallback, native } from "../lib/judge.mjs";
import { nodeOf } from "./node.mjs";

/** esbuild of the workspace, which needs no registry. */
const esbuild = (name, { format, inline = false, expected, note }) => ({
  name,
  group: "Bundlers for Node",
  short: true,
  async run(context) {
    const folder = context.ofWorkspace("esbuild", "tsup");
    await context.install([], { offline: true });
    context.write({ "main.mjs": context.program({ header: inline ? INLINE.imports : "" }) });
    const file = format === "esm" ? "main.mjs" : "main.cjs";
    const build = ["main.mjs", "--bundle", "--platform=node", `--format=${format}`, `--outfile=out/${file}`, "--log-level=warning"];
    await context.exec(process.execPath, [join(folder, "bin/esbuild"), ...build]);
    const { version } = await context.manifestOf(folder);
    // What carries all that it needs must do without what it was built from.
    const at = inline ? context.elsewhere("out") : context.path("out");
    return { version, report: await context.report(process.execPath, [join(at, file)], { cwd: at }), expected, note };
  },
});

/** ncc copies what a program reads beside itself. */
const ncc = (name, { type, expected, note }) => ({
  name,
  group: "Bundlers for Node",
  async run(context) {
    const { node } = await nodeOf(context, 24);
    await context.install(["@vercel/ncc"], { type });
    context.write({ "main.js": context.program({ commonjs: type === "commonjs" }) });
    await context.exec(process.execPath, [context.path("node_modules/@vercel/ncc/dist/ncc/cli.js"), "build", "main.js", "-o", "out"]);
    const at = context.elsewhere("out");
    return { version: context.versionOf("@vercel/ncc"), report: await context.report(node, ["index.js"], { cwd: at }), expected, note };
  },
});

export const places = [
  esbuild("esbuild, ESM, beside node_modules", { format: "esm", expected: native }),
  esbuild("esbuild, CommonJS, beside node_modules", { format: "cjs", expected: native }),
  ...["esm", "cjs"].map((format) =>
    esbuild(`esbuild, ${format === "esm" ? "ESM" : "CommonJS"}, one file alone`, {
      format,
      inline: true,
      expected: { backend: "wasm", threads: "they carry the builds without threads", says: fallback },
      note: '`import "diffattn/inline"` and `"diffattn/inline-models"` carry the modules',
    }),
  ),
  ...["module", "commonjs"].map((type) =>
    ncc(`ncc, ${type === "module" ? "ESM" : "CommonJS"}, its folder alone`, {
      type,
      // It follows no `require` that is made by a value, as that of the platform's binary is.
      expected: { backend: "wasm", threads: true, says: fallback },
      note: "native where node_modules/@diffattn is beside it",
    }),
  ),
];
