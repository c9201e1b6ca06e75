// The benchmark: prepares subjects, measures the groups of plan.mjs, prints the figures and all
// that was measured, keeps a record and draws the chart. bench/README.md says how to read it.
//
//   node bench/run.mjs [--only FIGURE|CASE|GROUP] [--full] [--json]
import { parseArgs } from "node:util";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "../scripts/build.mjs";
import { setup } from "../scripts/setup.mjs";
import { bin, CommandFailed, ensureFolder, run } from "../scripts/tools.mjs";
import { evaluate, figures } from "./figures.mjs";
import { Bench } from "./measure.mjs";
import { setupPeers } from "./peers/setup.mjs";
import { draw, picture } from "./picture.mjs";
import { chosen, plan } from "./plan.mjs";
import { keep, machine } from "./record.mjs";
import { sizes } from "./sizes.mjs";
import { limits, ours, reference } from "./subjects/ours.mjs";
import { peers } from "./subjects/peers.mjs";
import { figureTable, measurementTable } from "./tables.mjs";

/**
 * About ten minutes on two slow cores, and as long as it takes. `patience` is how many seconds a
 * subject may take for one reply.
 */
const BRIEF = { budget: 15, fewest: 3, most: 31, patience: 240, onlyBest: true };
const FULL = { budget: 60, fewest: 5, most: 101, patience: 1200, onlyBest: false };

const say = (text) => console.error(text);
const print = (text) => process.stdout.write(`${text}\n`);

/**
 * Builds and installs what subjects need; returns the subjects by name, with the reason of those
 * that cannot run.
 */
function prepare() {
  setup();
  build();
  run("cargo", ["build", "--release", "--quiet", "-p", "diffattn-bench"]);
  ensureFolder(limits);
  for (const name of ["memory", "fma-simd128", "fma-relaxed-simd"]) {
    const from = fileURLToPath(new URL(`subjects/limits-${name}.wat`, import.meta.url));
    run(bin("wasm-as"), [from, "--enable-simd", "--enable-relaxed-simd", "-o", join(limits, `${name}.wasm`)]);
  }
  const reasons = setupPeers();
  return new Map([
    ...ours.map(({ name, command, missing }) => [name, { command, missing: missing?.() }]),
    ...peers.map(({ name, kind, needs, command }) => [name, { command: command(), kind, missing: reasons[needs] }]),
  ]);
}

function readArguments() {
  try {
    const options = { only: { type: "string" }, full: { type: "boolean" }, json: { type: "boolean" } };
    return parseArgs({ options }).values;
  } catch (error) {
    say(`${error.message}\nusage: npm run bench -- [--only FIGURE|CASE|GROUP] [--full] [--json]`);
    process.exit(2);
  }
}

async function main({ only, full: isFull = false, json: isJson = false }) {
  // The scripts that are used here log on standard output, which is the result's alone.
  console.log = say;
  const subjects = prepare();
  const about = machine();
  const bench = new Bench(subjects, reference, isFull ? FULL : BRIEF, say);
  const { isas } = await bench.about("crate");
  const best = isas.at(-1);
  const all = figures({ best, sizes: sizes(), l2: about.l2 });
  const planned = plan({ best, isFull });
  const wanted = only ? chosen(planned, only) : planned;
  if (wanted.length === 0 && !all.some(({ id }) => id === only)) {
    await bench.end();
    say(`nothing is called "${only}"; groups: ${planned.map(({ id }) => id).join("; ")}`);
    process.exit(2);
  }

  const start = Date.now();
  const groups = new Map();
  for (const [index, group] of wanted.entries()) {
    say(`${index + 1}/${wanted.length} ${group.id}`);
    groups.set(group.id, await bench.measure(group));
  }
  await bench.end();
  say(`measured in ${((Date.now() - start) / 60_000).toFixed(1)} minutes`);

  const isFigure = all.some(({ id }) => id === only);
  const meant = all.filter(({ id, group }) => (isFigure ? id === only : !only || group !== undefined));
  const rows = evaluate(meant, groups);
  if (isJson)
    print(JSON.stringify({ machine: about, subjects: Object.fromEntries(bench.info), figures: rows, groups: Object.fromEntries(groups) }));
  else show(about, bench.info, subjects, rows, groups, isFull);

  if (only) return;
  const files = keep(about, groups, bench.info, rows);
  draw();
  for (const path of [...files, picture]) say(`written: ${path}`);
}

function show(about, info, subjects, rows, groups, isFull) {
  print(`${about.cpu}, ${about.cores} cores, revision ${about.revision}, ${about.date}`);
  for (const [name, { version, runtime, notes = [] }] of info) print(`  ${[name, version, runtime, ...notes].filter(Boolean).join(", ")}`);
  for (const [name, { missing }] of subjects) if (missing) print(`  ${name} cannot run here: ${missing}`);
  print(["", "Figures", "", ...figureTable(rows)].join("\n"));
  const count = (verdict) => rows.filter((row) => row.verdict === verdict).length;
  print(`\n${count("reached")} reached, ${count("short")} short, ${count("not measurable")} not measurable`);
  if (groups.size === 0) return;
  print(["", "Measurements: medians; useful GFLOP/s count what the mask leaves; share is of the limit in the same group", ""].join("\n"));
  print(measurementTable(groups).join("\n"));
  if (!isFull) print("\nPeers' variants far from the best ran once, since only the best counts; --full lets all run as often as ours.");
}

try {
  await main(readArguments());
} catch (error) {
  if (!(error instanceof CommandFailed)) throw error;
  say(`failed: ${error.message}`);
  process.exitCode = 1;
}
