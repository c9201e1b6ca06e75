// TypeScript's compilers in every kind of resolution: types are checked in full (the package's
// declarations, too), then what was emitted runs. And TypeScript that runs as it is: tsx, and
// Node's own stripping of types.
import { readFileSync } from "node:fs";
import { native } from "../lib/judge.mjs";
import { nodeOf } from "./node.mjs";

/** lib/check.mjs for TypeScript. */
const declaration = `export declare function check(options: {
  library: typeof import("diffattn");
  models: typeof import("diffattn/models");
  source: string;
}): Promise<{ text: string | undefined; info: import("diffattn").Info }>;\n`;

const program = (context, extension) =>
  `import * as library from "diffattn";
import * as models from "diffattn/models";
import type { Tensor, TensorLike } from "diffattn";
import { check } from "./check${extension}";
const one: TensorLike<Float32Array> = { data: Float32Array.of(3, 4), shape: [1, 2] };
const scaled: Tensor = library.rmsNormSync(one, { eps: 0 });
const [first = 0] = scaled.data;
if (Math.abs(first - 3 / Math.sqrt(12.5)) > 1e-6) throw new Error("rmsNormSync");
void check({ library, models, source: ${JSON.stringify(context.modelFolder)} }).then((report) => {
  console.log("${context.mark}" + JSON.stringify(report));
});\n`;

/** A folder with a program in TypeScript, for all places of one kind of module. */
const folderOf = (context, packages, type) =>
  context.shared(`${packages} ${type}`, async (inner) => {
    await inner.install(packages, { type });
    const extension = type === "module" ? ".mjs" : ".cjs";
    inner.write({ "main.ts": program(inner, extension), [`check.d${extension.replace("js", "ts")}`]: declaration });
    // What the package test checks, too: more of the types than a program of three calls uses.
    for (const file of ["types.mts", "types.cts"])
      inner.write({ [file]: readFileSync(new URL(`../../package/cases/${file}`, import.meta.url), "utf8") });
    return inner;
  });

/** `types`: the file of test/package/cases that is checked, too. */
const kinds = [
  { resolution: "node10", module: "commonjs", type: "commonjs", majors: [5] },
  { resolution: "node16", module: "node16", type: "module", majors: [5, 7], types: "types.mts" },
  { resolution: "node16", module: "node16", type: "commonjs", majors: [5, 7], types: "types.cts" },
  { resolution: "nodenext", module: "nodenext", type: "module", majors: [5, 7], types: "types.mts" },
  { resolution: "nodenext", module: "nodenext", type: "commonjs", majors: [5, 7], types: "types.cts" },
  { resolution: "bundler", module: "esnext", type: "module", majors: [5, 7], types: "types.mts" },
];

const compiled = kinds.flatMap(({ resolution, module, type, majors, types }) =>
  majors.map((major) => ({
    name: `TypeScript ${major}, ${resolution}, ${type === "module" ? "ESM" : "CommonJS"}`,
    group: "TypeScript",
    async run(context) {
      const { node } = await nodeOf(context, 24);
      const inner = await folderOf(context, [`typescript@${major}`], type);
      const outDir = `out-${resolution}`;
      const config = `tsconfig.${resolution}.json`;
      // No types of Node and no DOM; the package's own declarations are checked as well.
      const options = {
        strict: true,
        target: "es2022",
        lib: ["es2022"],
        types: [],
        module,
        moduleResolution: resolution,
        outDir,
        rootDir: ".",
      };
      inner.write({ [config]: { compilerOptions: options, files: ["main.ts", "console.d.ts", ...(types ? [types] : [])] } });
      inner.write({ "console.d.ts": "declare const console: { log(text: string): void };\n" });
      await inner.exec(node, [inner.path("node_modules/typescript/bin/tsc"), "-p", config]);
      const extension = type === "module" ? "mjs" : "cjs";
      inner.write({ [`${outDir}/check.${extension}`]: readFileSync(inner.path(`check.${extension}`), "utf8") });
      return {
        version: inner.versionOf("typescript", String(major)),
        report: await inner.report(node, [`${outDir}/main.js`]),
        expected: native,
      };
    },
  })),
);

const tsx = ["module", "commonjs"].map((type) => ({
  name: `tsx, ${type === "module" ? "ESM" : "CommonJS"}`,
  group: "TypeScript",
  async run(context) {
    const { node } = await nodeOf(context, 24);
    const { report, path, versionOf } = await folderOf(context, ["tsx"], type);
    return { version: versionOf("tsx"), report: await report(node, [path("node_modules/tsx/dist/cli.mjs"), "main.ts"]), expected: native };
  },
}));

const stripped = [22, 24, 26].map((major) => ({
  name: `Node ${major}, types stripped`,
  group: "TypeScript",
  async run(context) {
    const { node, version } = await nodeOf(context, major);
    const { report } = await folderOf(context, ["tsx"], "module");
    return { version, report: await report(node, ["main.ts"]), expected: native };
  },
}));

export const places = [...compiled, ...tsx, ...stripped];
