// The figures to reach, each from the medians of one group of plan.mjs. Pure: measurements in, rows
// of a table out.
import { bytes, cases, configOf, stepFlops } from "./cases.mjs";
import { TRAINING } from "./plan.mjs";
import { exponent } from "./statistics.mjs";

/** A figure that cannot be had in this run: one sentence why. */
export class NotMeasurable extends Error {}

const LENGTHS = [512, 1024, 2048, 4096, 8192, 16384];

/** A group's measurements by name. */
export class Measured {
  #byName;
  #all;

  constructor(measurements) {
    this.#all = measurements;
    this.#byName = new Map(measurements.map((one) => [one.as, one]));
  }

  #find(as) {
    const one = this.#byName.get(as);
    if (!one) throw new NotMeasurable(`"${as}" was not measured`);
    if (one.error) throw new NotMeasurable(`${one.subject}: ${one.error}`);
    return one;
  }

  /** FLOPs or bytes per second. */
  rate = (as) => this.#find(as).rate;
  seconds = (as) => this.#find(as).seconds.median;
  /** The rate of the limit that an entrant's is a share of, where it was measured. */
  limitOf = (as) => this.#all.find((one) => one.as === this.#find(as).of && !one.error)?.rate;
  bytes = (as) => this.#find(as).bytes;

  /** The fastest variant of the peers, or of one of them, or on so many threads. */
  best(kind, { subject, threads } = {}) {
    const meant = (one) => one.peer === kind && (!subject || one.subject === subject) && (!threads || one.threads === threads);
    const peers = this.#all.filter(meant);
    const there = peers.filter(({ error }) => !error).sort((a, b) => b.rate - a.rate);
    if (there.length === 0) throw new NotMeasurable(peers[0]?.error ?? `no ${subject ?? `peer (${kind})`} was measured`);
    return there[0];
  }
}

/** A share of a limit; of several of the largest. */
const share =
  (a, ...limits) =>
  (m) => ({ value: m.rate(a) / Math.max(...limits.map(m.rate)) });

/**
 * Times as fast as the best peer, which the row names, with how many times as fast who works at the
 * limit would be.
 */
const against = (as, kind, subject) => (m) => {
  const best = m.best(kind, { subject });
  const [peer, limit] = [`${best.subject} ${best.variant}`, m.limitOf(as)];
  return { value: m.rate(as) / best.rate, note: limit ? `${peer}; at the limit ${(limit / best.rate).toFixed(1)}` : peer };
};

/**
 * Times as fast as the best peer, whose model may have other weights: by a token's time, or a
 * prompt's. Without `threads` the peer's best of all that it was measured on counts.
 */
const sooner = (as, kind, threads) => (m) => {
  const best = m.best(kind, { threads });
  return { value: best.seconds.median / m.seconds(as), note: best.as };
};

const slower = (a, b) => (m) => ({ value: m.seconds(a) / m.seconds(b) });

/** Two threads ÷ one, over the same of the limit. */
const scaling = (prefix, one, two) => (m) => ({
  value: m.seconds(`${prefix}, 1`) / m.seconds(`${prefix}, 2`) / (m.rate(two) / m.rate(one)),
});

/** KB that a WebAssembly module is to have; what it may have at most says sizes.mjs. */
function moduleOf(name) {
  if (/models|training/.test(name)) return 320;
  return name.includes("threads") ? 170 : 150;
}

/** Those of SmolLM2 beside llama.cpp, on one thread against one or on two against its best. */
function smollm2(least) {
  const kinds = [
    ["Q1", "decode", "decode", 2],
    ["Q2", "prompt", "prompt of 512 tokens", 3],
  ];
  const pages = [
    ["decode", 5, 3],
    ["prompt", 6, 3],
  ];
  return [
    ...kinds.flatMap(([id, group, what, bound]) => [
      least(id, `SmolLM2, ${group}`, `SmolLM2, Q4_1: ${what} ÷ llama.cpp, one thread`, bound, sooner("native, 1", "gguf", 1)),
      least(id, `SmolLM2, ${group}`, `SmolLM2, Q4_1: ${what} ÷ llama.cpp's best, two threads`, bound, sooner("native, 2", "gguf")),
    ]),
    least("Q1", "SmolLM2, decode", "SmolLM2, Q4_1: decode ÷ read bandwidth, one thread", 0.8, share("native, 1", "read, 1")),
    least("Q3", "differential SmolLM2, decode", "differential SmolLM2: decode ÷ llama.cpp's plain", 1.7, sooner("native", "gguf", 1)),
    least("Q3", "differential SmolLM2, prompt", "differential SmolLM2: prompt ÷ llama.cpp's plain", 2.2, sooner("native", "gguf", 1)),
    least("Q4", "SmolLM2, decode", "SmolLM2, decode: two threads ÷ one ÷ reading's", 0.9, scaling("native", "read, 1", "read, 2")),
    least("Q4", "SmolLM2, prompt", "SmolLM2, prompt: two threads ÷ one ÷ multiply-adds'", 0.9, scaling("native", "fma, 1", "fma, 2")),
    ...pages.flatMap(([what, relaxed, simd128]) => {
      const group = `SmolLM2 in a page, ${what}`;
      return [
        least("Q5", group, `SmolLM2 in Chromium, ${what}: relaxed SIMD ÷ wllama`, relaxed, sooner("relaxed", "gguf page", 1)),
        least("Q5", group, `SmolLM2 in Chromium, ${what}: simd128 ÷ wllama`, simd128, sooner("simd128", "gguf page", 1)),
        least("Q5", group, `SmolLM2 in Chromium, ${what}: two threads ÷ one`, 1.6, slower("relaxed", "two threads")),
      ];
    }),
  ];
}

/** Steps of training beside PyTorch's, on as many threads. */
function training(least) {
  const adapter = "SmolLM2-135M, adapters over q8: a step of 4 × 512 tokens ÷ PEFT over its float32";
  const rows = {
    "train-8x256": ["7M model: a step of 8 × 256 tokens ÷ transformers", 1.4],
    "train-1x2048": ["7M model: a step of 1 × 2048 tokens ÷ transformers", 1.7],
    "train-smollm2-4x512": [adapter, 1.2],
  };
  return TRAINING.flatMap(({ figure, test, id, threads: counts }) => {
    const [what, bound] = rows[test];
    return counts.map((threads) => {
      const name = `${what}, ${threads === 1 ? "one thread" : "two threads"}`;
      return least(figure, id, name, bound, sooner(`native, ${threads}`, "model", threads));
    });
  });
}

/** FLOPs that a step of training counts, per second, ÷ what the engine can do at most. */
const counted = (as, test, peak) => (m) => ({
  value: stepFlops(configOf(cases.get(test)), cases.get(test)) / m.seconds(as) / m.rate(peak),
});

/** Gradients: of operators and a layer alone, of a step in WebAssembly; what a step holds. */
function gradients({ least, most }, peak) {
  const sizes = [
    ["64", "64×64", 0.6],
    ["512", "512×512", 0.5],
  ];
  const kinds = [
    ["", ""],
    ["-silu", " with SiLU"],
    ["-nhwc", ", NHWC"],
    ["-nhwc-silu", ", NHWC, with SiLU"],
  ];
  const norms = [
    ...sizes.flatMap(([size, what, bound]) =>
      kinds.map(([kind, how]) => [`group-norm-${size}-backward${kind}`, `group_norm ${what}${how}`, bound]),
    ),
    ["rms-norm-128-backward", "rms_norm 65536×128", 0.6],
  ];
  const lengths = [
    ["512", 1.8, 0.5],
    ["2048", 2.2, 0.6],
  ];
  const memory = [
    ["train-8x256", "7M model: a step of 8 × 256 tokens", 0.45],
    ["train-smollm2-4x512-mlps", "SmolLM2-135M, adapters over q8: 4 × 512 tokens, gate and up computed anew", 1.2],
    ["train-smollm2-4x512-layers", "SmolLM2-135M, adapters over q8: 4 × 512 tokens, layers computed anew", 0.6],
  ];
  const isas = [
    ["relaxed-simd", "relaxed SIMD"],
    ["simd128", "simd128"],
  ];
  return [
    ...lengths.flatMap(([length, times, part]) => [
      least("R3", `backward, ${length}`, `attention backward, L ${length} ÷ PyTorch`, times, against("package", "native", "pytorch-cpu")),
      least("R3", `backward, ${length}`, `attention backward, L ${length} ÷ FMA peak`, part, share("crate", peak)),
    ]),
    ...norms.flatMap(([group, what, bound]) => [
      least("R4", group, `${what}, backward ÷ memcpy`, bound, share("crate", "copy")),
      least("R4", group, `${what}, backward ÷ PyTorch`, 2, against("package", "native", "pytorch-cpu")),
    ]),
    ...isas.map(([isa, name]) =>
      least(
        "R5",
        "training in WebAssembly",
        `7M model, ${name}: a step of 8 × 256 tokens ÷ the engine's FMA peak`,
        0.45,
        counted(isa, "train-8x256", `fma ${isa}`),
      ),
    ),
    least(
      "R5",
      "layer in WebAssembly",
      "relaxed SIMD, a layer of attention with its gradients ÷ jax-js",
      10,
      against("relaxed", "wasm", "jax-js"),
      1,
    ),
    ...memory.map(([test, what, bound]) =>
      most("R6", "training's memory", `${what}: peak memory`, bound, (m) => ({ value: m.bytes(test) / 1e9 }), 2, "GB"),
    ),
    least("R7", "AdamW", "AdamW, 7M parameters ÷ memcpy", 0.7, share("crate", "copy")),
  ];
}

/**
 * Bytes of a core's second cache up to which a machine is an ordinary one, with targets of its own:
 * most servers and laptops are.
 */
const ORDINARY_L2 = 512 << 10;

/**
 * Every figure: the group it comes from, `of(measured)` its value with a note, and its bound,
 * `least` or `most`: one for all machines, or one for large and one for ordinary cores, whose
 * second cache (`l2`, bytes, unknown counts as large) is small. `digits` are those after the point.
 */
export function figures({ best, sizes, l2 }) {
  const isOrdinary = l2 !== undefined && l2 <= ORDINARY_L2;
  const chosen = (bound) => (Array.isArray(bound) ? bound[isOrdinary ? 1 : 0] : bound);
  const least = (id, group, what, bound, of, digits = 2, unit = "") => ({ id, group, what, least: chosen(bound), of, digits, unit });
  const most = (id, group, what, bound, of, digits = 2, unit = "") => ({ id, group, what, most: chosen(bound), of, digits, unit });
  const peak = `fma ${best}`;
  const p13b = (what, group, bound, as, bare) => most("P13b", group, `one call, L 2048: ${what}`, bound, slower(as, bare), 3);
  const megabytes = (as) => (m) => ({ value: m.bytes(as) / 1e6 });
  const microseconds = (as) => (m) => ({ value: m.seconds(as) * 1e6 });
  const beyondKernel = (as) => (m) => ({ value: (m.seconds(as) - m.seconds("crate")) * 1e6 });

  const realTime = (as) => (m) => ({ value: m.rate(as) });
  const tokens = (as) => (m) => ({ value: 1 / m.seconds(as) });
  const milliseconds = (as) => (m) => ({ value: m.seconds(as) * 1000 });
  /** Percent of a model's weights that memory has beyond them. */
  const beyond = (as, test) => (m) => ({ value: 100 * (m.bytes(as) / bytes(cases.get(test)) - 1) });

  return [
    least("P1", "long", "native, L 4096 ÷ FMA peak, AVX-512", 0.88, share("causal avx512", "fma avx512")),
    least("P1b", "long", "native, L 4096 ÷ FMA peak, AVX2", [0.8, 0.78], share("causal avx2", "fma avx2")),
    least("P2", "beside peers", "native, L 2048 ÷ best peer", [3.25, 2.65], against("package", "native")),
    least("P3", "short", "native, L 512 ÷ best peer", [3.1, 2.4], against("package", "native")),
    least("P3", "short", "native, L 512 ÷ FMA peak", [0.78, 0.74], share("crate", peak)),
    most("P3", "short", "native, L 512: the package's call ÷ the bare kernel's", 1.03, slower("package", "crate")),
    least("P3", "narrow", "native, d 32, L 2048 ÷ best peer", 3.2, against("package", "native")),
    least("P3", "narrow", "native, d 32, L 2048 ÷ FMA peak", [0.75, 0.72], share("crate", peak)),
    least("P3", "wide", "native, d 128, L 2048 ÷ best peer", [3.0, 2.6], against("package", "native")),
    ...["shared", "grouped", "halves", "gqa"].map((name) =>
      least("P3b", "long", `native, L 4096, ${name} ÷ interleaved`, 0.9, share(name, `causal ${best}`)),
    ),
    ...["1024", "2048"].map((length) =>
      least("P4", "threads", `native, L ${length}: two threads ÷ one ÷ peak's`, 0.95, scaling(length, peak, `${peak}, two threads`)),
    ),
    ...["1024", "2048"].map((length) =>
      least("P4", "page", `Chromium, L ${length}: two threads ÷ one ÷ peak's`, 0.9, scaling(length, "fma, 1", "fma, 2")),
    ),
    least("P5", "WebAssembly", "relaxed SIMD, L 2048 ÷ the engine's FMA peak", [0.77, 0.75], share("relaxed", "fma relaxed-simd")),
    ...["Firefox", "Bun"].map((engine) =>
      least(
        "P5",
        engine,
        `relaxed SIMD in ${engine}, L 2048 ÷ the engine's FMA peak`,
        [0.77, 0.75],
        share("relaxed", "fma relaxed-simd", "fma simd128"),
      ),
    ),
    least("P5", "WebAssembly", "relaxed SIMD, L 2048 ÷ onnxruntime-web", [5.2, 4.4], against("relaxed", "wasm", "onnxruntime-web")),
    least("P6", "WebAssembly", "simd128, L 2048 ÷ onnxruntime-web", [4.0, 3.3], against("simd128", "wasm", "onnxruntime-web")),
    ...[4096, 32768].flatMap((length) => [
      least("P7", `decode ${length}`, `native decode, Lk ${length} ÷ read bandwidth`, 0.85, share("crate", "read")),
      least("P7", `decode ${length}`, `WebAssembly decode, Lk ${length} ÷ its read bandwidth`, 0.6, share("wasm", "read in WebAssembly")),
    ]),
    most("Q7", "decode by type", "decode, d 128, Lk 8192: int8 cache ÷ bfloat16", 0.65, slower("int8", "bfloat16")),
    least("P8", "group-norm-64", "group_norm 64×64, native ÷ memcpy", 0.75, share("crate", "copy")),
    least("P8", "group-norm-64", "group_norm 64×64, native ÷ PyTorch", [2.0, 1.6], against("package", "native", "pytorch-cpu")),
    least("P8b", "group-norm-64", "group_norm 64×64, WebAssembly tensors ÷ copy loop", 0.7, share("wasm", "copy in WebAssembly")),
    least(
      "P8b",
      "group-norm-64",
      "group_norm 64×64, WebAssembly with out ÷ onnxruntime-web",
      5,
      against("wasm, out", "wasm", "onnxruntime-web"),
    ),
    least("P9", "group-norm-512", "group_norm 512×512, native ÷ memcpy", 0.95, share("crate", "copy")),
    least("P9", "group-norm-512", "group_norm 512×512, native ÷ PyTorch", [5.5, 3], against("package", "native", "pytorch-cpu")),
    least("P9", "rms-norm-128", "rms_norm 65536×128, native ÷ memcpy", 0.9, share("crate", "copy")),
    least("P17", "block mask", "L 16384: no mask ÷ one block in eight", 5, slower("full", "masked"), 1),
    least("P11", "growth", "L 16384: full causal ÷ window 512", 12, slower("causal-16384", "window"), 1),
    most("P12", "memory", "scratch, L 16384, native, two threads", 64, megabytes("causal-16384"), 1, "MB"),
    most("P12", "memory", "growth of memory, L 16384, WebAssembly, one thread", 64, megabytes("wasm"), 1, "MB"),
    ...(isOrdinary
      ? []
      : ["native", "simd128", "relaxed"].map((as) => most("P13", "smallest", `smallest call, sync, ${as}`, 5, microseconds(as), 1, "µs"))),
    ...[
      ["native", 3],
      ["simd128", 6],
      ["relaxed", 6],
    ].map(([as, bound]) => most("P13", "smallest", `smallest call, sync, ${as}: beyond the bare kernel`, bound, beyondKernel(as), 1, "µs")),
    most("P13", "smallest", "smallest call, the bare kernel", 4, microseconds("crate"), 1, "µs"),
    p13b("native, async with copies ÷ bare kernel", "door", [1.06, 1.05], "copies", "crate"),
    p13b("native, async with transfer ÷ bare kernel", "door", 1.02, "transfer", "crate"),
    p13b("native, async on createTensor ÷ bare kernel", "door", 1.02, "tensors", "crate"),
    p13b("WebAssembly in Node, async ÷ sync on createTensor", "WebAssembly", 1.06, "async", "relaxed"),
    p13b("page, through the worker ÷ sync on createTensor", "page", 1.15, "worker", "kernel"),
    ...Object.entries(sizes.wasm).map(([name, size]) =>
      most("P15", undefined, `${name}, gzip`, moduleOf(name), () => ({ value: size / 1000 }), 1, "KB"),
    ),
    most("P15", undefined, "entry with its chunks, gzip", 12, () => ({ value: sizes.entry / 1000 }), 1, "KB"),
    most("P15", undefined, "worker.js, gzip", 9, () => ({ value: sizes.worker / 1000 }), 1, "KB"),
    most(
      "P16",
      "growth",
      "exponent of time, L 512…16384",
      2.03,
      (m) => ({
        value: exponent(LENGTHS.map((length) => [length, m.seconds(`causal-${length}`)])),
      }),
      3,
    ),
    least("M1", "model", "7M model, BF16: native decode ÷ read bandwidth", 0.75, share("native", "read")),
    least("M1", "model", "7M model, BF16: WebAssembly decode ÷ its read bandwidth", 0.5, share("wasm", "read in WebAssembly")),
    least("M1", "model", "7M model, BF16: native decode ÷ transformers", 15, against("native", "model"), 1),
    ...[
      ["f32", "float32", 28],
      ["bf16", "bfloat16", 55],
    ].flatMap(([dtype, name, perSecond]) => [
      least("M2", `larger model, ${dtype}`, `0.22B model, ${name}: decode, tokens/s`, perSecond, tokens("native"), 1),
      least("M2", `larger model, ${dtype}`, `0.22B model, ${name}: decode ÷ read bandwidth`, 0.8, share("native", "read")),
    ]),
    least("M3", "prompt", "7M model: prompt of 512 tokens ÷ transformers", 1.3, against("native", "model")),
    least("M3", "larger model's prompt", "0.22B model: prompt of 512 tokens ÷ transformers", [1.3, 1.25], against("native", "model")),
    ...training(least),
    ...gradients({ least, most }, peak),
    ...smollm2(least),
    least("Q6", "Motif", "Motif-2.6B's shapes, q4, two threads: decode ÷ read bandwidth", 0.8, share("native, 2", "read, 2")),
    most("Q6", "Motif's memory", "Motif-2.6B's shapes, q4: memory beyond its weights", 10, beyond("native", "motif-load"), 1, "%"),
    ...[
      ["generate", "without", 250],
      ["text", "with", 400],
    ].map(([as, how, bound]) =>
      most("Q9", "SmolLM2, first token", `SmolLM2: load to first token, ${how} its tokenizer`, bound, milliseconds(as), 0, "ms"),
    ),
    least("Q11", "model", "7M model, BF16: native decode ÷ read bandwidth", 0.7, share("native", "read")),
    least("Q11", "model", "7M model, BF16: native decode ÷ transformers", 15, against("native", "model"), 1),
    most("M4", "model in a page", "7M model, Chromium: first token after the start of the page", 500, milliseconds("page"), 0, "ms"),
    ...[1, 2].map((threads) =>
      least(
        "M6",
        "audio codec",
        `SAME-S, F32: audio decoded per second, ${threads === 1 ? "one thread" : "two threads"}`,
        threads,
        realTime(`native, ${threads}`),
        1,
        "s",
      ),
    ),
    most("M5", "model's memory", "0.22B model, BF16: memory beyond its weights", 15, beyond("native", "random-load-bf16"), 1, "%"),
    most("P16", "memory", "exponent of scratch, L 2048…16384", 1.05, (m) => ({
      value: exponent(LENGTHS.slice(2).map((length) => [length, m.bytes(`causal-${length}`)])),
    })),
  ];
}

/** Rows of the table, for the figures whose group was measured: groups is name → measurements. */
export function evaluate(figures, groups) {
  return figures
    .filter(({ group }) => group === undefined || groups.has(group))
    .map(({ group, of, ...figure }) => {
      try {
        const { value, note } = of(new Measured(groups.get(group) ?? []));
        if (!Number.isFinite(value)) throw new NotMeasurable(`the value is ${value}`);
        const isReached = figure.least === undefined ? value <= figure.most : value >= figure.least;
        return { ...figure, value, note, verdict: isReached ? "reached" : "short" };
      } catch (error) {
        if (!(error instanceof NotMeasurable)) throw error;
        return { ...figure, verdict: "not measurable", note: error.message };
      }
    });
}
