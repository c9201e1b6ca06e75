// Builds dist: everything that the page needs, as plain files with relative addresses. Any static
// server can serve it (serve.mjs does), below any path, with or without the headers that isolate a
// page.

import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "tsup";
import { benchCases, formsOf, modelOf } from "./src/bench-subjects.js";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const require = createRequire(import.meta.url);
const dist = here("dist");

/** The package's files that it finds beside itself: the worker, WebAssembly. */
function copyPackage(): void {
  const from = here("../diffattn/dist");
  for (const name of readdirSync(from)) if (/^worker\.js$|\.wasm$/.test(name)) cpSync(join(from, name), join(dist, name));
}

function copyModel(): void {
  for (const name of ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
    cpSync(here(`../../examples/model/${name}`), join(dist, "model", name));
}

/** What the page may choose from where its server has nothing besides. */
function writeModels(): void {
  const files = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"];
  const small = {
    name: "small",
    title: "7M, trained on Rust’s documentation",
    about: "A small DIFF Llama that continues English about Rust. It knows nothing.",
    path: "model/",
    files,
    bytes: files.reduce((sum, name) => sum + statSync(join(dist, "model", name)).size, 0),
  };
  writeFileSync(join(dist, "models.json"), JSON.stringify({ models: [small] }));
}

/**
 * The library that the bench tab compares with, as its package has it; the page asks for it only
 * then.
 */
function copyOnnxruntime(): void {
  const from = dirname(require.resolve("onnxruntime-web/ort-wasm-simd-threaded.wasm"));
  for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"])
    cpSync(join(from, name), join(dist, "onnxruntime", name));
}

/** Its models of the bench tab's cases. */
function writeGraphs(): void {
  const { onnx } = require("onnx-proto") as { onnx: unknown };
  mkdirSync(join(dist, "graphs"), { recursive: true });
  for (const test of benchCases)
    for (const [name, form] of Object.entries(formsOf(test)))
      writeFileSync(join(dist, "graphs", `${test.id}.${name}.onnx`), modelOf(onnx, form, test));
}

export default defineConfig({
  entry: ["src/app.ts", "src/train.ts", "src/bench-worker.ts"],
  format: "esm",
  target: "es2022",
  platform: "browser",
  // One file each: what a page waits for comes in one request.
  splitting: false,
  noExternal: [/./],
  minify: true,
  sourcemap: true,
  clean: true,
  onSuccess: () => {
    for (const name of ["index.html", "style.css"]) writeFileSync(join(dist, name), readFileSync(here(`src/${name}`)));
    copyPackage();
    copyModel();
    cpSync(here("../../examples/digits/digits.bin"), join(dist, "digits.bin"));
    writeModels();
    copyOnnxruntime();
    writeGraphs();
    return Promise.resolve();
  },
});
