// A subject: onnxruntime-node or onnxruntime-web (WebAssembly), on small ONNX models
// (onnx-graphs.mjs). What is timed is session.run. Not here: pairings other than one k head for
// each q head, windows and decode steps, which the operators have no form for.
//
//   node bench/subjects/onnxruntime.mjs node|web
import { createRequire } from "node:module";
import { totalmem } from "node:os";
import { formsOf } from "./inputs.mjs";
import { pick, timed } from "./measuring.mjs";
import { encodeGraph, graphs, indexIn } from "./onnx-graphs.mjs";
import { serve } from "./protocol.mjs";

const isWeb = process.argv[2] === "web";
const library = isWeb ? "onnxruntime-web" : "onnxruntime-node";
const require = createRequire(new URL("../peers/package.json", import.meta.url));
const ort = require(library);
const { onnx } = require("onnx-proto");

const tensors = (inputs) =>
  Object.fromEntries(Object.entries(inputs).map(([name, { data, dims }]) => [name, new ort.Tensor("float32", data, dims)]));

// Measured at 4096 and 8192 tokens: the most memory of a process, in score maps of all heads.
const mapsInMemory = { plain: 6.5, "plain-heads": 1.2, "attention-23": 1.4, "multi-head-attention": 2.4 };

/**
 * A machine without the memory would end the process, or others. WebAssembly has an end of its own
 * and says so.
 */
function needMaps({ q, k }, count) {
  const needed = (count * q[0] * q[1] * q[2] * k[2] * 4) / 2;
  const gib = (bytes) => `${Math.round(bytes / 2 ** 30)} GiB`;
  if (needed > 0.8 * totalmem()) throw new Error(`its score maps need about ${gib(needed)}, this machine has ${gib(totalmem())}`);
}

// ---- the subject ----
// Tried and rejected: GroupQueryAttention (always causal, four calls on halves of v: 38 GFLOP/s at
// 512 tokens where a plain graph has 71; in WebAssembly 1), and results preallocated by the caller
// (no faster in Node, left unfilled by onnxruntime-web).

let threadsOfWeb;
let loaded;

const run = async () => (loaded.result = (await loaded.session.run(loaded.inputs)).y);

serve({
  info: () => ({
    name: library,
    version: ort.env.versions[isWeb ? "web" : "node"],
    runtime: `Node ${process.versions.node}`,
    notes: ["the two maps' q and k heads are given apart; making these inputs is not timed"],
  }),
  variants: ({ case: test }) => ({ variants: Object.keys(formsOf(graphs, test)) }),
  async load({ case: test, variant, threads = 1 }) {
    await loaded?.session.release();
    loaded = undefined;
    if (isWeb) {
      if (threadsOfWeb !== undefined && threadsOfWeb !== threads)
        throw new Error("onnxruntime-web takes its number of threads once in a process");
      ort.env.wasm.numThreads = threadsOfWeb = threads;
    }
    if (!isWeb && test.op === "attention") needMaps(test, mapsInMemory[variant]);
    const graph = formsOf(graphs, test)[variant];
    const bytes = encodeGraph(onnx, graph, test);
    const options = { graphOptimizationLevel: "all", executionMode: "sequential" };
    if (isWeb) options.executionProviders = ["wasm"];
    else Object.assign(options, { executionProviders: ["cpu"], intraOpNumThreads: threads, interOpNumThreads: 1 });
    loaded = { test, graph, inputs: tensors(graph.inputs(test)), session: await ort.InferenceSession.create(bytes, options) };
    // Twice: the arena still grows in the second.
    await run();
    await run();
  },
  run: async () => ({ seconds: await timed(run) }),
  answer({ at }) {
    const { test, graph, result } = loaded;
    return {
      values: pick(
        result.data,
        at.map((i) => indexIn(graph, test, i)),
      ),
    };
  },
});
