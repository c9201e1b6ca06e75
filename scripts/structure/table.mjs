// The measures of each part of the product as a table. Pure.
import { circles } from "./circles.mjs";

/** The value below which so much of them lies: the nearest rank. */
const rank = (sorted, share) => (sorted.length === 0 ? 0 : sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]);

const percent = (part, whole) => `${part} (${whole === 0 ? 0 : ((100 * part) / whole).toFixed(1)} %)`;

/** The part of the product that a file belongs to. */
const partOf = (path) => path.split("/").slice(0, 2).join("/");

function row(name, files, groups) {
  const lines = files.map(({ lines, test_lines: tests }) => lines - tests).toSorted((a, b) => a - b);
  const functions = files.flatMap(({ functions }) => functions);
  const lengths = functions.map((one) => one.lines).toSorted((a, b) => a - b);
  const sum = (key) => files.reduce((total, file) => total + file[key], 0);
  const more = (key, most) => functions.filter((one) => one[key] > most).length;
  const inCircles = groups.reduce((total, group) => total + group.length, 0);
  return [
    name,
    files.length,
    lines.reduce((total, count) => total + count, 0),
    [rank(lines, 0.5), rank(lines, 0.9), lines.at(-1) ?? 0].join(" / "),
    lines.filter((count) => count > 500).length,
    functions.length,
    [rank(lengths, 0.5), rank(lengths, 0.9), rank(lengths, 0.99), lengths.at(-1) ?? 0].join(" / "),
    percent(more("lines", 60), functions.length),
    more("lines", 80),
    `${more("arguments", 5)} (most ${functions.reduce((most, one) => Math.max(most, one.arguments), 0)})`,
    groups.length === 0 ? "0" : `${groups.length} (${inCircles} files)`,
    sum("unsafe_lines"),
    (sum("comment_lines") / Math.max(1, sum("code_lines"))).toFixed(2),
    files.reduce((total, file) => total + file.long_comments.length, 0),
    sum("test_lines"),
  ];
}

const HEAD = [
  "part",
  "files",
  "lines without tests",
  "median / p90 / max of a file",
  "files > 500",
  "functions",
  "median / p90 / p99 / max of a function",
  "> 60 lines",
  "> 80 lines",
  "> 5 arguments",
  "import circles",
  "lines with `unsafe {`",
  "comment ÷ code",
  "comments > 100 columns",
  "lines of tests within",
];

/** The lines of a Markdown table: a row for each crate and package, and one for all. */
export function table({ files, rust, typescript }) {
  const groups = [...circles(rust), ...circles(typescript)];
  const parts = [...new Set(Object.keys(files).map(partOf))];
  const rows = parts.map((part) => {
    const own = Object.entries(files).filter(([path]) => partOf(path) === part);
    return row(
      part,
      own.map(([, file]) => file),
      groups.filter(([first]) => partOf(first) === part),
    );
  });
  rows.push(row("all", Object.values(files), groups));
  return [HEAD, HEAD.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
}
