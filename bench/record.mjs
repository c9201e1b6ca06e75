// What is kept of a run: the machine and versions it ran on, and CSV files under record/<cpu>/.
// Measures nothing.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
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

/** The machine and the revision, before anything is measured. */
export function machine() {
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpuName(),
    cores: availableParallelism(),
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

const cell = (value) => {
  const text = value === undefined || value === null ? "" : String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** CSV of objects with the same keys. */
export function csv(rows) {
  const names = Object.keys(rows[0] ?? {});
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

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
