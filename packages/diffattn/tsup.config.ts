// Builds dist: the entries, the worker, the types, the WASM files, three for the operators, three
// with models and three with gradients, scripts that carry such files, and the command line. (What CommonJS asks for
// besides: commonjs.mjs.) wasm-bindgen's glue goes into the scripts, and the command line's
// libraries into cli.js, so what is published needs no package but the native one (and for texts a
// tokenizer's).

import { copyFileSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateRawSync } from "node:zlib";
import { defineConfig, type Options } from "tsup";

type Plugin = NonNullable<Options["esbuildPlugins"]>[number];

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const glueOf = (build: string): string => here(`../wasm/pkg-${build}/diffattn_wasm.js`);
const { version } = JSON.parse(readFileSync(here("package.json"), "utf8")) as { version: string };

// The builds without threads have a glue of the package's own (src/backend/glue.ts), which gives a
// module this and no more.
const IMPORTS = "./diffattn_wasm_bg.js __wbindgen_init_externref_table";
const simd = new WebAssembly.Module(readFileSync(here("../wasm/pkg-simd/diffattn_wasm_bg.wasm")));
const asked = WebAssembly.Module.imports(simd).map(({ module, name }) => `${module} ${name}`);
if (asked.join(", ") !== IMPORTS) throw new Error(`the module of simd imports ${asked.join(", ")}: expected ${IMPORTS}`);
// (Not every Node compiles the others, but their scripts say the same.)
for (const other of ["relaxed", "models-simd", "models-relaxed", "training-simd", "training-relaxed"])
  if (readFileSync(glueOf(other), "utf8") !== readFileSync(glueOf("simd"), "utf8"))
    throw new Error(`the glue of simd and ${other} differs`);

/** What the package calls of the WASM door (src/backend/instance.ts). */
const DOOR = [
  ..."allocate release prepare bind step run total done end".split(" "),
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

    build.onLoad({ filter: /^glue:threads$/, namespace: "glue" }, () => {
      const path = JSON.stringify(glueOf("threads"));
      const glues = { operators: "threads", models: "models-threads", training: "training-threads" };
      const made = Object.entries(glues).map(([part, build]) => ({ part, build, ...threadsGlue(build) }));
      for (const { build, text } of made)
        if (text !== made[0]?.text) throw new Error(`the glue of threads and ${build} differs in more than memory`);
      const pages = Object.fromEntries(made.map(({ part, pages }) => [part, pages]));
      return {
        contents: `
          import { ${DOOR} } from ${path};
          export { default, initThreadPool, wbg_rayon_start_worker } from ${path};
          export const door = { ${DOOR} };
          export const memoryPages = ${JSON.stringify(pages)};`,
        resolveDir: here("."),
      };
    });

    // The package always says where the module and its threads' script come from; the worker's
    // script has no address of its own.
    build.onLoad({ filter: /pkg-threads[/\\]diffattn_wasm\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8")
        .replace(/new URL\([^)]*, import\.meta\.url\)/, "undefined")
        .replace("import.meta.url", '""'),
    }));

    // wasm-bindgen-rayon's helper fetches itself into a blob; src/pool.ts starts its threads as it
    // was started.
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
  external: [/^node:/, "@huggingface/tokenizers", "@huggingface/jinja"],
  esbuildPlugins: [glue],
};

/** Licences under which a library's code may be part of ours, if its notice comes along. */
const ALLOWED = ["MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "0BSD"];

/**
 * Writes the licence of every package that is part of a script beside it; fails where that may not
 * be, and without a file for any package. (What is compiled into the WASM files, and their glue:
 * scripts/notices.mjs.)
 */
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

/**
 * What browsers load for some alone: without a worker, with threads. Scripts of their own, each
 * with a copy of what it shares with the entries: as chunks these parts would be everyone's.
 */
const APART = { "in-thread": "src/in-thread-alone.ts", "browser-pool": "src/browser-pool.ts" };
const apart: Plugin = {
  name: "apart",
  setup(build) {
    // The models' entry imports the operators' for this alone: that all of it is one chunk of both.
    build.initialOptions.logOverride = { "ignored-bare-import": "silent" };
    for (const name of Object.keys(APART))
      build.onResolve({ filter: new RegExp(`/${name}\\.js$`) }, () => ({ path: `./${name}.js`, external: true }));
  },
};

/** The WASM files by name, and where each is built. */
const wasmFiles = Object.fromEntries(
  ["", "models-", "training-"].flatMap((part) =>
    Object.entries({ simd: "simd128", relaxed: "relaxed", threads: "threads" }).map(([build, file]) => [
      `diffattn-${part}${file}.wasm`,
      here(`../wasm/pkg-${part}${build}/diffattn_wasm_bg.wasm`),
    ]),
  ),
);

/**
 * Files within scripts: the WASM files, deflated and in base64, and the text of the worker's
 * script.
 */
const carried: Plugin = {
  name: "carried",
  setup(build) {
    build.onResolve({ filter: /^(carried:|worker-text$)/ }, ({ path }) => ({ path, namespace: "carried" }));
    build.onLoad({ filter: /^carried:/, namespace: "carried" }, ({ path }) => {
      const names = path.slice("carried:".length).split(",");
      const base64 = (name: string): string => deflateRawSync(readFileSync(wasmFiles[name] ?? name), { level: 9 }).toString("base64");
      const modules = Object.fromEntries(names.map((name) => [name, base64(name)]));
      return { contents: `export const modules = ${JSON.stringify(modules)};` };
    });
    build.onLoad({ filter: /^worker-text$/, namespace: "carried" }, async () => {
      const { outputFiles } = await build.esbuild.build({
        entryPoints: [here("src/worker.ts")],
        bundle: true,
        format: "iife",
        target: "es2022",
        minify: true,
        plugins: [glue],
        write: false,
      });
      return { contents: `export default ${JSON.stringify(outputFiles[0]?.text)};` };
    });
  },
};

// Here, because the builds run side by side.
rmSync(here("dist"), { recursive: true, force: true });

/**
 * Entries that share chunks, and with them their state: which backend runs. Whoever needs no models
 * loads nothing of them.
 */
const entries = (place: string, more: Options = {}): Options => {
  const of = (part: string): string => (place === "browser" ? part : `${part}-${place}`);
  const entry: Record<string, string> = { [place]: `src/${place}.ts`, [of("models")]: `src/models/${place}.ts` };
  // (Where no module can be compiled none is trained.)
  if (place === "browser" || place === "node") entry[of("training")] = `src/training/${place}.ts`;
  return { ...own, entry, splitting: true, ...more };
};

/** ncc copies the files of a script that it can read, and newer syntax than this it cannot read. */
const readByNcc: Options["esbuildOptions"] = (options) => {
  const methods = ["class-private-method", "class-private-accessor", "class-private-static-method", "class-private-brand-check"];
  for (const syntax of [...methods, "class-static-blocks", "logical-assignment"])
    options.supported = { ...options.supported, [syntax]: false };
};

export default defineConfig([
  entries("browser", { minify: true, esbuildPlugins: [apart, ...(own.esbuildPlugins ?? [])] }),
  { ...own, entry: APART, minify: true },
  entries("workerd", { minify: true, external: [...(own.external ?? []), /\.wasm$/] }),
  entries("edge-light", { minify: true, external: [...(own.external ?? []), /\.wasm\?module$/] }),
  entries("node", { esbuildOptions: readByNcc }),
  { ...own, entry: { viz: "src/viz/index.ts" } },
  {
    ...own,
    entry: { inline: "src/inline.ts", "inline-models": "src/inline-models.ts", "inline-training": "src/inline-training.ts" },
    sourcemap: false,
    esbuildPlugins: [glue, carried, licences()],
  },
  {
    ...own,
    entry: { commonjs: "src/commonjs.ts" },
    format: "cjs",
    platform: "node",
    define: { ...own.define, "import.meta.url": "scriptUrl" },
    banner: {
      // jest's jsdom lacks what every Node has.
      js: `const scriptUrl = require("node:url").pathToFileURL(__filename).href;
const { TextEncoder = require("node:util").TextEncoder, TextDecoder = require("node:util").TextDecoder } = globalThis;`,
    },
    // Where modules cannot be required, they cannot be imported either.
    esbuildOptions: (options, context) => {
      readByNcc(options, context);
      options.supported = { ...options.supported, "dynamic-import": false };
    },
    sourcemap: false,
  },
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
    entry: ["src/worker.ts"],
    format: "iife",
    outExtension: () => ({ js: ".js" }),
    minify: true,
    dts: { entry: { types: "src/types.ts", models: "src/models/types.ts", training: "src/training/types.ts", viz: "src/viz/index.ts" } },
    onSuccess: () => {
      for (const [name, path] of Object.entries(wasmFiles)) copyFileSync(path, here(`dist/${name}`));
      return Promise.resolve();
    },
  },
]);
