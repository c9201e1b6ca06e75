// What a browser downloads of the built package, and how much of it who imports one operator pays:
// prints the table and holds it against its limits. Closes with "N passed, N failed". Builds nothing
// (npm run build).
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const dist = fileURLToPath(new URL("../../packages/diffattn/dist/", import.meta.url));
const require = createRequire(createRequire(import.meta.url).resolve("tsup"));
const { build } = require("esbuild");

const KB = 1000;
const gzipped = (bytes) => gzipSync(bytes, { level: 9 }).length;
const kilobytes = (bytes) => `${(bytes / KB).toFixed(1)} KB`;

/**
 * What the entry loads in all, gzip -9. Sync forms need what computes on the caller's own thread at
 * once (a web worker calls them without `init`), so it cannot come later; only what stands in a
 * worker's place does.
 */
const ENTRY = 18.9 * KB;
/** worker.js, which imports nothing, gzip -9. */
const WORKER = 9 * KB;
/** The part of everything that who imports `groupNorm` alone pays, in bytes, minified. */
const SHARE = 0.5;

/** Modules before the rebuilding of the house, gzip -9, and how much larger they may be. */
const MODULES = {
  "diffattn-simd128.wasm": 163_795,
  "diffattn-relaxed.wasm": 169_278,
  "diffattn-threads.wasm": 189_694,
  "diffattn-models-simd128.wasm": 386_077,
  "diffattn-models-relaxed.wasm": 393_868,
  "diffattn-models-threads.wasm": 413_059,
};
const GROWTH = 1.02;
/** Sinks and block masks; with models besides these a family more. */
const ADDED = { operators: 6 * KB, models: 12 * KB };

/** Scripts that an entry of the package imports, and those that it loads only when it must. */
function reached(name) {
  const now = new Set();
  const later = new Set();
  const follow = (file) => {
    if (now.has(file)) return;
    now.add(file);
    const text = readFileSync(join(dist, file), "utf8");
    for (const [, next] of text.matchAll(/(?:from|import)"\.\/([\w.-]+\.js)"/g)) follow(next);
    for (const [, next] of text.matchAll(/import\("\.\/([\w.-]+\.js)"\)/g)) later.add(next);
  };
  follow(name);
  return { now: [...now], later: [...later].filter((file) => !now.has(file)) };
}

/** What a bundler makes of names of the entry: bytes that are loaded, and bytes that may be later. */
async function bundled(names) {
  const { metafile } = await build({
    stdin: { contents: `export ${names} from "./browser.js";`, resolveDir: dist },
    bundle: true,
    minify: true,
    format: "esm",
    splitting: true,
    outdir: "out",
    write: false,
    metafile: true,
  });
  const { outputs } = metafile;
  const now = new Set();
  const follow = (path) => {
    if (now.has(path)) return;
    now.add(path);
    for (const { path: next, kind } of outputs[path].imports) if (kind === "import-statement") follow(next);
  };
  follow(Object.keys(outputs).find((path) => basename(path) === "stdin.js"));
  const all = Object.values(outputs).reduce((sum, { bytes }) => sum + bytes, 0);
  const loaded = [...now].reduce((sum, path) => sum + outputs[path].bytes, 0);
  return { loaded, later: all - loaded };
}

const sizeOf = (file) => gzipped(readFileSync(join(dist, file)));
const sum = (files) => files.reduce((bytes, file) => bytes + sizeOf(file), 0);

const tests = {
  "the entry with all that it imports": () => {
    const { now, later } = reached("browser.js");
    for (const file of now) console.log(`        ${file}: ${kilobytes(sizeOf(file))}`);
    console.log(`        ${kilobytes(sum(now))} in all; later, where no worker starts: ${later.join(", ")}, ${kilobytes(sum(later))}`);
    assert.ok(sum(now) <= ENTRY, `expected at most ${kilobytes(ENTRY)}, got ${kilobytes(sum(now))}`);
  },

  "the worker's script": () => {
    console.log(`        worker.js: ${kilobytes(sizeOf("worker.js"))}`);
    assert.ok(sizeOf("worker.js") <= WORKER, `expected at most ${kilobytes(WORKER)}, got ${kilobytes(sizeOf("worker.js"))}`);
    assert.deepEqual(reached("worker.js"), { now: ["worker.js"], later: [] }, "it imports nothing");
  },

  "one operator, of everything that the entry may load": async () => {
    const all = await bundled("*");
    const everything = all.loaded + all.later;
    for (const name of ["groupNorm", "groupNormSync", "diffAttention", "KvCache"]) {
      const { loaded } = await bundled(`{ ${name} }`);
      const parts = [everything, all.loaded].map((whole) => `${((100 * loaded) / whole).toFixed(1)} %`);
      console.log(`        ${name}: ${kilobytes(loaded)}, ${parts[0]} of everything, ${parts[1]} of what is loaded at once`);
    }
    const { loaded } = await bundled("{ groupNorm }");
    const most = SHARE * everything;
    assert.ok(loaded <= most, `groupNorm: expected at most ${kilobytes(most)} of ${kilobytes(everything)}, got ${kilobytes(loaded)}`);
  },

  ...Object.fromEntries(
    Object.entries(MODULES).map(([file, before]) => [
      file,
      () => {
        const most = before * GROWTH + ADDED[file.includes("models") ? "models" : "operators"];
        const size = sizeOf(file);
        console.log(`        ${kilobytes(size)}, before ${kilobytes(before)}`);
        assert.ok(size <= most, `expected at most ${kilobytes(most)}, got ${kilobytes(size)}`);
      },
    ]),
  ),
};

assert.ok(existsSync(dist), "the package is not built: npm run build");
let passed = 0;
let failed = 0;
for (const [name, body] of Object.entries(tests)) {
  try {
    await body();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.error(`FAILED  ${name}\n${error instanceof Error ? error.message : error}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
