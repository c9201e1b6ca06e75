// What one token attends to: a row of every map, written over the tokens themselves.

import type { AttentionMaps } from "../types.js";
import { escape } from "./markup.js";
import { checkText, checkTexts, checkTokens, extentOf, integer, LOOK, optionsOf, PART, wrong } from "./options.js";
import { headingsOf, type Part, part, type PartOptions, scaleOf, termsOf } from "./part.js";
import {
  ADVANCE,
  bar,
  figure,
  GAP,
  HEADING,
  label,
  legend,
  LEGEND_HEIGHT,
  legendWidth,
  type LookOptions,
  picture,
  step,
  text,
  widthOf,
} from "./svg.js";

/** Which row is meant. */
export interface RowOptions extends Omit<PartOptions, "rows"> {
  /** The query: a row of the maps. */
  query: number;
}

/** What a token attends to. */
export interface AttentionRow {
  readonly query: number;
  /** The keys that are meant, half-open; without `columns` up to the last that any map weighs. */
  readonly columns: readonly [number, number];
  /** The weight of every such key in each term's map; the first is the signal. */
  readonly terms: readonly (readonly number[])[];
  /** The weight of every such key in the difference of the maps, with its sign. */
  readonly diff: readonly number[];
  /** The largest absolute value. */
  readonly max: number;
}

/**
 * One query's row of every map, as numbers.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @throws {DiffAttnError} OPTION for an option that is none, or does not fit the maps; SHAPE and
 *   DTYPE for what are no maps. (It is a
 * `RangeError` too.)
 */
export function attentionRow(maps: AttentionMaps, options: RowOptions): AttentionRow {
  return rowOf(maps, optionsOf(options, ROW));
}

const ROW = [...PART.filter((name) => name !== "rows"), "query"] as const;

function rowOf(maps: AttentionMaps, options: RowOptions): AttentionRow {
  const all = [...termsOf(maps), maps.diff];
  const count = maps.diff.shape[2] ?? 0;
  const query = integer("query", options.query, 0, count, `an index below ${count}`);
  const { batch, head, columns } = options;
  const rows: Part[] = all.map((map) => part(map, { batch, head, columns, rows: [query, query + 1] }));
  let right = rows[0]?.right ?? 0;
  const left = rows[0]?.left ?? 0;
  if (!columns) while (right > left + 1 && rows.every(({ value }) => value(query, right - 1) === 0)) right -= 1;
  const values = rows.map(({ value }) => Array.from({ length: right - left }, (_, i) => value(query, left + i)));
  return { query, columns: [left, right], terms: values.slice(0, -1), diff: values.at(-1) ?? [], max: scaleOf(rows, undefined) };
}

/** Options of {@link drawRow}. */
export interface DrawRowOptions extends RowOptions, LookOptions {
  /** The text of every key token, one per column of the whole map. */
  tokens: readonly string[];
  /** The picture's name. */
  title?: string | undefined;
  /** Headings of the maps and of their difference, in this order. */
  headings?: readonly string[] | undefined;
  /** The value of full colour; by default the row's largest absolute value. */
  max?: number | undefined;
  /** Pixels across, 120 to 100,000; 640 by default. Tokens go on in the next line. */
  width?: number | undefined;
}

const SIZE = 13;
const BAR = 6;
const LINE = SIZE + BAR + 10;

/**
 * Draws what one token attends to: for each map and for the difference the tokens in reading order,
 * each over a bar whose colour is its weight; two hues in the difference, for its sign. One scale
 * for all.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @returns An SVG document, fit for a file or for `innerHTML`.
 * @throws {DiffAttnError} as {@link attentionRow}; OPTION for a number of tokens that does not fit
 *   the maps, or a size.
 */
export function drawRow(maps: AttentionMaps, options: DrawRowOptions): string {
  const given = optionsOf(options, [...ROW, ...LOOK, "tokens", "title", "headings", "max", "width"]);
  const { tokens, title, query } = given;
  const row = rowOf(maps, given);
  const { headings = headingsOf(row.terms.length) } = given;
  if (!Array.isArray(tokens)) wrong("tokens", "texts in an array", tokens);
  checkTokens("tokens", tokens, maps.diff.shape[3] ?? 0, "key");
  checkTexts("headings", headings);
  checkText("title", title);
  const width = extentOf("width", given.width ?? 640, 120);
  const max = scaleOf([{ lowest: -row.max, highest: row.max }], given.max);
  const [left, right] = row.columns;
  const labels = tokens.slice(left, right).map(label);

  let y = GAP;
  let body = "";
  if (title) {
    body += text(GAP, y + HEADING, HEADING + 1, title, { kind: " da-heading" });
    y += HEADING + 2 * GAP;
  }
  [...row.terms, row.diff].forEach((values, i) => {
    body += text(GAP, y + HEADING - 3, SIZE, headings[i] ?? "", { kind: " da-heading" });
    y += HEADING + 4;
    let x = GAP;
    labels.forEach((l, k) => {
      const value = values[k] ?? 0;
      const across = Math.max(1, widthOf(l)) * SIZE * ADVANCE + 4;
      if (x > GAP && x + across > width - GAP) {
        x = GAP;
        y += LINE;
      }
      const name = `${l}: ${figure(value)}`;
      body += `<g><title>${escape(name)}</title>${text(Math.round(x), y + SIZE, SIZE, l)}${bar(Math.sign(value) * step(value, max), Math.round(x), y + SIZE + 4 + BAR / 2, Math.round(across - 3), BAR)}</g>`;
      x += across;
    });
    y += LINE + GAP;
  });
  const signed = legendWidth(true) + 2 * GAP <= width;
  // Where there is no room for both hues the positive one speaks for both.
  body += legend(GAP + SIZE, y, max, signed);
  y += LEGEND_HEIGHT + GAP;

  const strongest = row.diff
    .map((value, k) => ({ value, token: label(tokens[left + k] ?? "") }))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .slice(0, 5)
    .map(({ value, token }) => `${token} ${figure(value)}`);
  const name = title ?? `What token ${query} attends to`;
  const description = `Tokens ${left} to ${right - 1}. The difference weighs most: ${strongest.join(", ")}.`;
  return picture([{ width: Math.max(width, legendWidth(signed) + 2 * GAP), height: y, body, description }], name, description, 0, given);
}
