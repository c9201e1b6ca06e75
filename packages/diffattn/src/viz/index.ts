// Pictures of attention maps as SVG text, labelled with tokens. Needs no DOM, no backend and no other package; computes
// nothing but colours.

import type { AttentionMaps, Tensor } from "../types.js";
import { STEPS, step } from "./scale.js";

/** What a picture shows of a map, and how. */
export interface DrawOptions {
  /** Batch entry; 0 by default. */
  batch?: number | undefined;
  /** Head; 0 by default. */
  head?: number | undefined;
  /** Half-open range `[first, end)` of the map's rows (queries); all by default. */
  rows?: readonly [number, number] | undefined;
  /** Half-open range `[first, end)` of the map's columns (keys); all by default. */
  columns?: readonly [number, number] | undefined;
  /** The text of every key token, one per column of the whole map; no labels by default. */
  tokens?: readonly string[] | undefined;
  /** The text of every query token, one per row of the whole map; `tokens` by default where the map is square. */
  rowTokens?: readonly string[] | undefined;
  /** The picture's name: its heading, and what a screen reader says first. */
  title?: string | undefined;
  /** What is to be seen, for those who do not see it; by default the shape and the range of the values. */
  description?: string | undefined;
  /** Two hues around zero instead of one from zero; by default whether the part that is drawn holds a negative value. */
  signed?: boolean | undefined;
  /** The value of full colour; by default the largest absolute value that is drawn. Give it to compare pictures. */
  max?: number | undefined;
  /** Pixels of a cell's side, at least 1; 13 by default. Labels are as large as cells allow. */
  cell?: number | undefined;
}

/** Options of {@link drawMaps}. */
export interface DrawMapsOptions extends Omit<DrawOptions, "signed" | "description"> {
  /** Headings of the maps and of their difference, in this order. */
  headings?: readonly string[] | undefined;
}

/** Pixels between parts. */
const GAP = 8;
const HEADING = 15;
const SMALL = 11;
const LEGEND_CELL = 12;
/** Width of a monospaced character over its height; a little more than the widest font's. */
const ADVANCE = 0.62;
/** Characters of a label. */
const LONGEST = 14;

const STYLE = `<style>
.da-page{fill:#fff}.da-text{fill:#1b1f24;font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}.da-heading{font-family:system-ui,sans-serif;font-weight:600}
.da-frame{fill:none;stroke:#8b949e}.da-plus{stroke:#0757b5}.da-minus{stroke:#c2410c}
@media (prefers-color-scheme:dark){.da-page{fill:#0d1117}.da-text{fill:#e6edf3}.da-plus{stroke:#6cb6ff}.da-minus{stroke:#ff9d5c}}
</style>`;

const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.codePointAt(0) ?? 0};`);

/** A token on one short line: what cannot be seen gets a sign. */
function label(token: string): string {
  const seen =
    token.trim() === "" ? token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") : token.trim().replaceAll("\n", "↵");
  const characters = Array.from(seen);
  return escape(characters.length > LONGEST ? `${characters.slice(0, LONGEST - 1).join("")}…` : seen);
}

/** Three figures, without zeros at the end. */
const figure = (value: number): string => String(Number(value.toPrecision(2))).replace("-", "−");

function range(name: string, given: readonly [number, number] | undefined, length: number): readonly [number, number] {
  const [first, end] = given ?? [0, length];
  if (!Number.isInteger(first) || !Number.isInteger(end) || first < 0 || end < first || end > length)
    throw new RangeError(`${name}: expected [first, end) within 0 … ${length}, got [${first}, ${end}]`);
  return [first, end];
}

function index(name: string, given: number | undefined, extent: number): number {
  const value = given ?? 0;
  if (!Number.isInteger(value) || value < 0 || value >= extent)
    throw new RangeError(`${name}: expected an index below ${extent}, got ${value}`);
  return value;
}

interface Panel {
  width: number;
  height: number;
  body: string;
  description: string;
}

function text(x: number, y: number, size: number, content: string, more = "", kind = ""): string {
  return `<text class="da-text${kind}" x="${x}" y="${y}" font-size="${size}"${more}>${content}</text>`;
}

/** One row of boxes, from −max (or 0) to max, with the values under them. */
function legend(x: number, y: number, max: number, signed: boolean): string {
  const first = signed ? -STEPS : 0;
  let body = "";
  for (let level = first; level <= STEPS; level += 1) {
    const left = x + (level - first) * LEGEND_CELL;
    const hue = level < 0 ? "da-minus" : "da-plus";
    const middle = y + LEGEND_CELL / 2;
    if (level !== 0)
      body += `<path class="${hue}" stroke-width="${LEGEND_CELL}" stroke-opacity="${figure(Math.abs(level) / STEPS)}" d="M${left} ${middle}h${LEGEND_CELL}"/>`;
    if (level % (STEPS / 2) === 0) {
      const value = Math.sign(level) * max * (level / STEPS) ** 2;
      body += text(
        left + LEGEND_CELL / 2,
        y + LEGEND_CELL + SMALL + 3,
        SMALL,
        `${level > 0 && signed ? "+" : ""}${figure(value)}`,
        ' text-anchor="middle"',
      );
    }
  }
  return `${body}<rect class="da-frame" x="${x}" y="${y}" width="${(STEPS - first + 1) * LEGEND_CELL}" height="${LEGEND_CELL}"/>`;
}

/** The part of a map that is drawn, and the range of its values and zero. */
function part(map: Tensor, options: DrawOptions) {
  const [batches, heads, queries, keys] = map.shape;
  if (batches === undefined || heads === undefined || queries === undefined || keys === undefined || map.shape.length !== 4)
    throw new RangeError(`map: expected a shape [B, H, rows, Lk], got [${map.shape.join(", ")}]`);
  const [top, bottom] = range("rows", options.rows, queries);
  const [left, right] = range("columns", options.columns, keys);
  const start = (index("batch", options.batch, batches) * heads + index("head", options.head, heads)) * queries * keys;
  const value = (row: number, column: number): number => map.data[start + row * keys + column] ?? 0;
  let lowest = 0;
  let highest = 0;
  for (let row = top; row < bottom; row += 1)
    for (let column = left; column < right; column += 1) {
      lowest = Math.min(lowest, value(row, column));
      highest = Math.max(highest, value(row, column));
    }
  return { queries, keys, top, bottom, left, right, value, lowest, highest };
}

function panel(map: Tensor, options: DrawOptions): Panel {
  const { queries, keys, top, bottom, left, right, value, lowest, highest } = part(map, options);
  const { tokens, rowTokens = queries === keys ? tokens : undefined, cell = 13 } = options;
  if (tokens && tokens.length !== keys) throw new RangeError(`tokens: expected ${keys}, one per key, got ${tokens.length}`);
  if (rowTokens && rowTokens.length !== queries)
    throw new RangeError(`rowTokens: expected ${queries}, one per query, got ${rowTokens.length}`);
  if (!(cell >= 1)) throw new RangeError(`cell: expected 1 pixel or more, got ${cell}`);

  const signed = options.signed ?? lowest < 0;
  const max = options.max ?? (Math.max(highest, -lowest) || 1);
  if (!(max > 0)) throw new RangeError(`max: expected a number above 0, got ${max}`);

  // Cells of one colour are one path: runs along a row, each a line as thick as a cell.
  const paths = new Map<number, string>();
  for (let row = top; row < bottom; row += 1)
    for (let column = left; column < right;) {
      const colour = (v: number): number => (v < 0 && !signed ? 0 : Math.sign(v) * step(v, max));
      const level = colour(value(row, column));
      const first = column;
      while (column < right && colour(value(row, column)) === level) column += 1;
      if (level !== 0 && !Number.isNaN(level)) paths.set(level, `${paths.get(level) ?? ""}M${first - left} ${row - top}h${column - first}`);
    }
  const cells = [...paths]
    .sort(([a], [b]) => a - b)
    .map(
      ([level, d]) => `<path class="${level < 0 ? "da-minus" : "da-plus"}" stroke-opacity="${figure(Math.abs(level) / STEPS)}" d="${d}"/>`,
    )
    .join("");

  const size = Math.min(12, cell * 0.85);
  const rowLabels = rowTokens?.slice(top, bottom).map(label) ?? [];
  const columnLabels = tokens?.slice(left, right).map(label) ?? [];
  // A character reference is one character wide.
  const space = (labels: string[]): number =>
    Math.ceil(Math.max(0, ...labels.map((l) => l.replace(/&#\d+;/g, "x").length)) * size * ADVANCE) + (labels.length ? 5 : 0);
  const x = GAP + space(rowLabels);
  const headingHeight = options.title ? HEADING + GAP : 0;
  const y = GAP + headingHeight + space(columnLabels);
  const width = (right - left) * cell;
  const height = (bottom - top) * cell;
  const legendWidth = (signed ? 2 * STEPS + 1 : STEPS + 1) * LEGEND_CELL;

  let body = options.title ? text(x, GAP + HEADING - 2, HEADING, escape(options.title), "", " da-heading") : "";
  columnLabels.forEach((l, i) => {
    body += text(0, 0, size, l, ` transform="translate(${figureOf(x + (i + 0.5) * cell + size * 0.35)} ${y - 4}) rotate(-90)"`);
  });
  rowLabels.forEach((l, i) => {
    body += text(x - 4, figureOf(y + (i + 0.5) * cell + size * 0.35), size, l, ' text-anchor="end"');
  });
  body += `<g transform="translate(${x} ${y}) scale(${cell}) translate(0 .5)" shape-rendering="crispEdges">${cells}</g>`;
  body += `<rect class="da-frame" x="${x}" y="${y}" width="${width}" height="${height}"/>`;
  body += legend(x, y + height + GAP, max, signed);
  return {
    // The legend's outermost number is half outside of its box.
    width: x + Math.max(width, legendWidth) + 2 * GAP,
    height: y + height + GAP + LEGEND_CELL + SMALL + 2 * GAP,
    body,
    description: `${bottom - top} queries (rows, downwards) by ${right - left} keys (columns); values from ${figure(lowest)} to ${figure(highest)}${signed ? "; one hue for positive values, another for negative ones" : ""}.`,
  };
}

/** A coordinate, to a tenth of a pixel. */
const figureOf = (value: number): number => Math.round(value * 10) / 10;

/** Panels beside each other, as one picture. */
function picture(panels: readonly Panel[], title: string, description: string, headingHeight: number): string {
  const width = Math.ceil(panels.reduce((sum, { width: w }) => sum + w, 0));
  const height = Math.ceil(Math.max(...panels.map((p) => p.height)) + headingHeight);
  let x = 0;
  let body = headingHeight ? text(GAP, GAP + HEADING, HEADING + 2, escape(title), "", " da-heading") : "";
  for (const part of panels) {
    body += `<g transform="translate(${x} ${headingHeight})">${part.body}</g>`;
    x += part.width;
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="${escape(title)}" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
    `<title>${escape(title)}</title><desc>${escape(description)}</desc>${STYLE}<rect class="da-page" width="${width}" height="${height}"/>${body}</svg>\n`
  );
}

/**
 * Draws one head's map as a picture: queries downwards, keys to the right, a legend below. Colours are light on dark where
 * the reader prefers that.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @param map `[B, H, rows, Lk]`, as `diffAttentionMaps` and a layer's `maps` return it.
 * @returns An SVG document, fit for a file or for `innerHTML`.
 * @throws RangeError for a head, a range or a number of tokens that does not fit the map.
 */
export function drawMap(map: Tensor, options: DrawOptions = {}): string {
  const one = panel(map, options);
  return picture([one], options.title ?? "Attention map", options.description ?? one.description, 0);
}

/**
 * Draws all maps of one head beside each other: each term's in one hue, the difference in two, for its sign. They share
 * one scale: `max`, or the largest absolute value among them.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @param maps As `diffAttentionMaps` and a layer's `maps` return them.
 * @returns An SVG document, fit for a file or for `innerHTML`.
 * @throws RangeError for a head, a range or a number of tokens that does not fit the maps.
 */
export function drawMaps(maps: AttentionMaps, options: DrawMapsOptions = {}): string {
  const terms = maps.maps ?? [maps.map1, maps.map2].filter((map) => map !== undefined);
  const { headings = [...terms.map((_, i) => `map ${i + 1}`), "difference"], title, ...rest } = options;
  const all = [...terms, maps.diff];
  const max = options.max ?? (Math.max(...all.map((map) => part(map, rest)).map(({ lowest, highest }) => Math.max(highest, -lowest))) || 1);
  const panels = all.map((map, i) => panel(map, { ...rest, max, title: headings[i], signed: i === terms.length }));
  const description = panels.map((p, i) => `${headings[i] ?? ""}: ${p.description}`).join(" ");
  return picture(panels, title ?? "Attention maps", description, title ? HEADING + 2 * GAP : 0);
}
