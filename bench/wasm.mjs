// Prints useful GFLOP/s ÷ FMA peak of causal differential attention in WebAssembly, through the public package, one thread; both
// measured in turn in this process. The peak is that of the same build in the same engine. Checks the answer against native.
//
//   node bench/wasm.mjs [simd128|relaxed-simd] [L ...]      relaxed-simd needs a newer Node
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { createTensor, diffAttentionSync, dispose, init } from "../packages/diffattn/dist/node.js";

const RUNS = 7;
const HEADS = 8;
const [isa = "simd128", ...lengths] = process.argv.slice(2);
const folder = new URL(`../packages/wasm/${isa === "simd128" ? "pkg-simd" : "pkg-relaxed"}/`, import.meta.url);
const glue = await import(new URL("diffattn_wasm.js", folder));
glue.initSync({ module: new WebAssembly.Module(readFileSync(new URL("diffattn_wasm_bg.wasm", folder))) });

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const seconds = (work) => {
  const start = performance.now();
  const result = work();
  return [(performance.now() - start) / 1000, result];
};

/** Values in −1…1: a golden-ratio sequence. */
function fill(data, seed) {
  for (let i = 0; i < data.length; i += 1) data[i] = (((i + seed) * 0.618033988749895) % 1) * 2 - 1;
}

const shapes = (length, d, dv) => [
  [1, 2 * HEADS, length, d],
  [1, 2 * HEADS, length, d],
  [1, HEADS, length, dv],
];

/** A short case on both backends: the answer. */
async function check() {
  const inputs = shapes(200, 64, 128).map((shape, index) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b));
    fill(data, index);
    return { data, shape };
  });
  const results = [];
  for (const options of [{ backend: "native" }, { backend: "wasm", isa, threads: 1 }]) {
    await init(options);
    results.push(diffAttentionSync(...inputs, { lambda: 0.35, isCausal: true }).data);
    if (options.backend === "native") dispose();
  }
  const worst = results[0].reduce((worst, value, i) => Math.max(worst, Math.abs(value - results[1][i])), 0);
  if (!(worst < 1e-5)) throw new Error(`${isa} differs from native by ${worst}`);
}

await check();
console.log(`node ${process.version}, ${isa}`);
console.log("    L    d   dv   GFLOP/s     peak   share");
for (const length of lengths.length > 0 ? lengths.map(Number) : [512, 2048]) {
  for (const [d, dv] of [
    [64, 128],
    [32, 64],
  ]) {
    const tensors = shapes(length, d, dv).map((shape, index) => {
      const tensor = createTensor(shape);
      fill(tensor.data, index);
      return tensor;
    });
    const useful = length * (length + 1) * HEADS * (2 * d + dv);
    const [times, peaks] = [[], []];
    for (let run = 0; run < RUNS; run += 1) {
      const [took, flops] = seconds(() => glue.fmaFlops(1 << 22));
      peaks.push(flops / took / 1e9);
      times.push(seconds(() => diffAttentionSync(...tensors, { lambda: 0.35, isCausal: true }))[0]);
    }
    for (const tensor of tensors) tensor.dispose();
    const rate = useful / median(times) / 1e9;
    const row = [length, d, dv].map((value, i) => String(value).padStart(i === 0 ? 5 : 4)).join(" ");
    console.log(
      `${row} ${rate.toFixed(1).padStart(9)} ${median(peaks).toFixed(1).padStart(8)} ${(rate / median(peaks)).toFixed(3).padStart(7)}`,
    );
  }
}
