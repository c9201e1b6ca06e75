// A page of pictures: one HTML file, no script, nothing loaded. Knows nothing of what the pictures
// show.

import { escape } from "../viz/markup.js";

const STYLE = `
:root{color-scheme:light dark;--page:#fff;--text:#1b1f24;--line:#d0d7de}
@media (prefers-color-scheme:dark){:root{--page:#0d1117;--text:#e6edf3;--line:#30363d}}
body{background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem;max-width:100rem}
pre,.scroll{border:1px solid var(--line);border-radius:6px;overflow:auto}pre{padding:1rem;white-space:pre-wrap}
.scroll svg{display:block}`;

export interface Page {
  title: string;
  /** What the pictures are of, as it is. */
  subject: string;
  /** Sentences under the heading. */
  remarks: readonly string[];
  pictures: readonly { title: string; svg: string }[];
}

/** (HTML takes the first line end of a `pre` for its own.) */
export function pageOf({ title, subject, remarks, pictures }: Page): string {
  const sections = pictures.map(({ title, svg }) => `<h2>${escape(title)}</h2>\n<div class="scroll">${svg.trim()}</div>`);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title><style>${STYLE}
</style></head><body>
<h1>${escape(title)}</h1>
<pre>${subject.startsWith("\n") ? "\n" : ""}${escape(subject)}</pre>
${remarks.map((remark) => `<p>${escape(remark)}</p>`).join("\n")}
${sections.join("\n")}
</body></html>
`;
}
