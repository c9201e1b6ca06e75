// What is kept of a run: the machine and versions it ran on, and CSV files under record/<cpu>/.
// Measures nothing.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { csvFormat, csvParse } from "d3-dsv";
import { ask } from "../scripts/tools.mjs";
import { shareOf } from "./tables.mjs";

const folder = fileURLToPath(new URL("record/", import.meta.url));

/** The CPU's name; on Linux with what tells generations of one name apart. */
function cpuName() {
  const model = cpus()[0]?.model.trim() ?? "unknown CPU";
  if (process.platform !== "linux") return model;
  const text = readFileSync("/proc/cpuinfo", "utf8");
  const field = (name) => new RegExp(`^${name}\\s*: (\\d+)$`, "m").exec(text)?.[1];
  const [family, number] = [field("cpu family"), field("model")];
  return family && number ? `${model} (family ${family} model ${number})` : model;
}

/** Bytes of the second cache that the first core has; undefined where the system does not say. */
function secondCache() {
  const caches = "/sys/devices/system/cpu/cpu0/cache";
  if (!existsSync(caches)) return undefined;
  for (const index of readdirSync(caches).filter((name) => name.startsWith("index"))) {
    const read = (what) => readFileSync(join(caches, index, what), "utf8").trim();
    if (read("level") !== "2") continue;
    const size = /^(\d+)K$/.exec(read("size"))?.[1];
    return size && Number(size) * 1024;
  }
  return undefined;
}

/** The machine and the revision, before anything is measured. */
export function machine() {
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpuName(),
    cores: availableParallelism(),
    l2: secondCache(),
    // With "-dirty" where the tree differs from it.
    revision: ask("git", ["describe", "--always", "--dirty"]) || "unknown",
    node: process.versions.node,
  };
}

const slug = (text) =>
  text
    .toLowerCase()
    .replace(/\((r|tm)\)/g, "")
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");

/** CSV of objects with the same keys. */
export const csv = (rows) => `${csvFormat(rows)}\n`;

const digits = (value) => (value === undefined ? undefined : Number(value.toPrecision(6)));

/** One row per entrant, with everything that is needed to read it alone. */
export function measurementRows(machine, groups, info) {
  return [...groups].flatMap(([group, entrants]) =>
    entrants.map((one) => {
      const about = info.get(one.subject);
      return {
        date: machine.date,
        cpu: machine.cpu,
        cores: machine.cores,
        revision: machine.revision,
        group,
        what: one.kind === "limit" ? `limit ${one.what}` : one.kind,
        case: one.case,
        subject: one.subject,
        version: about?.version,
        runtime: about?.runtime,
        variant: one.variant,
        isa: one.isa,
        threads: one.threads,
        runs: one.runs,
        seconds_median: digits(one.seconds?.median),
        seconds_min: digits(one.seconds?.min),
        seconds_max: digits(one.seconds?.max),
        bytes: one.bytes,
        per_second: digits(one.rate),
        limit_per_second: digits(entrants.find(({ as }) => one.of && as === one.of)?.rate),
        share_of_limit: digits(shareOf(one, entrants)),
        answer_error: digits(one.answerError),
        remark: [one.error && `failed: ${one.error}`, one.note].filter(Boolean).join("; "),
      };
    }),
  );
}

const figureRows = (rows) =>
  rows.map(({ id, what, least, most, value, unit, verdict, note }) => ({
    figure: id,
    what,
    target: least === undefined ? `at most ${most}` : `at least ${least}`,
    measured: digits(value),
    unit,
    verdict,
    note,
  }));

/** Writes both tables; a later run of the same day replaces them. Returns the paths. */
export function keep(machine, groups, info, figures) {
  const place = join(folder, slug(machine.cpu));
  mkdirSync(place, { recursive: true });
  const files = [
    [join(place, `${machine.date}.csv`), csv(measurementRows(machine, groups, info))],
    [join(place, `${machine.date}-figures.csv`), csv(figureRows(figures))],
  ];
  for (const [path, text] of files) writeFileSync(path, text);
  return files.map(([path]) => path);
}

/** Machines that the README shows, the ordinary one first, as it calls them. */
const SHOWN = [
  { cpu: "AMD EPYC (family 25 model 1)", name: "AMD EPYC “Zen 3”, AVX2, 512 KB of L2 a core: an ordinary machine" },
  { cpu: "AMD EPYC (family 26 model 2)", name: "AMD EPYC “Zen 5”, AVX-512, 1 MB of L2 a core" },
];

/** The newest record of each of them: what was measured, a row an object. */
export function shownRecords() {
  return SHOWN.map(({ cpu, name }) => {
    const place = join(folder, slug(cpu));
    const newest = readdirSync(place)
      .filter((file) => /^[\d-]+\.csv$/.test(file))
      .sort()
      .at(-1);
    return { name, date: newest.replace(".csv", ""), rows: csvParse(readFileSync(join(place, newest), "utf8")) };
  });
}
