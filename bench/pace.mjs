// Whether a change costs time: two builds of this project, each in a checkout of its own, run the
// same cases in turn, old new, new old, …; their medians are divided and their answers compared bit
// by bit. Builds nothing: both checkouts stand built (npm run build, and the release build of
// diffattn-bench).
//
//   node bench/pace.mjs --old FOLDER [--new FOLDER] [--only FIGURE|NAME] [--rounds 31] [--json]
//   node bench/pace.mjs --old FOLDER --costs      what a call and a download cost, in one table
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { newerNode, root } from "../scripts/tools.mjs";
import { cases, checked } from "./cases.mjs";
import { comparisons, costs, sizeRows, verdict } from "./pace-plan.mjs";
import { sizes } from "./sizes.mjs";
import { median } from "./statistics.mjs";
import { Subject } from "./subject.mjs";
import { table } from "./tables.mjs";

/** Seconds that one reply may take: the first makes a model of a gigabyte. */
const PATIENCE = 1200;
/** What falls short is measured so many times, and the middle one counts. */
const TIMES = 3;

const say = (text) => console.error(text);

/** The commands of a checkout's subjects. */
const subjects = (folder) => ({
  crate: [join(folder, "target/release", process.platform === "win32" ? "diffattn-bench.exe" : "diffattn-bench")],
  package: [process.execPath, join(folder, "bench/subjects/diffattn.mjs"), "native"],
  "wasm-oldest": [process.execPath, join(folder, "bench/subjects/diffattn.mjs"), "wasm", "none"],
  "wasm-newer": [newerNode, join(folder, "bench/subjects/diffattn.mjs"), "wasm", "none"],
  model: [process.execPath, "--expose-gc", join(folder, "bench/subjects/model.mjs"), "native"],
  "model-wasm": [newerNode, "--expose-gc", join(folder, "bench/subjects/model.mjs"), "wasm"],
});

/** One side of a comparison: a process with the case loaded. */
async function start(folder, { subject, case: id, variant, isa, threads = 1 }) {
  const process = new Subject(subjects(folder)[subject]);
  await process.ask({ do: "load", case: cases.get(id), variant, threads, ...(isa && { isa }) }, PATIENCE);
  return { process, samples: [] };
}

/** Both sides' seconds over `rounds` alternations, and whether their answers have the same bits. */
async function measure(folders, one, rounds) {
  const sides = [];
  try {
    // The old one first: what both need and no one made yet, such as a model's file, it makes.
    for (const folder of folders) sides.push(await start(folder, one));
    for (let round = 0; round < rounds; round++)
      for (const side of round % 2 === 0 ? sides : sides.toReversed())
        side.samples.push((await side.process.ask({ do: "run" }, PATIENCE)).seconds);
    const answers = [];
    for (const { process } of sides) {
      const parts = [];
      for (const part of checked(cases.get(one.case))) parts.push((await process.ask({ do: "answer", ...part }, PATIENCE)).values);
      answers.push(parts.join());
    }
    const [before, after] = sides.map(({ samples }) => median(samples));
    const paired = median(sides[0].samples.map((seconds, i) => seconds / sides[1].samples[i]));
    return { ...one, before, after, ratio: before / after, paired, same: answers[0] === answers[1] };
  } catch (error) {
    return { ...one, error: error.message };
  } finally {
    for (const { process } of sides) await process.end();
  }
}

/** The same, again where it falls short: the middle of three counts. */
async function settled(folders, one, rounds) {
  const all = [await measure(folders, one, rounds)];
  while (all.length < TIMES && !all[0].error && all[0].ratio < one.least) all.push(await measure(folders, one, rounds));
  const good = all.filter(({ error }) => !error).toSorted((a, b) => a.ratio - b.ratio);
  const middle = good[good.length >> 1] ?? all[0];
  return { ...middle, same: good.every(({ same }) => same), times: all.length };
}

const milliseconds = (seconds) => (seconds < 1e-3 ? `${(seconds * 1e6).toFixed(2)} µs` : `${(seconds * 1e3).toFixed(2)} ms`);

const cells = (row) => [
  row.figure,
  row.what,
  ...(row.error
    ? ["", "", "", "", row.error]
    : [
        milliseconds(row.before),
        milliseconds(row.after),
        row.ratio.toFixed(3),
        row.paired.toFixed(3),
        `${verdict(row)}${row.times > 1 ? `, the middle of ${row.times}` : ""}`,
      ]),
];

function readArguments() {
  const options = {
    old: { type: "string" },
    new: { type: "string", default: root },
    only: { type: "string" },
    rounds: { type: "string", default: "31" },
    json: { type: "boolean" },
    costs: { type: "boolean" },
  };
  const { values } = parseArgs({ options });
  const rounds = Number(values.rounds);
  if (!values.old || !Number.isInteger(rounds) || rounds < 1) {
    say("usage: node bench/pace.mjs --old FOLDER [--new FOLDER] [--only FIGURE|NAME] [--rounds 31] [--costs] [--json]");
    process.exit(2);
  }
  return { ...values, rounds, folders: [values.old, values.new].map((folder) => resolve(folder)) };
}

async function isas(folder) {
  const crate = new Subject(subjects(folder).crate);
  const { isas: all } = await crate.ask({ do: "info" }, PATIENCE);
  await crate.end();
  return all;
}

const { folders, only, rounds, json: isJson, costs: isCosts } = readArguments();
for (const folder of folders)
  for (const built of [subjects(folder).crate[0], join(folder, "packages/diffattn/dist/node.js")])
    if (!existsSync(built)) {
      say(`${built} is missing: build there first`);
      process.exit(2);
    }
const available = await isas(folders[0]);
const all = (isCosts ? costs : comparisons)({ isas: available });
const chosen = all.filter(({ figure, what, case: id }) => !only || [figure, what, id].includes(only));
if (chosen.length === 0) {
  say(`nothing is called "${only}"; figures: ${[...new Set(all.map(({ figure }) => figure))].join(", ")}`);
  process.exit(2);
}
const rows = [];
for (const one of chosen) {
  const row = await settled(folders, one, rounds);
  say(cells(row).join("  "));
  rows.push(row);
}
const sized = isCosts && !only ? sizeRows(...folders.map((folder) => sizes(join(folder, "packages/diffattn/dist")))) : [];
if (isJson) console.log(JSON.stringify({ rounds, rows, sizes: sized }));
else {
  console.log(`${rounds} alternations of ${folders.join(" and ")}\n`);
  const columns = (first, ...headings) => headings.map((heading, i) => [heading, i > first && heading ? "right" : "left"]);
  console.log(table(columns(1, "figure", "what", "before", "after", "times as fast", "paired", ""), rows.map(cells)).join("\n"));
  if (sized.length > 0) console.log(`\n${table(columns(0, "gzip", "before", "after", "growth"), sized).join("\n")}`);
}
if (rows.some((row) => row.error || verdict(row) !== "kept")) process.exitCode = 1;
