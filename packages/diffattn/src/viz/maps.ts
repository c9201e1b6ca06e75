// Whole maps as matrices of coloured cells, labelled with tokens.

import type { AttentionMaps, Tensor } from "../types.js";
import { cellOf, checkFlag, checkText, checkTexts, checkTokens, LOOK, optionsOf, PART } from "./options.js";
import { headingsOf, part, type PartOptions, scaleOf, termsOf } from "./part.js";
import {
  ADVANCE,
  figure,
  figureOf,
  GAP,
  HEADING,
  label,
  largest,
  legend,
  LEGEND_HEIGHT,
  legendWidth,
  type LookOptions,
  opacity,
  type Panel,
  picture,
  step,
  text,
  widthOf,
} from "./svg.js";

/** What a picture shows of a map, and how. */
export interface DrawOptions extends PartOptions, LookOptions {
  /** The text of every key token, one per column of the whole map; no labels by default. */
  tokens?: readonly string[] | undefined;
  /**
   * The text of every query token, one per row of the whole map; `tokens` by default where the map
   * is square.
   */
  rowTokens?: readonly string[] | undefined;
  /** The picture's name: its heading, and what a screen reader says first. */
  title?: string | undefined;
  /**
   * What is to be seen, for those who do not see it; by default the shape and the range of the
   * values.
   */
  description?: string | undefined;
  /**
   * Two hues around zero instead of one from zero; by default whether the part that is drawn holds
   * a negative value.
   */
  signed?: boolean | undefined;
  /**
   * The value of full colour; by default the largest absolute value that is drawn. Give it to
   * compare pictures.
   */
  max?: number | undefined;
  /** Pixels of a cell's side, 1 to 1000; 13 by default. Labels are as large as cells allow. */
  cell?: number | undefined;
}

/** Options of {@link drawMaps}. */
export interface DrawMapsOptions extends Omit<DrawOptions, "signed" | "description"> {
  /** Headings of the maps and of their difference, in this order. */
  headings?: readonly string[] | undefined;
}

const BOTH = [...PART, ...LOOK, "tokens", "rowTokens", "title", "max", "cell"] as const;

function panel(map: Tensor, options: DrawOptions): Panel {
  const drawn = part(map, options);
  const { queries, keys, top, bottom, left, right, value, lowest, highest } = drawn;
  const { tokens, rowTokens = queries === keys ? tokens : undefined } = options;
  const cell = cellOf(options.cell ?? 13);
  checkTokens("tokens", tokens, keys, "key");
  checkTokens("rowTokens", rowTokens, queries, "query");
  for (const name of ["title", "description"] as const) checkText(name, options[name]);
  checkFlag("signed", options.signed);

  const signed = options.signed ?? lowest < 0;
  const max = scaleOf([drawn], options.max);

  // Cells of one colour are one path: runs along a row, each a line as thick as a cell.
  const paths = new Map<number, string>();
  for (let row = top; row < bottom; row += 1)
    for (let column = left; column < right;) {
      const colour = (v: number): number => (v < 0 && !signed ? 0 : Math.sign(v) * step(v, max));
      const level = colour(value(row, column));
      const first = column;
      while (column < right && colour(value(row, column)) === level) column += 1;
      // NaN is not even itself.
      if (first === column) column += 1;
      else if (level !== 0) paths.set(level, `${paths.get(level) ?? ""}M${first - left} ${row - top}h${column - first}`);
    }
  const cells = [...paths]
    .sort(([a], [b]) => a - b)
    .map(([level, d]) => `<path class="${level < 0 ? "da-minus" : "da-plus"}" stroke-opacity="${opacity(level)}" d="${d}"/>`)
    .join("");

  const size = Math.min(12, cell * 0.85);
  const rowLabels = rowTokens?.slice(top, bottom).map(label) ?? [];
  const columnLabels = tokens?.slice(left, right).map(label) ?? [];
  const space = (labels: string[]): number => Math.ceil(largest(labels.map(widthOf)) * size * ADVANCE) + (labels.length ? 5 : 0);
  const x = GAP + space(rowLabels);
  const headingHeight = options.title ? HEADING + GAP : 0;
  const y = GAP + headingHeight + space(columnLabels);
  const width = (right - left) * cell;
  const height = (bottom - top) * cell;

  let body = options.title ? text(x, GAP + HEADING - 2, HEADING, options.title, { kind: " da-heading" }) : "";
  columnLabels.forEach((l, i) => {
    body += text(0, 0, size, l, { more: ` transform="translate(${figureOf(x + (i + 0.5) * cell + size * 0.35)} ${y - 4}) rotate(-90)"` });
  });
  rowLabels.forEach((l, i) => {
    body += text(x - 4, figureOf(y + (i + 0.5) * cell + size * 0.35), size, l, { more: ' text-anchor="end"' });
  });
  body += `<g transform="translate(${x} ${y}) scale(${cell}) translate(0 .5)" shape-rendering="crispEdges">${cells}</g>`;
  body += `<rect class="da-frame" x="${x}" y="${y}" width="${width}" height="${height}"/>`;
  body += legend(x, y + height + GAP, max, signed);
  return {
    // The legend's outermost number is half outside of its box.
    width: x + Math.max(width, legendWidth(signed)) + 2 * GAP,
    height: y + height + GAP + LEGEND_HEIGHT + GAP,
    body,
    description: `${bottom - top} queries (rows, downwards) by ${right - left} keys (columns); values from ${figure(lowest)} to ${figure(highest)}${signed ? "; one hue for positive values, another for negative ones" : ""}.`,
  };
}

/**
 * Draws one head's map as a picture: queries downwards, keys to the right, a legend below. Colours
 * are light on dark where the reader prefers that.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @param map `[B, H, rows, Lk]`, as `diffAttentionMaps` and a layer's `maps` return it.
 * @returns An SVG document, fit for a file or for `innerHTML`.
 * @throws {DiffAttnError} OPTION for an option that is none, or does not fit the map: a head, a
 *   range, a number of tokens, a size;
 * SHAPE and DTYPE for what is no map. (It is a `RangeError` too.)
 */
export function drawMap(map: Tensor, options: DrawOptions = {}): string {
  const given = optionsOf(options, [...BOTH, "description", "signed"]);
  const one = panel(map, given);
  return picture([one], given.title ?? "Attention map", given.description ?? one.description, 0, given);
}

/**
 * Draws all maps of one head beside each other: each term's in one hue, the difference in two, for
 * its sign. They share one scale: `max`, or the largest absolute value among them.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @param maps As `diffAttentionMaps` and a layer's `maps` return them.
 * @returns An SVG document, fit for a file or for `innerHTML`.
 * @throws {DiffAttnError} as {@link drawMap}.
 */
export function drawMaps(maps: AttentionMaps, options: DrawMapsOptions = {}): string {
  const given = optionsOf(options, [...BOTH, "headings"]);
  const terms = termsOf(maps);
  const { headings = headingsOf(terms.length), title, ...rest } = given;
  checkTexts("headings", headings);
  checkText("title", title);
  const all = [...terms, maps.diff];
  const max = scaleOf(
    all.map((map) => part(map, rest)),
    given.max,
  );
  const panels = all.map((map, i) => panel(map, { ...rest, max, title: headings[i], signed: i === terms.length }));
  const description = panels.map((p, i) => `${headings[i] ?? ""}: ${p.description}`).join(" ");
  return picture(panels, title ?? "Attention maps", description, title ? HEADING + 2 * GAP : 0, given);
}
