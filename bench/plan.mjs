// What is measured beside what. A group's entrants run in turn, so a figure divides only by what
// stands in its own group. Starts nothing; figures.mjs says what is made of it.
import { bytes, cases } from "./cases.mjs";

/**
 * Steps of training beside PyTorch's, on one thread and on two: together, but for a model of which
 * PyTorch keeps 8 to 11 GB in each process.
 */
export const TRAINING = [
  { figure: "R1", test: "train-8x256", id: "training, 8x256", threads: [1, 2] },
  { figure: "R2", test: "train-1x2048", id: "training, 1x2048", threads: [1, 2] },
  { figure: "R8", test: "train-smollm2-4x512", id: "training, smollm2-4x512, one thread", threads: [1] },
  { figure: "R8", test: "train-smollm2-4x512", id: "training, smollm2-4x512, two threads", threads: [2] },
];

/** The cases of gradients of norms. */
const NORMS_BACKWARD = [...cases.values()].filter(({ op }) => /norm_backward$/.test(op)).map(({ id }) => id);

/**
 * An entrant: `as` is its name in its group; `kind` is "run", "limit" or "scratch"; `of` names the
 * limit that its rate is a share of; `isAwake` has each run follow others at once, which do not count.
 * `peers` stands for every variant of every peer of that kind.
 *
 * @param best the fastest instruction set of the crate here
 * @param isFull more subjects, variants and cases
 */
export function plan({ best, isFull }) {
  const full = (...entrants) => (isFull ? entrants : []);

  const run = (as, subject, test, variant, isa, more = {}) => ({ as, kind: "run", subject, case: test, variant, isa, threads: 1, ...more });
  const crate = (as, test, isa = best, threads = 1) =>
    run(as, "crate", test, "bare", isa, { threads, of: threads === 1 ? `fma ${isa}` : `fma ${isa}, two threads` });
  const door = (as, test, variant, more) => run(as, "package", test, variant, best, { of: `fma ${best}`, ...more });
  const simd128 = (as, test, variant, more) => run(as, "wasm-oldest", test, variant, "simd128", { of: "fma simd128", ...more });
  const relaxed = (as, test, variant, more) => run(as, "wasm-newer", test, variant, "relaxed-simd", { of: "fma relaxed-simd", ...more });
  const peers = (kind, test, only, of) => ({ peers: kind, case: test, only, of });
  const awake = (entrant) => ({ ...entrant, isAwake: true });
  const paused = (entrant) => ({ ...entrant, as: `${entrant.as}, after a pause`, note: "after a pause" });

  const limit = (as, subject, what, isa, more = {}) => ({ as, kind: "limit", subject, what, isa, threads: 1, ...more });
  const fma = (isa = best, threads = 1) =>
    limit(threads === 1 ? `fma ${isa}` : `fma ${isa}, two threads`, "crate", "fma", isa, { threads });
  const scratch = (as, subject, test, isa, threads = 1) => ({ as, kind: "scratch", subject, case: test, isa, threads });
  const how = (test) => (test.includes("prefill") ? "forward" : "generate");
  const model = (as, test, more) => run(as, "model", test, how(test), best, more);
  const modelPage = (as, test, isa, threads = 1) => run(as, "models-page", test, how(test), isa, { threads });
  const isolated = (as, length, threads) =>
    run(as, "page-isolated", `causal-${length}`, "async", "relaxed-simd+threads", { threads, of: `fma, ${threads}` });
  const bandwidth = (as, subject, what, test, more) => limit(as, subject, what, undefined, { bytes: bytes(cases.get(test)), ...more });

  /** Ours and the native peers on one case. */
  const beside = (test) => [
    crate("crate", test),
    fma(),
    door("package", test, "sync-tensors"),
    ...full(door("package, plain arrays", test, "sync")),
    peers("native", test, undefined, `fma ${best}`),
  ];
  const lengths = [512, 1024, 2048, 4096, 8192, 16384].map((length) => `causal-${length}`);
  const isas = [...new Set(["avx512", "avx2", best])];

  const groups = [
    {
      id: "long",
      figures: ["P1", "P1b", "P3b"],
      entrants: [
        ...isas.flatMap((isa) => [crate(`causal ${isa}`, "causal-4096", isa), fma(isa)]),
        ...["shared", "grouped", "halves", "gqa"].map((name) => crate(name, `${name}-4096`)),
      ],
    },
    { id: "beside peers", figures: ["P2"], entrants: beside("causal-2048") },
    { id: "short", figures: ["P3"], entrants: beside("causal-512") },
    { id: "narrow", figures: ["P3"], entrants: beside("causal-2048-d32") },
    { id: "wide", figures: ["P3"], entrants: beside("causal-2048-d128") },
    ...["group-norm-64", "group-norm-512", "rms-norm-128"].map((test) => ({
      id: test,
      figures: test === "group-norm-64" ? ["P8", "P8b"] : ["P9"],
      entrants: [
        run("crate", "crate", test, "bare", best, { of: "copy" }),
        bandwidth("copy", "crate", "copy", test),
        door("package", test, "sync-tensors", { of: "copy" }),
        ...(isFull || test !== "rms-norm-128" ? [peers("native", test, undefined, "copy")] : []),
        ...(isFull || test === "group-norm-64"
          ? [
              relaxed("wasm", test, "sync-tensors", { of: "copy in WebAssembly" }),
              relaxed("wasm, out", test, "sync-out", { of: "copy in WebAssembly" }),
              bandwidth("copy in WebAssembly", "wasm-newer", "copy", test),
              peers("wasm", test, undefined, "copy in WebAssembly"),
            ]
          : []),
      ],
    })),
    ...["512", "2048"].map((length) => ({ id: `backward, ${length}`, figures: ["R3"], entrants: beside(`backward-${length}`) })),
    ...NORMS_BACKWARD.map((test) => ({
      id: test,
      figures: ["R4"],
      entrants: [
        run("crate", "crate", test, "bare", best, { of: "copy" }),
        bandwidth("copy", "crate", "copy", test),
        door("package", test, "sync-tensors", { of: "copy" }),
        peers("native", test, undefined, "copy"),
      ],
    })),
    {
      id: "AdamW",
      figures: ["R7"],
      entrants: [run("crate", "crate", "adamw-7m", "bare", best, { of: "copy" }), bandwidth("copy", "crate", "copy", "adamw-7m")],
    },
    {
      id: "door",
      figures: ["P13b"],
      entrants: [
        crate("crate", "causal-2048"),
        door("copies", "causal-2048", "async"),
        door("transfer", "causal-2048", "async-transfer"),
        door("tensors", "causal-2048", "async-tensors"),
      ],
    },
    {
      id: "threads",
      figures: ["P4"],
      entrants: [
        ...[1, 2].flatMap((threads) =>
          [
            crate(`1024, ${threads}`, "causal-1024", best, threads),
            crate(`2048, ${threads}`, "causal-2048", best, threads),
            fma(best, threads),
          ].map(awake),
        ),
        ...["1024", "2048"].map((length) => paused(crate(`${length}, 2`, `causal-${length}`, best, 2))),
        ...full(...["group-norm-64", "group-norm-512"].map((test) => run(`${test}, 2`, "crate", test, "bare", best, { threads: 2 })), {
          ...peers("native", "causal-2048"),
          threads: 2,
        }),
      ],
    },
    {
      id: "WebAssembly",
      figures: ["P5", "P6", "P13b"],
      entrants: [
        relaxed("relaxed", "causal-2048", "sync-tensors"),
        limit("fma relaxed-simd", "wasm-newer", "fma", "relaxed-simd"),
        simd128("simd128", "causal-2048", "sync-tensors"),
        limit("fma simd128", "wasm-oldest", "fma", "simd128"),
        relaxed("async", "causal-2048", "async"),
        ...full(
          relaxed("async, tensors", "causal-2048", "async-tensors"),
          relaxed("async, transfer", "causal-2048", "async-transfer"),
          relaxed("plain arrays", "causal-2048", "sync"),
          run("two threads", "wasm-newer", "causal-2048", "async", "relaxed-simd+threads", { threads: 2 }),
        ),
        peers("wasm", "causal-2048", isFull ? undefined : ["onnxruntime-web"], "fma relaxed-simd"),
      ],
    },
    {
      id: "WebAssembly, short",
      figures: [],
      entrants: [
        relaxed("relaxed", "causal-512", "sync-tensors"),
        limit("fma relaxed-simd", "wasm-newer", "fma", "relaxed-simd"),
        simd128("simd128", "causal-512", "sync-tensors"),
        limit("fma simd128", "wasm-oldest", "fma", "simd128"),
        peers("wasm", "causal-512", undefined, "fma relaxed-simd"),
        ...full(relaxed("relaxed, d 32", "causal-2048-d32", "sync-tensors"), simd128("simd128, d 32", "causal-2048-d32", "sync-tensors")),
      ],
    },
    // Other engines than V8: SpiderMonkey and JavaScriptCore. (The first has no more than two thirds
    // of its own peak in the loop of relaxed multiply-adds: the larger of both loops is the limit.
    // The second rounds them twice on x86-64, so both loops are as fast there.)
    ...[
      ["Firefox", "page-firefox"],
      ["Bun", "wasm-bun"],
    ].map(([id, subject]) => ({
      id,
      figures: ["P5"],
      entrants: [
        run("relaxed", subject, "causal-2048", "sync-tensors", "relaxed-simd", { of: "fma simd128" }),
        limit("fma relaxed-simd", subject, "fma", "relaxed-simd"),
        run("simd128", subject, "causal-2048", "sync-tensors", "simd128", { of: "fma simd128" }),
        limit("fma simd128", subject, "fma", "simd128"),
        relaxed("V8", "causal-2048", "sync-tensors", { of: undefined }),
      ],
    })),
    {
      id: "page",
      figures: ["P4", "P13b"],
      entrants: [
        run("kernel", "page", "causal-2048", "sync-tensors", "relaxed-simd"),
        run("worker", "page", "causal-2048", "async", "relaxed-simd"),
        ...[1, 2].flatMap((threads) =>
          [
            ...["1024", "2048"].map((length) => isolated(`${length}, ${threads}`, length, threads)),
            limit(`fma, ${threads}`, "page-isolated", "fma", "relaxed-simd", { threads }),
          ].map(awake),
        ),
        ...["1024", "2048"].map((length) => paused(isolated(`${length}, 2`, length, 2))),
        ...full(
          run("kernel simd128", "page", "causal-2048", "sync-tensors", "simd128"),
          run("kernel, isolated", "page-isolated", "causal-2048", "sync-tensors", "relaxed-simd"),
        ),
      ],
    },
    ...[4096, 32768].map((length) => ({
      id: `decode ${length}`,
      figures: ["P7"],
      entrants: [
        run("crate", "crate", `decode-${length}`, "bare", best, { of: "read" }),
        bandwidth("read", "crate", "read", `decode-${length}`),
        run("wasm", "wasm-newer", `decode-${length}`, "sync", "relaxed-simd", { of: "read in WebAssembly" }),
        bandwidth("read in WebAssembly", "wasm-newer", "read", `decode-${length}`),
        ...full(run("package", "package", `decode-${length}`, "sync", best, { of: "read" })),
      ],
    })),
    {
      id: "decode by type",
      figures: ["Q7"],
      entrants: [
        ...["float32", "bfloat16", "int8"].map((dtype) => run(dtype, "crate", `decode-8192-${dtype}`, "bare", best, { of: "read" })),
        bandwidth("read", "crate", "read", "decode-8192-bfloat16"),
      ],
    },
    {
      id: "smallest",
      figures: ["P13"],
      entrants: [
        door("native", "smallest", "sync"),
        simd128("simd128", "smallest", "sync"),
        relaxed("relaxed", "smallest", "sync"),
        crate("crate", "smallest"),
        ...full(door("native, async", "smallest", "async"), relaxed("relaxed, async", "smallest", "async")),
      ],
    },
    {
      id: "growth",
      figures: ["P11", "P16"],
      entrants: [fma(), ...lengths.map((test) => crate(test, test)), crate("window", "window-16384")],
    },
    {
      id: "block mask",
      figures: ["P17"],
      entrants: [crate("full", "full-16384"), crate("masked", "block-mask-16384")],
    },
    {
      id: "memory",
      figures: ["P12", "P16"],
      entrants: [
        // From where scratch no longer fits the least that is allocated.
        ...lengths.slice(2).map((test) => scratch(test, "crate", test, best, 2)),
        scratch("wasm", "wasm-newer", "causal-16384", "relaxed-simd"),
      ],
    },
    {
      id: "model",
      figures: ["M1", "Q11"],
      entrants: [
        model("native", "model-decode", { of: "read" }),
        bandwidth("read", "crate", "read", "model-decode"),
        run("wasm", "model-wasm", "model-decode", "generate", "relaxed-simd", { of: "read in WebAssembly" }),
        bandwidth("read in WebAssembly", "wasm-newer", "read", "model-decode"),
        peers("model", "model-decode", undefined, "read"),
        ...full(model("native, two threads", "model-decode", { threads: 2 })),
      ],
    },
    ...["f32", "bf16"].map((dtype) => ({
      id: `larger model, ${dtype}`,
      figures: ["M2"],
      entrants: [
        model("native", `random-decode-${dtype}`, { of: "read" }),
        bandwidth("read", "crate", "read", `random-decode-${dtype}`),
        ...full(peers("model", `random-decode-${dtype}`, undefined, "read")),
      ],
    })),
    { id: "prompt", figures: ["M3"], entrants: [model("native", "model-prefill"), peers("model", "model-prefill")] },
    {
      id: "larger model's prompt",
      figures: ["M3"],
      entrants: [model("native", "random-prefill-f32"), peers("model", "random-prefill-f32")],
    },
    { id: "model in a page", figures: ["M4"], entrants: [run("page", "model-page", "model-first", "generate", "relaxed-simd")] },
    { id: "model's memory", figures: ["M5"], entrants: [scratch("native", "model", "random-load-bf16", best)] },
    ...TRAINING.map(({ figure, test, id, threads: counts }) => ({
      id,
      figures: [figure],
      entrants: counts.flatMap((threads) => [
        run(`native, ${threads}`, "model", test, "step", best, { threads }),
        { ...peers("model", test), threads },
      ]),
    })),
    {
      id: "training in WebAssembly",
      figures: ["R5"],
      entrants: ["relaxed-simd", "simd128"].flatMap((isa) => [
        run(isa, "model-wasm", "train-8x256", "step", isa),
        limit(`fma ${isa}`, "wasm-newer", "fma", isa),
      ]),
    },
    {
      id: "layer in WebAssembly",
      figures: ["R5"],
      entrants: [
        relaxed("relaxed", "layer-512-backward", "sync"),
        limit("fma relaxed-simd", "wasm-newer", "fma", "relaxed-simd"),
        peers("wasm", "layer-512-backward", ["jax-js"], "fma relaxed-simd"),
      ],
    },
    {
      id: "training's memory",
      figures: ["R6"],
      entrants: ["train-8x256", "train-smollm2-4x512-mlps", "train-smollm2-4x512-layers"].map((test) => scratch(test, "model", test, best)),
    },
    {
      id: "audio codec",
      figures: ["M6"],
      entrants: [1, 2].map((threads) => run(`native, ${threads}`, "model", "codec-decode", "decode", best, { threads })),
    },
    {
      id: "SmolLM2, decode",
      figures: ["Q1", "Q4"],
      entrants: [
        ...[1, 2].flatMap((threads) => [
          model(`native, ${threads}`, "smollm2-decode", { threads, of: `read, ${threads}` }),
          bandwidth(`read, ${threads}`, "crate", "read", "smollm2-decode", { threads }),
          { ...peers("gguf", "smollm2-decode", undefined, `read, ${threads}`), threads },
        ]),
      ],
    },
    {
      id: "SmolLM2, prompt",
      figures: ["Q2", "Q4"],
      entrants: [
        ...[1, 2].flatMap((threads) => [
          model(`native, ${threads}`, "smollm2-prefill", { threads }),
          { ...fma(best, threads), as: `fma, ${threads}` },
          { ...peers("gguf", "smollm2-prefill"), threads },
        ]),
      ],
    },
    ...["decode", "prefill"].map((what) => ({
      id: `differential SmolLM2, ${what === "decode" ? what : "prompt"}`,
      figures: ["Q3"],
      entrants: [model("native", `smollm2-diff-${what}`), model("native, plain", `smollm2-${what}`), peers("gguf", `smollm2-${what}`)],
    })),
    ...["decode", "prefill"].map((what) => ({
      id: `SmolLM2 in a page, ${what === "decode" ? what : "prompt"}`,
      figures: ["Q5"],
      entrants: [
        modelPage("relaxed", `smollm2-${what}`, "relaxed-simd"),
        modelPage("simd128", `smollm2-${what}`, "simd128"),
        modelPage("two threads", `smollm2-${what}`, "relaxed-simd+threads", 2),
        peers("gguf page", `smollm2-${what}`),
        ...full({ ...peers("gguf page", `smollm2-${what}`), threads: 2 }),
      ],
    })),
    {
      id: "Motif",
      figures: ["Q6"],
      entrants: [
        model("native, 2", "motif-decode", { threads: 2, of: "read, 2" }),
        bandwidth("read, 2", "crate", "read", "motif-decode", { threads: 2 }),
        ...full(model("native, 1", "motif-decode", { of: "read, 1" }), bandwidth("read, 1", "crate", "read", "motif-decode")),
      ],
    },
    {
      id: "Motif's memory",
      figures: ["Q6"],
      entrants: [scratch("native", "model", "motif-load", best, 2)],
    },
    {
      id: "SmolLM2, first token",
      figures: ["Q9"],
      entrants: ["generate", "text"].map((variant) => run(variant, "model", "smollm2-first", variant, best, { threads: 2 })),
    },
    ...(isFull
      ? ["causal-2048", "causal-2048-d32", "causal-2048-d128"].map((test) => ({
          id: `every instruction set, ${test}`,
          figures: [],
          entrants: ["scalar", ...isas].flatMap((isa) => [crate(isa, test, isa), fma(isa)]),
        }))
      : []),
  ];
  return groups;
}

/** The groups that `only` names: a figure, a group or a case. */
export function chosen(groups, only) {
  return groups.filter(
    ({ id, figures, entrants }) => id === only || figures.includes(only) || entrants.some((entrant) => entrant.case === only),
  );
}
