// The chart of the README: useful GFLOP/s of ours and of each peer's best variant, beside the peak,
// on each machine of which there is a record. Draws what record.mjs reads.
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

const NAMES = {
  package: "diffattn",
  "wasm-newer": "diffattn, relaxed SIMD",
  "wasm-oldest": "diffattn, simd128",
  "pytorch-cpu": "PyTorch",
};

const WIDTH = 720;
const ROW = 22;

/** What of each record is drawn: a group of plan.mjs, its case, and which subjects are ours. */
const PARTS = [
  { group: "beside peers", test: "causal-2048", title: "Node, native, 2048 tokens", ours: ["package"], hidden: ["crate"] },
  { group: "WebAssembly, short", test: "causal-512", title: "WebAssembly, 512 tokens", ours: ["wasm-newer", "wasm-oldest"], hidden: [] },
];

/** Bars of a part: ours and the best variant of each peer, fastest first; and the peak. */
function measured(rows, { group, test, ours, hidden }) {
  const there = rows.filter((row) => row.group === group && row.per_second && !row.remark.startsWith("failed"));
  const best = new Map();
  for (const row of there.filter((row) => row.what === "run" && row.case === test && !hidden.includes(row.subject))) {
    const rate = Number(row.per_second) / 1e9;
    if (!(best.get(row.subject) > rate)) best.set(row.subject, rate);
  }
  const data = [...best].map(([subject, rate]) => ({ name: NAMES[subject] ?? subject, rate, isOurs: ours.includes(subject) }));
  const peaks = there.filter(({ what }) => what === "limit fma").map((row) => Number(row.per_second) / 1e9);
  return { data: data.sort((a, b) => b.rate - a.rate), peak: peaks.length > 0 ? Math.max(...peaks) : undefined };
}

const STYLE = `<style>
svg{background:#fff;color:#1b1f24}.ours{fill:#0757b5}.peer{fill:#8b949e}
@media (prefers-color-scheme:dark){svg{background:#0d1117;color:#e6edf3}.ours{fill:#6cb6ff}.peer{fill:#6e7681}}
</style>`;

function part({ title, data, peak }, document, most) {
  const svg = Plot.plot({
    document,
    width: WIDTH,
    height: 56 + ROW * data.length,
    marginLeft: 170,
    marginRight: 60,
    marginTop: 34,
    marginBottom: 22,
    x: { domain: [0, most], label: null, ticks: 6, axis: "bottom" },
    y: { domain: data.map(({ name }) => name), label: null, padding: 0.2 },
    marks: [
      Plot.barX(
        data.filter(({ isOurs }) => isOurs),
        { x: "rate", y: "name", className: "ours", fill: null },
      ),
      Plot.barX(
        data.filter(({ isOurs }) => !isOurs),
        { x: "rate", y: "name", className: "peer", fill: null },
      ),
      Plot.text(data, { x: "rate", y: "name", text: ({ rate }) => rate.toFixed(1), dx: 4, textAnchor: "start" }),
      ...(peak
        ? [
            Plot.ruleX([peak], { strokeDasharray: "3 3" }),
            Plot.text([`FMA peak ${peak.toFixed(1)}`], { x: peak, frameAnchor: "top", dy: -14 }),
          ]
        : []),
      Plot.text([title], { frameAnchor: "top-left", dx: -160, dy: -26, fontWeight: "bold", fontSize: 13 }),
    ],
  });
  return { svg, height: 56 + ROW * data.length };
}

const line = (y, text, weight = "normal") =>
  `<text x="10" y="${y}" fill="currentColor" font-family="system-ui,sans-serif" font-size="13" font-weight="${weight}">${text}</text>`;

/** SVG text, of records as record.mjs reads them, one below the other. */
export function chart(records) {
  const { document } = parseHTML("<html><body></body></html>");
  const what = "Causal differential attention, 8 heads, d 64, dv 128, float32, one thread: useful GFLOP/s";
  const bodies = [line(18, what)];
  let top = 30;
  for (const { name, date, rows } of records) {
    const parts = PARTS.map((part) => ({ title: part.title, ...measured(rows, part) })).filter(({ data }) => data.length > 0);
    bodies.push(line(top + 18, `${name}, ${date}`, "bold"));
    top += 30;
    for (const one of parts) {
      const most = Math.max(one.peak ?? 0, ...one.data.map(({ rate }) => rate)) * 1.02;
      const { svg, height } = part(one, document, most);
      svg.setAttribute("y", String(top));
      top += height;
      bodies.push(svg.outerHTML);
    }
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${top}" viewBox="0 0 ${WIDTH} ${top}">${STYLE}${bodies.join("")}</svg>\n`;
}
