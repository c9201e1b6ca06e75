// Draws the pictures of docs/healing.md out of bench/healing/record.json. Measures nothing.
//
//   node bench/healing/pictures.mjs
import * as Plot from "@observablehq/plot";
import { buildSync } from "esbuild";
import { parseHTML } from "linkedom";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { isMain, root } from "../../scripts/tools.mjs";
import { beginnings, healings, measured } from "./plan.mjs";

const WIDTH = 720;
/** As the project's curves have them (packages/diffattn/src/curve.ts), light and dark. */
const STYLE = `<style>
svg{background:#fff;color:#1b1f24}.c0{fill:#0072b2}.c1{fill:#d55e00}.c2{fill:#009e73}.c3{fill:#8b949e}.l0{stroke:#0072b2}.l1{stroke:#d55e00}.l2{stroke:#009e73}
@media (prefers-color-scheme:dark){svg{background:#0d1117;color:#e6edf3}.c0{fill:#56b4e9}.c1{fill:#e69f00}.c2{fill:#2fd1a5}.c3{fill:#6e7681}.l0{stroke:#56b4e9}.l1{stroke:#e69f00}.l2{stroke:#2fd1a5}}
</style>`;

/** The library's own drawing of curves, which no entry of the package has. */
async function curves() {
  const folder = mkdtempSync(join(tmpdir(), "diffattn-curve-"));
  try {
    const outfile = join(folder, "curve.mjs");
    buildSync({ entryPoints: [join(root, "packages/diffattn/src/curve.ts")], bundle: true, format: "esm", outfile });
    return await import(pathToFileURL(outfile).href);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const SERIES = ["base", ...Object.keys(healings)];
const CLASSES = { base: "c3", llama: "c0", half: "c1", all: "c2" };
const LINES = { llama: "l0", half: "l1", all: "l2" };
const SIZE = { width: WIDTH, height: 300, marginLeft: 58, marginTop: 44 };

const runsOf = (record, names) => names.filter((name) => record.runs[name]).map((name) => ({ name, ...record.runs[name] }));

/** A plot of one line per model, with dots where there are few points. */
function chart(document, { points, names, x, y, marks = [], hasDots }) {
  const of = (name) => points.filter((point) => point.name === name);
  const dots = (name) => Plot.dot(of(name), { x: x.of, y: y.of, r: 4, className: CLASSES[name], fill: null, stroke: null });
  return Plot.plot({
    document,
    ...SIZE,
    x: { ticks: 6, ...x.scale },
    y: { grid: true, nice: true, ...y.scale },
    marks: [
      ...marks,
      ...names.map((name) => Plot.line(of(name), { x: x.of, y: y.of, className: LINES[name], stroke: null })),
      ...(hasDots ? names.map(dots) : []),
    ],
  });
}

const DIFFERENTIAL = ["half", "all"];
const TOKENS = { of: "tokens", scale: { label: "tokens", tickFormat: "~s" } };
const dashed = (at) => Plot.ruleY([at], { strokeDasharray: "3 3" });

/** The loss of what was held back, from the Llama as it was on. */
function heldBack(record, document) {
  const points = runsOf(record, Object.keys(healings)).flatMap(({ name, history }) => [
    { name, tokens: 0, loss: record.measured.base.heldBack },
    ...history.filter(({ evalLoss }) => evalLoss !== undefined).map(({ tokens, evalLoss }) => ({ name, tokens, loss: evalLoss })),
  ]);
  const y = { of: "loss", scale: { label: "loss of what was held back (nats per token)" } };
  return chart(document, { points, names: Object.keys(healings), x: TOKENS, y, hasDots: true });
}

/** Steps that a difference is averaged over: fewer are the noise of a few windows. */
const AVERAGED = 21;

/** The cross entropy of each step less that of the Llama, which read the same tokens. */
function differences(record, document) {
  const plain = record.runs.llama.history;
  const points = runsOf(record, DIFFERENTIAL).flatMap(({ name, history }) => {
    const difference = history.map(({ crossEntropy }, step) => crossEntropy - plain[step].crossEntropy);
    const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
    return history
      .slice(AVERAGED - 1)
      .map(({ tokens }, step) => ({ name, tokens, difference: 1000 * mean(difference.slice(step, step + AVERAGED)) }));
  });
  const y = { of: "difference", scale: { label: "thousandths of a nat" } };
  return chart(document, { points, names: DIFFERENTIAL, x: TOKENS, y, marks: [dashed(0)] });
}

/** λ of each layer, the mean over its heads and some tokens: where it began, and at the end. */
function lambdas(record, document) {
  const points = DIFFERENTIAL.flatMap((name) => record.measured[name].lambda.map((lambda, layer) => ({ name, layer, lambda })));
  const x = { of: "layer", scale: { label: "layer", ticks: 10 } };
  const y = { of: "lambda", scale: { label: "λ at the end of the healing (it began at 0.5)" } };
  return chart(document, { points, names: DIFFERENTIAL, x, y, marks: [dashed(0.5)], hasDots: true });
}

/** Right answers of each model, by length and depth. */
function needles(record, document) {
  const cells = SERIES.filter((name) => record.measured[name]).flatMap((name) =>
    record.measured[name].needle.map(({ length, depth, right, draws }) => ({ name, length, depth, share: right / draws })),
  );
  return Plot.plot({
    document,
    ...SIZE,
    x: { axis: null, domain: SERIES, padding: 0.05 },
    fx: { label: "depth of the needle", padding: 0.2 },
    fy: { label: "tokens", padding: 0.2 },
    y: { label: "share of right answers", domain: [0, 1], grid: true, ticks: 3, percent: false },
    marks: [
      ...SERIES.map((name) =>
        Plot.barY(
          cells.filter((cell) => cell.name === name),
          { fx: "depth", fy: "length", x: "name", y: "share", className: CLASSES[name], fill: null },
        ),
      ),
      Plot.ruleY([0]),
    ],
  });
}

/** A plot with its heading and what its colours mean. */
function framed(svg, title, legend) {
  const height = Number(svg.getAttribute("height")) + 44;
  svg.setAttribute("y", "44");
  const text = (x, y, more, body) => `<text x="${x}" y="${y}" font-family="system-ui,sans-serif" font-size="13" ${more}>${body}</text>`;
  let x = 10;
  const labels = legend.map(([className, label]) => {
    const at = x;
    x += 42 + 6.6 * label.length;
    return `<rect class="${className}" x="${at}" y="30" width="11" height="11"/>${text(at + 16, 40, 'fill="currentColor"', label)}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img"><title>${title}</title>${STYLE}${text(10, 18, 'fill="currentColor" font-weight="bold"', title)}${labels.join("")}${svg.outerHTML}</svg>\n`;
}

/** Every picture by its name; only of what the record has. */
export async function pictures(record) {
  const { lossCurve } = await curves();
  const { document } = parseHTML("<html><body></body></html>");
  const made = {};
  const curve = (names) => lossCurve(runsOf(record, names).map(({ title, history }) => ({ name: title, history })));
  const titles = { base: "SmolLM2 as it was", ...Object.fromEntries(Object.entries(healings).map(([name, { title }]) => [name, title])) };
  const legend = (names) => names.map((name) => [CLASSES[name], titles[name]]);
  made["healing-loss.svg"] = framed(heldBack(record, document), "What was held back of the text", legend(Object.keys(healings)));
  made["healing-difference.svg"] = framed(
    differences(record, document),
    `Cross entropy in training less that of the Llama on the same tokens, means of ${AVERAGED} steps`,
    legend(DIFFERENTIAL),
  );
  made["healing-beginnings.svg"] = curve(Object.keys(beginnings));
  made["healing-lambda.svg"] = framed(lambdas(record, document), "λ by layer, the mean over heads and tokens", legend(DIFFERENTIAL));
  made["healing-needle.svg"] = framed(
    needles(record, document),
    `The needle task: greedy answers with all five digits, ${measured.needle.draws} prompts a cell`,
    legend(SERIES),
  );
  return made;
}

/** Where they lie. */
export const pictureFile = (name) => join(root, "docs/images", name);
export const readRecord = () => JSON.parse(readFileSync(join(root, "bench/healing/record.json"), "utf8"));

if (isMain(import.meta)) {
  for (const [name, svg] of Object.entries(await pictures(readRecord()))) {
    writeFileSync(pictureFile(name), svg);
    console.log(`drew docs/images/${name}`);
  }
}
