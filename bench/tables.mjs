// Rows as text: the table of figures and the table of all that was measured. Pure.

const pad = (text, width, right) => (right ? text.padStart(width) : text.padEnd(width));

/** Lines of a table; `columns` are [heading, "left" | "right"]. */
export function table(columns, rows) {
  const all = [columns.map(([heading]) => heading), ...rows];
  const widths = columns.map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const lines = all.map((row) =>
    row
      .map((text, i) => pad(text, widths[i], columns[i][1] === "right"))
      .join("  ")
      .trimEnd(),
  );
  return [lines[0], widths.map((width) => "-".repeat(width)).join("  "), ...lines.slice(1)];
}

export function figureTable(rows) {
  const number = (value, { digits, unit }) => `${value.toFixed(digits)}${unit ? ` ${unit}` : ""}`;
  return table(
    [
      ["#", "left"],
      ["what", "left"],
      ["target", "right"],
      ["measured", "right"],
      ["", "left"],
    ],
    rows.map((row) => [
      row.id,
      row.what,
      row.least === undefined ? `≤ ${row.most}` : `≥ ${row.least}`,
      row.value === undefined ? "–" : number(row.value, row),
      [row.verdict, row.note && `(${row.note})`].filter(Boolean).join(" "),
    ]),
  );
}

const giga = (rate) => (rate / 1e9).toFixed(rate < 1e10 ? 2 : 1);

/** The share of its limit that an entrant reached, where it has one in its group. */
export function shareOf(one, group) {
  const limit = group.find(({ as, rate }) => as === one.of && rate);
  return limit && one.rate && !one.error ? one.rate / limit.rate : undefined;
}

/** What an entrant did per second, or took of memory. */
function amount({ kind, what, unit, rate, bytes }) {
  if (kind === "scratch") return bytes === undefined ? "" : `${(bytes / 1e6).toFixed(1)} MB`;
  if (unit === "token") return rate === undefined ? "" : `${rate.toFixed(0)} tokens/s`;
  if (unit === "second") return rate === undefined ? "" : `${rate.toFixed(2)} × real time`;
  const countsFlops = kind === "limit" ? what === "fma" : unit === "FLOP";
  return rate === undefined ? "" : `${giga(rate)} ${countsFlops ? "GFLOP/s" : "GB/s"}`;
}

export function measurementTable(groups) {
  const rows = [...groups].flatMap(([, group]) =>
    group.map((one) => {
      const share = shareOf(one, group);
      return [
        one.case ?? `(limit: ${one.what})`,
        one.subject,
        one.variant ?? "",
        one.isa ?? "",
        String(one.threads),
        one.seconds ? (one.seconds.median * 1000).toPrecision(4) : "",
        amount(one),
        share === undefined ? "" : share.toFixed(3),
        one.answerError === undefined ? "" : one.answerError.toExponential(0),
        String(one.runs),
        [one.error && `failed: ${one.error}`, one.note].filter(Boolean).join("; "),
      ];
    }),
  );
  const headings = ["case", "subject", "variant", "isa", "threads", "ms", "rate", "share", "error", "runs", ""];
  return table(
    headings.map((heading, i) => [heading, i >= 4 && i <= 9 ? "right" : "left"]),
    rows,
  );
}
