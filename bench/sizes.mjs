// What a browser downloads, gzip -9: each WebAssembly module, the entry with the chunks that it
// imports, and the worker with wasm-bindgen's glue; and what remains of the entry, minified, for who
// imports one operator alone. Reads the built package, builds nothing.
//
//   node bench/sizes.mjs      the table; fails where something is larger than it may be (npm test)
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { isMain, root } from "../scripts/tools.mjs";

const ownDist = join(root, "packages/diffattn/dist");

/** Names of the scripts that a script's statements import, all the way; itself first. */
function imported(dist, name, found = new Set()) {
  if (found.has(name)) return found;
  found.add(name);
  const text = readFileSync(join(dist, name), "utf8");
  for (const [, next] of text.matchAll(/(?:^|[;}\s])(?:import|export)\b[^"'()]*["']\.\/([\w.-]+\.js)["']/g)) imported(dist, next, found);
  return found;
}

/** `{ wasm: { file: bytes }, entry: bytes, worker: bytes }` of a built package. */
export function sizes(dist = ownDist) {
  const gzipped = (name) => gzipSync(readFileSync(join(dist, name)), { level: 9 }).length;
  const modules = readdirSync(dist).filter((name) => name.endsWith(".wasm"));
  const entry = existsSync(join(dist, "browser.js")) ? [...imported(dist, "browser.js")] : [];
  return {
    wasm: Object.fromEntries(modules.map((name) => [name, gzipped(name)])),
    entry: entry.reduce((sum, name) => sum + gzipped(name), 0),
    worker: gzipped("worker.js"),
  };
}

/** Bytes, minified, that `code` loads of the entry at once; what it may load later is apart. */
async function minified(dist, code) {
  const { metafile } = await build({
    stdin: { contents: code, resolveDir: dist },
    bundle: true,
    splitting: true,
    minify: true,
    format: "esm",
    platform: "browser",
    outdir: "out",
    write: false,
    metafile: true,
    logLevel: "error",
  });
  const { outputs } = metafile;
  const loaded = new Set();
  const load = (name) => {
    if (loaded.has(name)) return;
    loaded.add(name);
    for (const { kind, path } of outputs[name].imports) if (kind === "import-statement" && outputs[path]) load(path);
  };
  load(Object.keys(outputs).find((name) => outputs[name].entryPoint));
  return [...loaded].reduce((sum, name) => sum + outputs[name].bytes, 0);
}

/** Minified bytes of who imports groupNorm alone, and of who imports everything. */
export async function shaken(dist = ownDist) {
  return {
    operator: await minified(dist, 'export { groupNorm } from "./browser.js";'),
    all: await minified(dist, 'export * from "./browser.js";'),
  };
}

/**
 * What each may be at most, in bytes: one percent above what is measured, as compilers differ. A
 * line is lowered with what is saved, and raised with what it pays for.
 */
export const LIMITS = {
  // (2.6 of them are new weights of a layer, and a layer without a norm; 0.5 the last requests.)
  "diffattn-simd128.wasm": 171_300,
  "diffattn-relaxed.wasm": 180_200,
  "diffattn-threads.wasm": 203_200,
  // (Of 587 KB 352 were there before GGUF files, quantised weights, conversions, adapters and four
  // families came; 12 of them are caches in other types, which the operators have, too. 55 are
  // Phi-4-mini-flash with its recurrent layers, sampling's options, adapters written and groups of
  // 64. The last 6 are texts that join and leave, and what they begin with in common.)
  "diffattn-models-simd128.wasm": 596_000,
  "diffattn-models-relaxed.wasm": 608_000,
  "diffattn-models-threads.wasm": 634_600,
  // (All that models have, and 197 to 215 of training: what is trained is loaded, sampled and written,
  // too. 60 of them are gradients of operators, 32 a layer's, 57 models in training, the optimizer
  // and the trainer, 2.5 units of gradients, and gradients over ranges of keys. 40 are images: their
  // models in training, and a trainer of their own, as it is generic; DEX, PolyNorm and both GELUs.)
  "diffattn-training-simd128.wasm": 794_000,
  "diffattn-training-relaxed.wasm": 822_000,
  "diffattn-training-threads.wasm": 850_500,
  // (12 KB are wanted. What a page calls without `init` is 11.0: one operator 8.3, the others, their
  // options and `init` 2.7. Caches, layers and tensors are 1.8, and the sync side 2.6: it works in
  // workers without `init`, so it cannot come later. Two files of it cost 0.5. Gradients are 1.0,
  // those of layers and their new weights 0.9; memory and views that stay from one small call to the
  // next, a third of its time, 0.1.)
  "entry with its chunks": 18_800,
  "worker.js": 9_000,
};

/** The share of everything that one operator alone may cost. */
const OPERATOR = 0.5;

const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} KB`;

/** Rows of the table, `{ name, size, limit, isOver }`. */
export function judged({ wasm, entry, worker }, { operator, all }) {
  const rows = Object.entries({ ...wasm, "entry with its chunks": entry, "worker.js": worker }).map(([name, size]) => ({
    name: `${name}, gzip`,
    size,
    limit: LIMITS[name],
    // A module that no one knows has no limit to keep to.
    isOver: !(size <= LIMITS[name]),
  }));
  const limit = OPERATOR * all;
  return [...rows, { name: `groupNorm alone, of ${kilobytes(all)} minified`, size: operator, limit, isOver: operator > limit }];
}

if (isMain(import.meta)) {
  const rows = judged(sizes(), await shaken());
  for (const { name, size, limit, isOver } of rows)
    console.log(`${name}: ${kilobytes(size)}, at most ${kilobytes(limit)}${isOver ? ": TOO LARGE" : ""}`);
  if (rows.some(({ isOver }) => isOver)) process.exitCode = 1;
}
