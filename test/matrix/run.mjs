// The matrix: packs the tarballs, and in each place where people put the package makes a small
// application as they would, runs it and judges what it gives. Prints a row as each ends, then "N
// passed, N failed". A place that does not run is a failure.
//
//   node test/matrix/run.mjs                   all of them: npm run check:matrix; writes docs/runtimes.md
//   node test/matrix/run.mjs --only NAME,...   those with such a part in group or name
//                            --resume          not again what passed in the last run with these very tarballs
//                            --short           the few that need no registry, and that docs/runtimes.md lists all
//                            --list            names them and runs none
//
// Needs built outputs (npm run build); the places of browsers need Chromium and Firefox (node
// scripts/setup.mjs --browsers).
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { pack } from "../../scripts/pack.mjs";
import { cache, root, seconds } from "../../scripts/tools.mjs";
import { contexts } from "./lib/context.mjs";
import { judge, judgeText } from "./lib/judge.mjs";
import { inOrder, placesOf, rowText, runtimes } from "./lib/table.mjs";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    resume: { type: "boolean" },
    short: { type: "boolean" },
    list: { type: "boolean" },
  },
});

const DOCUMENT = join(root, "docs/runtimes.md");
const RESULTS = join(cache, "matrix.json");
/** Of one place with all that it installs and builds, in minutes. */
const LIMIT = 8;

const folder = join(import.meta.dirname, "places");
const modules = await Promise.all(readdirSync(folder).map((file) => import(`./places/${file}`)));
const everyPlace = inOrder(modules.flatMap(({ places }) => places));
const parts = values.only?.split(",");
const chosen = everyPlace.filter(
  ({ group, name, short }) => (!values.short || short) && (!parts || parts.some((part) => `${group}: ${name}`.includes(part))),
);
if (chosen.length === 0) {
  console.error(`no place has ${values.only} in its name; node test/matrix/run.mjs --list names them`);
  process.exit(2);
}
if (values.list) {
  for (const { group, name, unavailable } of chosen)
    console.log(`${group}: ${name}${unavailable ? ` (cannot run here: ${unavailable})` : ""}`);
  process.exit(0);
}

const tarballs = pack();
const hash = createHash("sha256");
for (const path of Object.values(tarballs)) hash.update(readFileSync(path));
const packed = hash.digest("hex");
const before = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, "utf8")) : {};
/** What is known of these tarballs, by place: `{ row }` or `{ error }`. */
const results = before.packed === packed ? before.results : {};

const run = contexts(tarballs);

/** One place: its row, or rejects with what went wrong. */
async function runPlace(place) {
  const { context, close } = run.fresh();
  let timer;
  try {
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no end after ${LIMIT} minutes`)), LIMIT * 60_000);
    });
    const { version, report, expected, text, note = "" } = await Promise.race([place.run(context), late]);
    return { version, ...(text === undefined ? judge(report, expected) : judgeText(text)), note };
  } finally {
    clearTimeout(timer);
    await close();
  }
}

let passed = 0;
let failed = 0;
for (const place of chosen) {
  const name = `${place.group}: ${place.name}`;
  if (place.unavailable) {
    console.log(`none    ${name}: ${place.unavailable}`);
    continue;
  }
  const start = Date.now();
  const known = values.resume && results[name]?.row;
  try {
    const row = known || (await runPlace(place));
    results[name] = { row };
    passed += 1;
    console.log(`ok      ${name}: ${rowText(row)} (${known ? "as before" : seconds(start)})`);
  } catch (error) {
    results[name] = { error: error instanceof Error ? error.message : String(error) };
    failed += 1;
    console.error(`FAILED  ${name} (${seconds(start)})\n${results[name].error}`);
  }
  if (!values.short) writeFileSync(RESULTS, JSON.stringify({ packed, results }, null, 1));
}
run.close();

if (values.short) {
  const listed = placesOf(existsSync(DOCUMENT) ? readFileSync(DOCUMENT, "utf8") : "");
  const same = JSON.stringify(listed) === JSON.stringify(everyPlace.map(({ group, name }) => `${group}: ${name}`));
  if (same) passed += 1;
  else failed += 1;
  const say = "docs/runtimes.md lists the places that there are";
  console.log(same ? `ok      ${say}` : `FAILED  ${say}; npm run check:matrix writes it anew`);
} else if (everyPlace.every(({ group, name, unavailable }) => unavailable || results[`${group}: ${name}`])) {
  writeFileSync(DOCUMENT, await runtimes(everyPlace, results));
  console.log(`wrote docs/runtimes.md`);
}
console.log(`${passed} passed, ${failed} failed`);
// What a place left in this very process must not hold it.
process.exit(failed > 0 ? 1 : 0);
