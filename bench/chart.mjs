// The chart of the README: useful GFLOP/s of ours and of each peer's best variant, beside the peak.
// Draws what run.mjs measured.
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

/** Groups of plan.mjs that are drawn: the entrants of ours and the limit's name. */
const PARTS = [
  { group: "beside peers", title: "Node, native, 2048 tokens", ours: ["package"] },
  { group: "WebAssembly, short", title: "WebAssembly, 512 tokens", ours: ["relaxed", "simd128"] },
];

/** Bars of a part: ours, then the best variant of each peer, fastest first. */
function bars(entrants, ours) {
  const measured = entrants.filter(({ kind, rate, error }) => kind === "run" && rate && !error);
  const best = new Map();
  for (const one of measured.filter(({ peer }) => peer)) if (!(best.get(one.subject)?.rate > one.rate)) best.set(one.subject, one);
  return [...measured.filter(({ as, peer }) => !peer && ours.includes(as)), ...best.values()]
    .sort((a, b) => b.rate - a.rate)
    .map(({ subject, rate, peer }) => ({ name: NAMES[subject] ?? subject, rate: rate / 1e9, isOurs: !peer }));
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

/** SVG text. */
export function chart(groups, { cpu, date }) {
  const { document } = parseHTML("<html><body></body></html>");
  const parts = PARTS.map(({ group, title, ours }) => {
    const entrants = groups.get(group) ?? [];
    const limit = entrants.filter(({ kind, what, rate }) => kind === "limit" && what === "fma" && rate).map(({ rate }) => rate / 1e9);
    return { title, data: bars(entrants, ours), peak: limit.length > 0 ? Math.max(...limit) : undefined };
  }).filter(({ data }) => data.length > 0);
  let top = 48;
  const bodies = parts.map((one) => {
    const most = Math.max(one.peak ?? 0, ...one.data.map(({ rate }) => rate)) * 1.02;
    const { svg, height } = part(one, document, most);
    svg.setAttribute("y", String(top));
    top += height;
    return svg.outerHTML;
  });
  const line = (y, text) => `<text x="10" y="${y}" fill="currentColor" font-family="system-ui,sans-serif" font-size="13">${text}</text>`;
  const what = "Causal differential attention, 8 heads, d 64, dv 128, float32, one thread: useful GFLOP/s";
  const heading = line(18, what) + line(35, `on ${cpu}, ${date}`);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${top}" viewBox="0 0 ${WIDTH} ${top}">${STYLE}${heading}${bodies.join("")}</svg>\n`;
}
