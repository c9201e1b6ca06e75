// What pace.mjs compares: the figures that a change must not make slower, each with the share of the
// old speed that it must keep. Pure.

/** What a change may not cost. */
const KEPT = 0.98;
/** The same where threads or the shortest calls are measured, which scatter more. */
const ROUGHLY_KEPT = 0.95;

/**
 * `figure` of figures.mjs, `what` in words, `least` of the old speed, and what runs: `subject`,
 * `case`, `variant`, `isa`, `threads`.
 *
 * @param isas those of the crate here, slowest first
 */
export function comparisons({ isas }) {
  const best = isas.at(-1);
  const one = (figure, what, subject, test, variant, more = {}) => ({
    figure,
    what,
    subject,
    case: test,
    variant,
    isa: best,
    least: KEPT,
    ...more,
  });
  const crate = (figure, test, more) => one(figure, `crate, ${test}${more?.isa ? `, ${more.isa}` : ""}`, "crate", test, "bare", more);
  const native = (figure, test) => one(figure, `package, ${test}`, "package", test, "sync-tensors");
  const wasm = (figure, isa, test, variant = "sync-tensors", more = {}) =>
    one(figure, `${isa}, ${test}`, isa === "simd128" ? "wasm-oldest" : "wasm-newer", test, variant, { isa, ...more });
  const model = (figure, test) => one(figure, test, "model", test, test.includes("prefill") ? "forward" : "generate");
  const rough = { least: ROUGHLY_KEPT };
  return [
    ...(isas.includes("avx512") ? [crate("P1", "causal-4096", { isa: "avx512" })] : []),
    ...(isas.includes("avx2") ? [crate("P1b", "causal-4096", { isa: "avx2" })] : []),
    ...(isas.includes("avx2") || isas.includes("avx512") ? [] : [crate("P1", "causal-4096")]),
    crate("P2", "causal-2048"),
    native("P2", "causal-2048"),
    ...["causal-512", "causal-2048-d32", "causal-2048-d128"].flatMap((test) => [crate("P3", test), native("P3", test)]),
    ...["causal-1024", "causal-2048"].map((test) =>
      one("P4", `crate, two threads, ${test}`, "crate", test, "bare", { threads: 2, ...rough }),
    ),
    wasm("P5", "relaxed-simd", "causal-2048"),
    wasm("P6", "simd128", "causal-2048"),
    ...["decode-4096", "decode-32768"].flatMap((test) => [crate("P7", test), wasm("P7", "relaxed-simd", test, "sync")]),
    ...["group-norm-64", "group-norm-512", "rms-norm-128"].map((test) => crate(test.includes("64") ? "P8" : "P9", test)),
    one("P13", "native, smallest", "package", "smallest", "sync", rough),
    wasm("P13", "simd128", "smallest", "sync", rough),
    wasm("P13", "relaxed-simd", "smallest", "sync", rough),
    model("M1", "model-decode"),
    one("M1", "relaxed-simd, model-decode", "model-wasm", "model-decode", "generate", { isa: "relaxed-simd" }),
    ...["f32", "bf16"].map((dtype) => model("M2", `random-decode-${dtype}`)),
    model("M3", "model-prefill"),
    model("M3", "random-prefill-f32"),
  ];
}

/** What one call costs beyond its arithmetic: the smallest call, and an ordinary one beside it. */
export function costs({ isas }) {
  const best = isas.at(-1);
  const one = (what, subject, test, variant, isa = best) => ({
    figure: test === "smallest" ? "smallest call" : "L 2048",
    what,
    subject,
    case: test,
    variant,
    isa,
    least: test === "smallest" ? ROUGHLY_KEPT : KEPT,
  });
  return ["smallest", "causal-2048"].flatMap((test) => [
    one("crate", "crate", test, "bare"),
    one("native, sync", "package", test, "sync"),
    one("native, async", "package", test, "async"),
    one("simd128, sync", "wasm-oldest", test, "sync", "simd128"),
    one("relaxed SIMD, sync", "wasm-newer", test, "sync", "relaxed-simd"),
    one("relaxed SIMD, async", "wasm-newer", test, "async", "relaxed-simd"),
  ]);
}

/** "kept", or what is wrong with a row. */
export function verdict({ ratio, least, same }) {
  if (!same) return "other bits";
  return ratio >= least ? "kept" : `short of ${least}`;
}

const kilobytes = (bytes) => (bytes === undefined ? "" : `${(bytes / 1000).toFixed(1)} KB`);

/** Rows of names, bytes before and after, growth. */
export function sizeRows(before, after) {
  const all = ({ wasm, entry, worker }) => ({ ...wasm, "entry with its chunks": entry, "worker.js": worker });
  const [old, now] = [all(before), all(after)];
  return [...new Set([...Object.keys(old), ...Object.keys(now)])].map((name) => {
    const growth = old[name] && now[name] ? `${(100 * (now[name] / old[name] - 1)).toFixed(1)} %` : "";
    return [name, kilobytes(old[name]), kilobytes(now[name]), growth];
  });
}
