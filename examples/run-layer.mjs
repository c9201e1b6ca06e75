// Runs a trained attention layer on a real paragraph: on native and on every WebAssembly build that this Node, or the newer one
// of the set-up, has. Prints time, largest error and info() of each, and draws what the heads attend to. Ends with 1 when an
// error is too large or a backend is missing. The package must be built (npm start builds it).
//
//   node examples/run-layer.mjs               writes examples/out: index.html and one SVG picture per head
//   node examples/run-layer.mjs --readme      writes docs/images: the picture of the README
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { DiffAttnError, dispose, init, MultiheadDiffAttn } from "../packages/diffattn/dist/node.js";
import { drawMaps } from "../packages/diffattn/dist/viz.js";
import { newerNode } from "../scripts/tools.mjs";
import { layerPage } from "./page.mjs";
import { readSafetensors } from "./safetensors.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** What the sample was computed with keeps parts in float32 itself. */
const TOLERANCE = 2e-5;
const RUNS = 9;

const backends = [
  { backend: "native" },
  { backend: "wasm", isa: "simd128" },
  { backend: "wasm", isa: "relaxed-simd" },
  { backend: "wasm", isa: "relaxed-simd+threads" },
];

const { metadata, tensors } = readSafetensors(here("data/sample_layer.safetensors"));
const sample = JSON.parse(metadata.case);
const weights = Object.fromEntries(
  Object.entries(tensors)
    .filter(([name]) => name.startsWith("weights."))
    .map(([name, tensor]) => [name.slice("weights.".length), tensor]),
);

/** The layer as its checkpoint describes it. */
const makeLayer = () =>
  new MultiheadDiffAttn({
    embedDim: sample.embed_dim,
    depth: sample.depth,
    numHeads: sample.num_heads,
    numKvHeads: sample.num_kv_heads,
    pairing: sample.pairing,
    rope: sample.rope,
    norm: { eps: sample.eps, affine: sample.norm_affine },
    weights,
  });

/** The largest absolute difference; NaN and a wrong length count as infinite. */
function largestError(actual, expected) {
  if (actual.length !== expected.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < expected.length; i += 1) {
    const error = Math.abs(actual[i] - expected[i]);
    if (!(error <= largest)) largest = Number.isNaN(error) ? Infinity : error;
  }
  return largest;
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Runs the layer on one backend. */
async function measure(choice) {
  const info = await init(choice);
  const layer = makeLayer();
  try {
    let y = await layer.forward(tensors.x);
    const times = [];
    for (let run = 0; run < RUNS; run += 1) {
      const start = performance.now();
      y = await layer.forward(tensors.x);
      times.push(performance.now() - start);
    }
    const maps = await layer.maps(tensors.x);
    const error = largestError(y.data, tensors["expected.y"].data);
    const mapError = Math.max(
      largestError(maps.map1.data, tensors["expected.map1"].data),
      largestError(maps.map2.data, tensors["expected.map2"].data),
      largestError(maps.diff.data, tensors["expected.diff_map"].data),
    );
    return { result: { info, node: process.version, milliseconds: median(times), error, mapError }, maps };
  } finally {
    layer.dispose();
  }
}

/** The same in the newer Node, which has builds that this one lacks. */
function measureInNewerNode({ isa }) {
  if (!existsSync(newerNode)) throw new Error(`${isa}: neither this Node nor a newer one has it; run: node scripts/setup.mjs`);
  const { status, stdout, stderr, error } = spawnSync(newerNode, [here("run-layer.mjs"), "--one", isa], { encoding: "utf8" });
  if (status !== 0) throw new Error(`${isa} in the newer Node: ${error?.message ?? stderr}`);
  return JSON.parse(stdout);
}

function report({ info, node, milliseconds, error, mapError }) {
  const good = error <= TOLERANCE && mapError <= TOLERANCE;
  console.log(`${info.backend} ${info.isa}, ${info.threads} ${info.threads === 1 ? "thread" : "threads"}, Node ${node}`);
  console.log(`  time           ${milliseconds.toFixed(2)} ms (median of ${RUNS})`);
  console.log(
    `  largest error  ${error.toExponential(1)} in y, ${mapError.toExponential(1)} in the maps; at most ${TOLERANCE}: ${good ? "ok" : "TOO LARGE"}`,
  );
  console.log(`  info           ${JSON.stringify(info)}`);
  return good;
}

/** Every backend in turn; the maps are the first one's. */
async function runAll() {
  const results = [];
  let drawn;
  let good = true;
  for (const choice of backends) {
    try {
      const { result, maps } = await measure(choice).catch((error) => {
        // What this Node's engine lacks; the native binary and plain SIMD must be there.
        const lacking = error instanceof DiffAttnError && error.code === "UNAVAILABLE" && choice.isa?.startsWith("relaxed");
        if (!lacking) throw error;
        return { result: measureInNewerNode(choice) };
      });
      drawn ??= maps;
      results.push(result);
      good = report(result) && good;
    } catch (error) {
      console.error(`${choice.isa ?? choice.backend}: FAILED: ${error instanceof Error ? error.message : error}`);
      good = false;
    }
  }
  return { results, maps: drawn, good };
}

const folder = (path) => {
  mkdirSync(here(path), { recursive: true });
  return here(path);
};
const headings = ["first map", "second map", "difference: first − λ · second"];

const [flag, isa] = process.argv.slice(2);
if (flag === "--one") {
  // The child of measureInNewerNode.
  console.log(JSON.stringify((await measure({ isa })).result));
} else if (flag === "--readme") {
  const { maps } = await measure({});
  const shown = [0, 22];
  const title = `A trained layer reading Rust documentation: head 1, its first ${shown[1]} tokens, λ = ${sample.lambda.toFixed(2)}`;
  const file = join(folder("../docs/images"), "maps.svg");
  writeFileSync(file, drawMaps(maps, { head: 0, rows: shown, columns: shown, tokens: sample.tokens, title, headings }));
  console.log(`wrote ${file}`);
} else {
  console.log(
    `a trained layer (${sample.num_heads} heads, width ${sample.embed_dim}) on ${sample.tokens.length} tokens of Rust documentation\n`,
  );
  const { results, maps, good } = await runAll();
  if (maps) {
    const out = folder("out");
    const pictures = Array.from({ length: sample.num_heads }, (_, head) => {
      const title = `Head ${head + 1}, λ = ${sample.lambda.toFixed(3)}`;
      const svg = drawMaps(maps, { head, tokens: sample.tokens, title, headings, cell: 9 });
      writeFileSync(join(out, `head-${head + 1}.svg`), svg);
      return { title, svg };
    });
    writeFileSync(join(out, "index.html"), layerPage({ sample, results, pictures, tolerance: TOLERANCE }));
    console.log(`\nwrote ${join(out, "index.html")} and ${pictures.length} SVG pictures beside it`);
  }
  if (!good) process.exitCode = 1;
}
dispose();
