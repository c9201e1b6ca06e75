// The page that run-layer.mjs writes: self-contained HTML, no script. Knows nothing of how its numbers were made.

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.codePointAt(0)};`);

const style = `
:root{color-scheme:light dark;--page:#fff;--text:#1b1f24;--line:#d0d7de}
@media (prefers-color-scheme:dark){:root{--page:#0d1117;--text:#e6edf3;--line:#30363d}}
body{background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem;max-width:100rem}
pre,.scroll{border:1px solid var(--line);border-radius:6px;overflow:auto}pre{padding:1rem;white-space:pre-wrap}
table{border-collapse:collapse}th,td{border-bottom:1px solid var(--line);padding:.3rem .8rem;text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}
.scroll{max-height:90vh}.scroll svg{display:block;width:100%;height:auto}.full:checked~.scroll svg{width:auto;max-width:none}`;

/** The whole page as text. */
export function layerPage({ sample, results, pictures, tolerance }) {
  const rows = results.map(
    ({ info, node, milliseconds, error, mapError }) =>
      `<tr><td>${escape(info.backend)}</td><td>${escape(info.isa)}</td><td class="n">${info.threads}</td><td>${escape(node)}</td>` +
      `<td class="n">${milliseconds.toFixed(2)} ms</td><td class="n">${error.toExponential(1)}</td><td class="n">${mapError.toExponential(1)}</td>` +
      `<td>${escape(info.notes.join("; "))}</td></tr>`,
  );
  const heads = pictures.map(
    ({ title, svg }, i) =>
      `<section><h2>${escape(title)}</h2><input type="checkbox" class="full" id="full-${i}"> <label for="full-${i}">full size, to read the tokens</label>` +
      // A region that scrolls must be reachable by keyboard.
      `<div class="scroll" tabindex="0" role="region" aria-label="${escape(title)}">${svg}</div></section>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>What a trained layer attends to</title>
<style>${style}</style></head><body>
<h1>What a trained layer attends to</h1>
<p>One differential attention layer (depth ${sample.depth}, ${sample.num_heads} heads) of a small language model trained on the documentation of the Rust
project, on a paragraph it has not seen. Each head makes two maps; what it reads is the first minus λ = ${sample.lambda.toFixed(3)} times the second. Rows
are the tokens that look, columns those that are looked at.</p>
<pre>${escape(sample.text)}</pre>
<table><caption>The same layer on each backend; errors are the largest, against float64, and at most ${tolerance} is right</caption>
<thead><tr><th>backend</th><th>instruction set</th><th>threads</th><th>Node</th><th>time</th><th>error in y</th><th>error in the maps</th><th>notes</th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table>
${heads.join("\n")}
</body></html>
`;
}
