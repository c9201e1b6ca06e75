// Builds dist: the entries, the worker, the pool, the types, the WASM files, three for the operators and three with models, and the
// command line. wasm-bindgen's glue goes into the scripts, and the command line's libraries into cli.js, so what is published needs no
// package but the native one (and for texts a tokenizer's).

import { copyFileSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig, type Options } from "tsup";

type Plugin = NonNullable<Options["esbuildPlugins"]>[number];

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const glueOf = (build: string): string => here(`../wasm/pkg-${build}/diffattn_wasm.js`);
const { version } = JSON.parse(readFileSync(here("package.json"), "utf8")) as { version: string };

/** What the package calls of the WASM door (src/backend/instance.ts). */
const DOOR = [
  ..."allocate release prepare outputs bind step finish total done end".split(" "),
  ..."query errorCode errorMessage configure isa panicAddress".split(" "),
].join(", ");

/** The glue of a threads build, and apart from it how large its memory is. */
function threadsGlue(build: string): { text: string; pages: { initial: number; maximum: number } } {
  const text = readFileSync(glueOf(build), "utf8");
  const memory = /initial:(\d+),maximum:(\d+),shared:true/;
  const pages = memory.exec(text);
  if (!pages) throw new Error(`the glue of ${build} does not say how large its memory is`);
  return { text: text.replace(memory, ""), pages: { initial: Number(pages[1]), maximum: Number(pages[2]) } };
}

const glue: Plugin = {
  name: "glue",
  setup(build) {
    build.onResolve({ filter: /^glue:/ }, ({ path }) => ({ path, namespace: "glue" }));

    // wasm-bindgen's module holds one instance for ever; as the body of a function it can be had anew after a trap.
    build.onLoad({ filter: /^glue:local$/, namespace: "glue" }, async () => {
      for (const other of ["relaxed", "models-simd", "models-relaxed"])
        if (readFileSync(glueOf(other), "utf8") !== readFileSync(glueOf("simd"), "utf8"))
          throw new Error(`the glue of simd and ${other} differs`);
      const { outputFiles } = await build.esbuild.build({
        stdin: { contents: `export { initSync, ${DOOR} } from ${JSON.stringify(glueOf("simd"))};`, resolveDir: here(".") },
        bundle: true,
        format: "iife",
        globalName: "glue",
        target: "es2022",
        define: { "import.meta.url": "undefined" },
        write: false,
      });
      return { contents: `export function createGlue() {\n${outputFiles[0]?.text}\nreturn glue;\n}` };
    });

    build.onLoad({ filter: /^glue:threads$/, namespace: "glue" }, () => {
      const path = JSON.stringify(glueOf("threads"));
      const [operators, models] = ["threads", "models-threads"].map(threadsGlue);
      if (models?.text !== operators?.text) throw new Error("the glue of threads and models-threads differs in more than memory");
      return {
        contents: `
          import { ${DOOR} } from ${path};
          export { default, initThreadPool, wbg_rayon_start_worker } from ${path};
          export const door = { ${DOOR} };
          export const memoryPages = ${JSON.stringify({ operators: operators?.pages, models: models?.pages })};`,
        resolveDir: here("."),
      };
    });

    // The package always says where the module comes from; this would make bundlers look for a file.
    build.onLoad({ filter: /pkg-threads[/\\]diffattn_wasm\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replace(/new URL\([^)]*, import\.meta\.url\)/, "undefined"),
    }));

    // wasm-bindgen-rayon's helper fetches itself into a blob; src/pool.ts starts its threads by its own address.
    build.onResolve({ filter: /workerHelpers(\.no-bundler)?\.js$/ }, () => ({ path: here("src/pool.ts") }));
  },
};

const common: Options = {
  format: "esm",
  target: "es2022",
  platform: "neutral",
  splitting: false,
  sourcemap: true,
  define: { __VERSION__: JSON.stringify(version) },
  external: [/^node:/, "@huggingface/tokenizers"],
  esbuildPlugins: [glue],
};

/** A page may load the files as they are, so they are minified, which drops the comments that stop bundlers from following an address. */
const bundlersLookAway: NonNullable<Options["plugins"]>[number] = {
  name: "bundlers-look-away",
  renderChunk: (code, { map = null }) => ({
    // A literal is for them: the tokenizers' package.
    code: code.replaceAll(/\bimport\((?!["'`])/g, "import(/* @vite-ignore *//* webpackIgnore: true */"),
    map,
  }),
};

/** Licences under which a library's code may be part of ours, if its notice comes along. */
const ALLOWED = ["MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "0BSD"];

/** Writes the licence of every package that is part of a script beside it; fails where that may not be, and without a file for any
 *  package. (What is compiled into the WASM files, and their glue: scripts/notices.mjs.) */
const licences = (file?: string): Plugin => ({
  name: "licences",
  setup(build) {
    build.initialOptions.metafile = true;
    build.onEnd(({ metafile }) => {
      const packages = new Map<string, string>();
      for (const input of Object.keys(metafile?.inputs ?? {})) {
        const [, folder, name] = /^(.*node_modules[/\\]((?:@[^/\\]+[/\\])?[^/\\]+))[/\\]/.exec(join(here("."), input)) ?? [];
        if (folder && name) packages.set(name, folder);
      }
      if (file === undefined) {
        if (packages.size > 0) throw new Error(`a library is part of an entry, without its notice: ${[...packages.keys()].join(", ")}`);
        return;
      }
      const notices = [...packages].sort().map(([name, folder]) => {
        const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, string>;
        const text = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
        if (!license || !ALLOWED.includes(license)) throw new Error(`${name}: its licence is ${license}, which no one has looked at`);
        if (!text) throw new Error(`${name}: its licence's text is missing`);
        return `${name} ${version}, ${license}\n\n${readFileSync(join(folder, text), "utf8").trim()}\n`;
      });
      const head = "Parts of the command line (cli.js) are these packages:\n\n";
      writeFileSync(here(`dist/${file}`), head + notices.join(`\n${"-".repeat(80)}\n\n`));
    });
  },
});

/** Of ours alone. */
const own: Options = { ...common, esbuildPlugins: [glue, licences()] };

const wasmFiles = { simd: "simd128", relaxed: "relaxed", threads: "threads" };

// Here, because the builds run side by side.
rmSync(here("dist"), { recursive: true, force: true });

export default defineConfig([
  // The entries and the worker share chunks: what several need is loaded once, and whoever needs no models loads nothing of them.
  {
    ...own,
    entry: { browser: "src/browser.ts", models: "src/models/browser.ts", worker: "src/worker.ts" },
    splitting: true,
    minify: true,
    plugins: [bundlersLookAway],
  },
  // Both share their state: which backend runs.
  { ...own, entry: { node: "src/node.ts", "models-node": "src/models/node.ts" }, splitting: true },
  { ...own, entry: { viz: "src/viz/index.ts" } },
  {
    ...common,
    entry: { cli: "src/cli/main.ts" },
    platform: "node",
    // Older Node's libraries ask for its modules by `require` and without "node:".
    banner: { js: `import { createRequire as commonJs } from "node:module";\nconst require = commonJs(import.meta.url);` },
    noExternal: [/./],
    external: [/^node:/, ...builtinModules],
    minify: true,
    sourcemap: false,
    esbuildPlugins: [licences("cli-licences.txt")],
  },
  {
    ...own,
    entry: ["src/pool.ts"],
    minify: true,
    dts: { entry: { types: "src/types.ts", models: "src/models/types.ts", viz: "src/viz/index.ts" } },
    onSuccess: () => {
      for (const [build, file] of Object.entries(wasmFiles))
        for (const models of ["", "models-"])
          copyFileSync(here(`../wasm/pkg-${models}${build}/diffattn_wasm_bg.wasm`), here(`dist/diffattn-${models}${file}.wasm`));
      return Promise.resolve();
    },
  },
]);
