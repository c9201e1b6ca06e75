// Tests of what the benchmark computes without measuring: statistics, work of a case, figures,
// tables, records, the plan and the chart. Nothing here is timed.
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { csvParse } from "d3-dsv";
import { expect, test } from "vitest";
import { bytes, cases, checked, configOf, expectedOf, flops, stepFlops, work } from "./cases.mjs";
import { chart } from "./chart.mjs";
import { evaluate, figures } from "./figures.mjs";
import { placeOf, toBfloat16 } from "./model-files.mjs";
import { bytesOf, motifTensors } from "./motif-file.mjs";
import { comparisons, costs, sizeRows, verdict } from "./pace-plan.mjs";
import { picture } from "./picture.mjs";
import { chosen, plan } from "./plan.mjs";
import { csv, measurementRows, shownRecords } from "./record.mjs";
import { LIMITS, judged } from "./sizes.mjs";
import { exponent, median, relativeError } from "./statistics.mjs";
import { pictureFile, pictures, readRecord } from "./healing/pictures.mjs";
import { fill, hash, liveBlocks } from "./subjects/measuring.mjs";
import { measurementTable, table } from "./tables.mjs";

const sizes = { wasm: { "a.wasm": 140_000 }, entry: 13_000, worker: 7_000 };

test("median, exponent, error", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  expect(exponent([1, 2, 4, 8].map((x) => [x, 5 * x ** 2]))).toBeCloseTo(2, 12);
  expect(relativeError([1, -2.5], [1, -2])).toBe(0.25);
  expect(relativeError([NaN, 1], [1, 1])).toBeNaN();
});

test("useful work counts what the mask leaves", () => {
  const [length, heads, d, dv] = [512, 8, 64, 128];
  expect(flops(cases.get("causal-512"))).toBe(length * (length + 1) * heads * (2 * d + dv));
  // A grouped case's noise maps count once: 8 signal and 2 noise maps.
  expect(flops(cases.get("grouped-4096"))).toBe(4096 * 4097 * (10 * 64 + 8 * 128));
  const seen = (512 * 513) / 2 + (16384 - 512) * 512;
  expect(flops(cases.get("window-16384"))).toBe(2 * seen * (16 * 64 + 8 * 128));
  // 256 rows of blocks, 32 of 256 live in each.
  expect(flops(cases.get("block-mask-16384"))).toBe(flops(cases.get("full-16384")) / 8);
  expect(bytes(cases.get("decode-4096"))).toBe(4 * 4 * 4096 * (16 * 64 + 8 * 128));
  expect(bytes(cases.get("group-norm-64"))).toBe(2 * 4 * 4 * 256 * 64 * 64);
});

test("useful work of gradients: ten d per pair and head; a step's linear maps three times", () => {
  const [length, heads, d] = [2048, 8, 64];
  const pairs = (length * (length + 1)) / 2;
  expect(flops(cases.get("backward-2048"))).toBe(2 * pairs * heads * 10 * d);
  // x, the gradient of the result, and that of x.
  expect(bytes(cases.get("group-norm-64-backward-nhwc"))).toBe(3 * 4 * 4 * 256 * 64 * 64);
  expect(bytes(cases.get("adamw-7m"))).toBe(28 * 6952192);
  // Four maps of 512 by 512, and attention forward (4 d of a pair and head) and backward.
  expect(flops(cases.get("layer-512-backward"))).toBe(2 * (3 * 512 * 4 * 512 * 512 + ((512 * 513) / 2) * 4 * 14 * 64));
  const step = cases.get("train-8x256");
  // All weights but norms and vectors of λ are those of linear maps; the embedding is the head's.
  const linears = 6952192 - 17 * 256 - 8 * 4 * 32;
  const attention = ((256 * 257) / 2) * 8 * 4 * 14 * 32;
  expect(stepFlops(configOf(step), step)).toBe(2 * 8 * (3 * 256 * linears + attention));
});

test("checked elements are whole rows from the first to the last, of each result", () => {
  for (const one of cases.values()) {
    if (one.model) continue;
    const parts = checked(one);
    expect(parts.length > 1 || parts[0].of === undefined, one.id).toBe(true);
    if (one.out)
      expect(parts[0].at.at(-1)).toBe((one.x ?? (one.op.endsWith("_backward") ? one.q : one.out)).reduce((a, b) => a * b, 1) - 1);
    for (const { at } of parts) {
      expect(at[0]).toBe(0);
      expect(new Set(at).size).toBe(at.length);
      expect(at.length).toBe(Math.min(at.at(-1) + 1, 4096));
    }
  }
  expect(checked(cases.get("backward-512")).map(({ of }) => of)).toEqual(["dq", "dk", "dv"]);
  const channels = checked(cases.get("group-norm-512-backward-nhwc")).map(({ at }) => at.length);
  expect(channels).toEqual([4096, 128, 128]);
});

/**
 * Bytes of SmolLM2's weights: 30 layers of linears of 4 bits, `block` bytes per 32, tied embeddings
 * of 8 with a half, norms in float32, λ's projection in bfloat16. `queries` is how often its heads
 * have each query.
 */
function smollm2Bytes(queries, block) {
  const [layers, hidden, inner, heads, groups, width, vocabulary] = [30, 576, 1536, 9, 3, 64, 49152];
  const linears = hidden * (queries * heads * width + 2 * groups * width + heads * width + 3 * inner);
  const lambda = queries > 1 ? 2 * heads * hidden : 0;
  return layers * ((linears * block) / 32 + lambda) + (vocabulary * hidden * 34) / 32 + 4 * (2 * layers + 1) * hidden;
}

test("models' cases: what is read for a token, what is expected and where", () => {
  const models = [...cases.values()].filter(({ model }) => model);
  expect(models.length).toBeGreaterThan(5);
  const weights = {
    "examples/model": 2 * 6952192,
    "random-f32": 4 * 221549568,
    "random-bf16": 2 * 221549568,
    "random-codec": 4 * 54514713,
    smollm2: smollm2Bytes(1, 20),
    "smollm2-diff": smollm2Bytes(2, 18),
    "smollm2-q8": 4 * 134515008,
    motif: motifTensors().reduce((sum, tensor) => sum + bytesOf(tensor), 0),
  };
  for (const one of models) {
    expect(one.weightBytes, one.id).toBe(weights[one.model]);
    expect(expectedOf(one)).toHaveLength(checked(one)[0].at.length);
    if (one.greedy && one.tokens) expect(one.greedy.length).toBeLessThanOrEqual(one.tokens);
    expect(work(one).unit).toBe({ model_prefill: "token", model_train: "token", codec_decode: "second" }[one.op] ?? "B");
  }
  for (const id of ["model-prefill", "smollm2-prefill"]) expect(work(cases.get(id)).amount).toBe(512);
  for (const id of ["train-8x256", "train-1x2048", "train-smollm2-4x512"]) expect(work(cases.get(id)).amount).toBe(2048);
  expect(cases.get("smollm2-decode").prompt).toHaveLength(16);
  // The file and the list of cases are of the same model.
  expect(statSync(join(placeOf(cases.get("model-decode")), "model.safetensors")).size).toBeGreaterThan(2 * 6952192);
});

test("the quantised Motif: its tensors are those of MLX, and have the parameters of Motif-2.6B", () => {
  const tensors = new Map(motifTensors().map((tensor) => [tensor.name, tensor]));
  expect(tensors.get("model.layers.31.mlp.down_proj.weight")).toMatchObject({ dtype: "U32", shape: [2048, 1024] });
  expect(tensors.get("model.layers.0.self_attn.q_proj.scales")).toMatchObject({ dtype: "BF16", shape: [2048, 32] });
  expect(tensors.get("model.embed_tokens.weight").shape).toEqual([219520, 512]);
  const weights = ({ name, shape }) => (name.endsWith("s.weight") ? 4 : 8) * shape[0] * shape[1];
  const coded = [...tensors.values()].filter(({ dtype }) => dtype === "U32");
  expect(coded.reduce((sum, tensor) => sum + weights(tensor), 0)).toBe(219520 * 2048 + 32 * (4 * 2048 ** 2 + 3 * 2048 * 8192));
});

test("random weights are the same everywhere, and bfloat16 is their nearest", () => {
  const values = fill(new Float32Array(4), 3);
  expect([...values].map((value) => (value + 1) * 2 ** 23)).toEqual([0, 1, 2, 3].map((i) => hash(i + Math.imul(3, 0x9e3779b9)) >>> 8));
  expect([...toBfloat16(Float32Array.of(1, 1.00390625, 1.01171875, -2.5))]).toEqual([0x3f80, 0x3f80, 0x3f82, 0xc020]);
});

test("blocks: so many live in each row, scattered, the same everywhere", () => {
  const { data, shape } = liveBlocks(1024, 2048, 8);
  expect(shape).toEqual([1, 1, 16, 32]);
  const rows = Array.from({ length: 16 }, (_, row) => [...data.subarray(32 * row, 32 * row + 32)]);
  for (const row of rows) expect(row.reduce((sum, live) => sum + live, 0)).toBe(4);
  expect(rows[0].flatMap((live, column) => (live ? [column] : []))).toEqual([0, 11, 18, 25]);
  expect(new Set(rows.map(String)).size).toBe(16);
});

/** Measurements of every group, in which everything runs at the same rate. */
function measured(groups) {
  const one = (entrant) => ({ ...entrant, rate: 1e9, seconds: { median: 1 }, bytes: 1e6, runs: 3, unit: "FLOP" });
  const peer = (entrant) => ({
    ...entrant,
    peer: entrant.peers,
    subject: entrant.only?.[0] ?? "pytorch-cpu",
    variant: "plain",
    kind: "run",
    threads: entrant.threads ?? 1,
  });
  const webToo = ({ peers, case: of }) => (peers === "wasm" ? [{ peers, case: of, only: ["onnxruntime-web"] }] : []);
  return new Map(
    groups.map(({ id, entrants }) => [
      id,
      entrants.flatMap((entrant) => (entrant.peers ? [entrant, ...webToo(entrant)].map(peer) : [entrant])).map(one),
    ]),
  );
}

test("every figure finds its measurements in its group", () => {
  for (const best of ["avx2", "avx512", "neon"])
    for (const isFull of [false, true])
      for (const l2 of [undefined, 512 << 10, 1 << 20]) {
        const rows = evaluate(figures({ best, sizes, l2 }), measured(plan({ best, isFull })));
        expect(rows.filter(({ verdict }) => verdict === "not measurable")).toEqual([]);
      }
});

test("ordinary cores, of a small second cache, have targets of their own", () => {
  const of = (l2) => figures({ best: "avx2", sizes, l2 });
  const bound = (l2, start) => of(l2).find(({ what }) => what.startsWith(start)).least;
  const start = "native, L 2048 ÷ best peer";
  expect([undefined, 1 << 20, 512 << 10, 256 << 10].map((l2) => bound(l2, start))).toEqual([3.25, 3.25, 2.65, 2.65]);
  const smallest = (l2) => of(l2).flatMap(({ id, most }) => (id === "P13" ? [most] : []));
  expect(smallest(512 << 10)).toEqual([3, 6, 6, 4]);
  expect(smallest(undefined)).toEqual([5, 5, 5, 3, 6, 6, 4]);
});

test("groups and figures know the same figures, and every case is used", () => {
  const groups = plan({ best: "avx2", isFull: false });
  for (const { id, group } of figures({ best: "avx2", sizes }))
    if (group) expect(groups.find((one) => one.id === group)?.figures, id).toContain(id);
  for (const { id, figures: ids } of groups)
    for (const figure of ids)
      expect(
        figures({ best: "avx2", sizes }).some((one) => one.id === figure && one.group === id),
        `${figure} in ${id}`,
      ).toBe(true);
  const used = new Set(groups.flatMap(({ entrants }) => entrants.map((entrant) => entrant.case)));
  for (const id of cases.keys()) expect(used).toContain(id);
  for (const { entrants } of groups) {
    const names = entrants.map(({ as }) => as).filter(Boolean);
    expect(new Set(names).size).toBe(names.length);
  }
});

test("one group, figure or case can be asked for", () => {
  const groups = plan({ best: "avx2", isFull: false });
  expect(chosen(groups, "P7").map(({ id }) => id)).toEqual(["decode 4096", "decode 32768"]);
  expect(chosen(groups, "rms-norm-128").map(({ id }) => id)).toEqual(["rms-norm-128"]);
  expect(chosen(groups, "nothing")).toEqual([]);
});

test("what failed or was not measured is a figure with its reason", () => {
  const [figure] = figures({ best: "avx2", sizes });
  const peak = { as: "fma avx512", rate: 1, kind: "limit" };
  const failed = { as: "causal avx512", subject: "crate", error: "avx512 is missing" };
  expect(evaluate([figure], new Map([["long", [failed, peak]]]))[0]).toMatchObject({
    verdict: "not measurable",
    note: "crate: avx512 is missing",
  });
  expect(evaluate([figure], new Map([["long", []]]))[0].verdict).toBe("not measurable");
  expect(evaluate([figure], new Map())).toEqual([]);
});

test("beside a peer a figure says what the limit would give", () => {
  const all = figures({ best: "avx2", sizes });
  const figure = all.find(({ what }) => what === "native, L 2048 ÷ best peer");
  const ours = { as: "package", subject: "package", kind: "run", of: "fma avx2", rate: 6 };
  const peer = { as: "torch", subject: "torch", variant: "plain", kind: "run", peer: "native", rate: 2 };
  const peak = { as: "fma avx2", subject: "crate", kind: "limit", rate: 9 };
  const row = (...measurements) => evaluate([figure], new Map([["beside peers", measurements]]))[0];
  expect(row(ours, peer, peak)).toMatchObject({ value: 3, note: "torch plain; at the limit 4.5" });
  expect(row(ours, peer)).toMatchObject({ value: 3, note: "torch plain" });
  expect(row(ours, peer, { ...peak, error: "it broke" })).toMatchObject({ value: 3, note: "torch plain" });
});

test("bounds are met from their own side", () => {
  const rows = evaluate(figures({ best: "avx2", sizes }), new Map());
  expect(rows.map(({ id, verdict }) => [id, verdict])).toEqual([
    ["P15", "reached"],
    ["P15", "short"],
    ["P15", "reached"],
  ]);
});

test("tables and CSV", () => {
  const columns = [
    ["a", "left"],
    ["b", "right"],
  ];
  expect(table(columns, [["x", "10"]])).toEqual(["a   b", "-  --", "x  10"]);
  expect(csv([{ a: 'say "x", then', b: undefined, c: 1 }])).toBe('a,b,c\n"say ""x"", then",,1\n');
  const group = [
    { as: "ours", kind: "run", case: "causal-512", subject: "crate", threads: 1, of: "peak", error: "it broke", runs: 0 },
    { as: "peak", kind: "limit", what: "fma", subject: "crate", threads: 1, rate: 4e10, runs: 3 },
  ];
  expect(measurementTable(new Map([["one", group]])).join("\n")).toContain("failed: it broke");
});

test("the chart names who was measured", () => {
  const groups = measured(plan({ best: "avx2", isFull: false }));
  const about = { date: "2026-01-01", cpu: "A CPU", cores: 2, revision: "abc" };
  const rows = csvParse(csv(measurementRows(about, groups, new Map())));
  const drawn = chart([{ name: "A machine", date: about.date, rows }]);
  expect(drawn).toMatch(/^<svg /);
  for (const name of ["diffattn, relaxed SIMD", "onnxruntime-web", "PyTorch", "FMA peak 1.0", "A machine"]) expect(drawn).toContain(name);
});

test("the chart of the README is of the newest records, of the ordinary machine first", () => {
  const records = shownRecords();
  expect(records.map(({ name }) => /Zen \d/.exec(name)[0])).toEqual(["Zen 3", "Zen 5"]);
  expect(readFileSync(picture, "utf8") === chart(records), "node bench/picture.mjs").toBe(true);
});

test("what is compared between two builds: known cases, each once, on what is there", () => {
  for (const list of [comparisons, costs])
    for (const isas of [
      ["scalar", "avx2", "avx512"],
      ["scalar", "neon"],
    ]) {
      const all = list({ isas });
      expect(new Set(all.map(({ figure, what }) => `${figure} ${what}`)).size).toBe(all.length);
      for (const { case: id, isa, least } of all) {
        expect(cases.has(id), id).toBe(true);
        expect([...isas, "simd128", "relaxed-simd"]).toContain(isa);
        expect([0.95, 0.98]).toContain(least);
      }
    }
  const figures = new Set(comparisons({ isas: ["avx2", "avx512"] }).map(({ figure }) => figure));
  expect([...figures].sort()).toEqual(["M1", "M2", "M3", "P1", "P13", "P1b", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9"]);
});

test("what is larger than it may be, or has no limit, is over; one operator costs at most half", () => {
  const measured = {
    wasm: { "diffattn-simd128.wasm": LIMITS["diffattn-simd128.wasm"] + 1, "other.wasm": 1 },
    entry: 12_000,
    worker: 9_001,
  };
  const over = (shaken) => judged(measured, shaken).flatMap(({ name, isOver }) => (isOver ? [name] : []));
  expect(over({ operator: 5, all: 10 })).toEqual(["diffattn-simd128.wasm, gzip", "other.wasm, gzip", "worker.js, gzip"]);
  expect(over({ operator: 6, all: 10 }).at(-1)).toBe("groupNorm alone, of 0.0 KB minified");
});

test("two builds: other bits count before speed; sizes grow in percent", () => {
  const row = { ratio: 0.99, least: 0.98, same: true };
  expect(verdict(row)).toBe("kept");
  expect(verdict({ ...row, ratio: 0.97 })).toBe("short of 0.98");
  expect(verdict({ ...row, same: false })).toBe("other bits");
  const rows = sizeRows(
    { wasm: { "a.wasm": 1000, "b.wasm": 1000 }, entry: 2000, worker: 10 },
    { wasm: { "a.wasm": 1020 }, entry: 1500, worker: 10 },
  );
  expect(rows).toEqual([
    ["a.wasm", "1.0 KB", "1.0 KB", "2.0 %"],
    ["b.wasm", "1.0 KB", "", ""],
    ["entry with its chunks", "2.0 KB", "1.5 KB", "-25.0 %"],
    ["worker.js", "0.0 KB", "0.0 KB", "0.0 %"],
  ]);
});

test("the pictures of docs/healing.md are of what was recorded", async () => {
  for (const [name, svg] of Object.entries(await pictures(readRecord())))
    expect(readFileSync(pictureFile(name), "utf8") === svg, `${name}: node bench/healing/pictures.mjs`).toBe(true);
});
