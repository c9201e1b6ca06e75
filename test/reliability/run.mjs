// Runs the attacks, each on each backend in a process of its own with a limit of time, so that a
// crash or a hang is a figure and not the end. Prints one table: property, figure, limit. Exit code
// 1 where one is missed.
//
//   node test/reliability/run.mjs                          at length, in under an hour: npm run check:reliability
//   node test/reliability/run.mjs --short                  a little of each; closes with "N passed, N failed"
//                                 [--only ATTACK,...]      file names of attacks/
//                                 [--backend NAME] [--seed N] [--count N]
//
// A seed gives the same cases again: the line of a miss names its case, the heading the seed.
import { fork } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    short: { type: "boolean" },
    only: { type: "string" },
    backend: { type: "string" },
    seed: { type: "string", default: "14" },
    count: { type: "string" },
  },
});
const length = values.short ? "short" : "full";
const seed = Number(values.seed);
const here = import.meta.dirname;
const names = readdirSync(join(here, "attacks")).map((file) => basename(file, ".mjs"));
const chosen = values.only?.split(",") ?? names;
for (const name of chosen) {
  if (names.includes(name)) continue;
  console.error(`there is no attack "${name}"; attacks: ${names.join(", ")}`);
  process.exit(2);
}

/** Misses that are shown of one attack; those of one kind count once. */
const SHOWN = 12;
const kindOf = (kind) => kind.replaceAll(/\d+/g, "0").slice(0, 80);

/** Runs one attack to its end, or ends it. */
function attackOnce(name, attack, backend, count) {
  const folder = mkdtempSync(join(tmpdir(), "diffattn-reliability-"));
  const trace = join(folder, "trace");
  const options = { name, backend, count, seed, trace, isFull: length === "full" };
  // Relative paths among what is hostile are of this folder. What chooses a backend comes from the
  // attack alone.
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("DIFFATTN_")));
  const child = fork(join(here, "child.mjs"), [JSON.stringify(options)], { cwd: folder, env, execArgv: attack.flags ?? [] });
  const misses = new Map();
  let figures;
  child.on("message", (message) => {
    if (message.figures) figures = message.figures;
    if (!message.miss) return;
    const kind = kindOf(message.kind);
    const known = misses.get(kind);
    misses.set(kind, { first: known?.first ?? message.miss, times: (known?.times ?? 0) + 1 });
  });
  return new Promise((resolve) => {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, attack.minutes[length] * 60_000);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      let at = "";
      try {
        at = readFileSync(trace, "utf8").trim();
      } catch {
        // It ended before its first case.
      }
      rmSync(folder, { recursive: true, force: true });
      const why = late ? `no end after ${attack.minutes[length]} minutes` : `ended by ${signal ?? `exit ${code}`}`;
      resolve({ figures, misses: [...misses.values()], death: figures ? undefined : `${why}, at case ${at}` });
    });
  });
}

const rows = [];
const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(0)} s`;
console.error(`seed ${seed}, ${length === "full" ? "at length" : "the short form"}`);
const begin = Date.now();
for (const name of chosen) {
  const { default: attack } = await import(`./attacks/${name}.mjs`);
  for (const backend of values.backend ? [values.backend] : (attack.backends ?? [undefined])) {
    const count = values.count ? Number(values.count) : attack.counts[length];
    const start = Date.now();
    const what = `${attack.title}${backend ? `, ${backend}` : ""} (${count})`;
    console.error(`${what} …`);
    const { figures, misses, death } = await attackOnce(name, attack, backend, count);
    console.error(`${what}: ${seconds(start)}`);
    for (const { first, times } of misses.slice(0, SHOWN)) console.error(`  ${first}${times > 1 ? ` (${times} times)` : ""}`);
    if (misses.length > SHOWN) console.error(`  and ${misses.length - SHOWN} other kinds`);
    if (death) console.error(`  ${death}`);
    for (const [property, { limit }] of Object.entries(attack.properties)) {
      const figure = death ? "none" : figures.unavailable ? "not measured" : figures[property];
      const verdict = figures?.unavailable ?? (typeof figure === "number" && figure <= limit ? "holds" : "MISSED");
      const note = death ?? figures?.note ?? "";
      rows.push({ what, property, figure: String(figure), limit: String(limit), verdict, note });
    }
  }
}

const header = { what: "attack (cases)", property: "property", figure: "figure", limit: "limit", verdict: "", note: "" };
const widthOf = (key) => Math.max(...[header, ...rows].map((row) => row[key].length));
const line = ({ what, property, figure, limit, verdict, note }) =>
  `${what.padEnd(widthOf("what"))}  ${property.padEnd(widthOf("property"))}  ${figure.padStart(widthOf("figure"))}  ${limit.padStart(widthOf("limit"))}  ${verdict}${note ? ` (${note})` : ""}`;

const missed = rows.filter(({ verdict }) => verdict === "MISSED");
if (length === "full") {
  console.log([header, ...rows].map(line).join("\n"));
  console.log(
    `seed ${seed}, ${seconds(begin)}: ${missed.length === 0 ? "every limit holds" : `${missed.length} of ${rows.length} limits are missed`}`,
  );
} else {
  for (const row of rows) console.log(`${row.verdict === "MISSED" ? "FAILED" : "ok    "}  ${line(row)}`);
  console.log(`${rows.length - missed.length} passed, ${missed.length} failed`);
}
process.exitCode = missed.length === 0 ? 0 : 1;
