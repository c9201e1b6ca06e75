// The table of places: its order, a row as text, docs/runtimes.md, and which places that lists.
// Runs nothing.
import prettier from "prettier";

/** The sections, in the order of the table. */
const GROUPS = [
  "Node",
  "Node, restricted",
  "TypeScript",
  "Test runners",
  "Deno, Bun, workerd",
  "Bundlers for Node",
  "Bundlers for browsers",
  "Frameworks",
  "Browsers",
  "Examples",
  "Elsewhere",
];

/** Places by section; in each, as their files have them. */
export function inOrder(places) {
  const names = new Set();
  for (const { group, name } of places) {
    if (!GROUPS.includes(group)) throw new Error(`${name}: there is no section "${group}"; sections: ${GROUPS.join(", ")}`);
    if (names.has(`${group}: ${name}`)) throw new Error(`${group} has two places of the name "${name}"`);
    names.add(`${group}: ${name}`);
  }
  return GROUPS.flatMap((group) => places.filter((place) => place.group === group));
}

/** A row of judge.mjs in one line. */
export const rowText = ({ version, operators, model, threads, note }) =>
  [version, operators, `model: ${model}`, threads && `threads: ${threads}`, note].filter(Boolean).join("; ");

const cell = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ");

function lineOf({ name, unavailable }, result) {
  if (unavailable) return `| ${cell(name)} | | not tried | | | ${cell(unavailable)} |`;
  const { row, error } = result;
  if (!row) return `| ${cell(name)} | | fails | | | ${cell(error.split("\n")[0])} |`;
  return `| ${[name, row.version, row.operators, row.model, row.threads, row.note].map(cell).join(" | ")} |`;
}

/** The document of all places; `results` by "group: name". */
export async function runtimes(places, results) {
  const sections = GROUPS.map((group) => {
    const lines = places.filter((place) => place.group === group).map((place) => lineOf(place, results[`${group}: ${place.name}`]));
    if (lines.length === 0) return "";
    return `## ${group}\n\n| place | version | operators | model | threads | to know |\n|---|---|---|---|---|---|\n${lines.join("\n")}\n`;
  });
  const text = `# Where it runs

Written by \`npm run check:matrix\`, which packs the package, installs it in each of these places as people do, builds a small application
there and runs it: the example of the README (async and sync), and a text of the trained model of [examples/model](../examples/model). What it
gives is compared each time. "Operators" is what \`info()\` says: backend and instruction set.

${sections.filter(Boolean).join("\n")}`;
  return prettier.format(text, { parser: "markdown", printWidth: 140 });
}

/** The places that such a document lists, as "group: name". */
export function placesOf(text) {
  const found = [];
  let group;
  for (const line of text.split("\n")) {
    group = /^## (.+)$/.exec(line)?.[1] ?? group;
    const name = /^\| ((?:[^|\\]|\\.)+?) +\|/.exec(line)?.[1];
    if (group && name && name !== "place" && !/^-+$/.test(name)) found.push(`${group}: ${name.replaceAll("\\|", "|")}`);
  }
  return found;
}
