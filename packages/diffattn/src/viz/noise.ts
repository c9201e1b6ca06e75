// How much attention falls on tokens that do not matter, before and after the subtraction.

import type { AttentionMaps, Tensor } from "../types.js";
import { checkNoise, checkText, checkTexts, extentOf, integer, LOOK, optionsOf, wrong } from "./options.js";
import { headingsOf, part, type PartOptions, termsOf } from "./part.js";
import { figure, figureOf, GAP, HEADING, label, type LookOptions, picture, SMALL, largest, text, widthOf, ADVANCE } from "./svg.js";

/** Options of {@link attentionNoise}. */
export interface NoiseOptions extends Omit<PartOptions, "columns"> {
  /**
   * The keys that matter, for every query and the same for all maps: those of an answer in its
   * context.
   */
  relevant?: readonly number[] | undefined;
  /**
   * Without `relevant`: how many keys of a row count, those that its terms weigh most together; 8
   * by default.
   */
  keep?: number | undefined;
}

/** What {@link attentionNoise} found; shares from 0 to 1, one per query. */
export interface AttentionNoise {
  /** Half-open range of the queries. */
  readonly rows: readonly [number, number];
  /** Of each term's map; the first is the signal, what attention without a difference would be. */
  readonly terms: readonly (readonly number[])[];
  /** Of the difference. */
  readonly diff: readonly number[];
  /** What counted as relevant. */
  readonly relevant: readonly number[] | { readonly keep: number };
}

/**
 * Attention noise: the share of a row's attention that falls on keys that do not matter,
 *
 *     noise(a) = Σ_{k ∉ R} |a_k| / Σ_k |a_k|
 *
 * for the row `a` of each map and of the difference; R is the same for all of them. With
 * `relevant`, R are the keys of an answer in its context, and the rows those of the question: what
 * arXiv 2410.05258 compares in its table of attention to answer and noise (key information
 * retrieval). {@link summarizeNoise} sets a head beside all others.
 *
 * Where nobody can say what matters, R are the `keep` keys of a row that its terms weigh most
 * together (the sum of their sizes): no map is judged by its own choice. The share beside them says
 * how widely a head spreads its attention, not how much of it is noise.
 *
 * A weight below zero counts by its size, as it moves the result as much. A row without any weight
 * has no noise: 0. So has one that sees no more than `keep` keys.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @throws {DiffAttnError} OPTION for an option that is none, or does not fit the maps; SHAPE and
 *   DTYPE for what are no maps. (It is a
 * `RangeError` too.)
 */
export function attentionNoise(maps: AttentionMaps, options: NoiseOptions = {}): AttentionNoise {
  const given = optionsOf(options, ["batch", "head", "rows", "relevant", "keep"]);
  const { relevant, keep = 8 } = given;
  const terms = termsOf(maps);
  const whole = part(maps.diff, given);
  integer("keep", keep, 1, Infinity, "an integer of 1 or more");
  if (relevant !== undefined && !Array.isArray(relevant)) wrong("relevant", "keys in an array", relevant);
  for (const key of relevant ?? []) integer("relevant", key, 0, whole.keys, `keys below ${whole.keys}`);
  const matters = relevant && new Set(relevant);

  const all = terms.map((map) => part(map, given));
  /** What counts in a row. */
  const countsIn = (row: number): ReadonlySet<number> => {
    if (matters) return matters;
    const together = Float64Array.from({ length: whole.keys }, (_, k) => all.reduce((sum, { value }) => sum + Math.abs(value(row, k)), 0));
    const strongest = Array.from(together.keys()).sort((a, b) => (together[b] ?? 0) - (together[a] ?? 0));
    return new Set(strongest.slice(0, keep));
  };
  const counted = Array.from({ length: whole.bottom - whole.top }, (_, i) => countsIn(whole.top + i));
  const noiseOf = (map: Tensor): number[] => {
    const { top, keys, value } = part(map, given);
    return counted.map((counts, i) => {
      let within = 0;
      let beside = 0;
      for (let k = 0; k < keys; k += 1) {
        const weight = Math.abs(value(top + i, k));
        if (counts.has(k)) within += weight;
        else beside += weight;
      }
      const total = within + beside;
      return total > 0 ? beside / total : 0;
    });
  };
  return {
    rows: [whole.top, whole.bottom],
    terms: terms.map(noiseOf),
    diff: noiseOf(maps.diff),
    relevant: relevant ?? { keep },
  };
}

/** Options of {@link drawNoise}. */
export interface DrawNoiseOptions extends LookOptions {
  /** The text of every query token, one per row of the whole map; shown where there is room. */
  tokens?: readonly string[] | undefined;
  /** The picture's name. */
  title?: string | undefined;
  /** Pixels across, 160 to 100,000; 640 by default. */
  width?: number | undefined;
  /** Pixels of the plot's height, 40 to 100,000; 160 by default. */
  height?: number | undefined;
  /** A query that is marked. */
  query?: number | undefined;
}

const TICKS = [0, 0.25, 0.5, 0.75, 1];
/** Room for "100 %". */
const AXIS = 40;

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
/** To a tenth. */
const percent = (value: number): string => `${Number((value * 100).toFixed(1))} %`;

/**
 * Draws the noise of the first map and of the difference over the queries: a dashed line and a
 * plain one.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @returns An SVG document, fit for a file or for `innerHTML`.
 * @throws {DiffAttnError} OPTION for an option that is none, a size, or what `attentionNoise` did
 *   not give. (It is a `RangeError` too.)
 */
export function drawNoise(noise: AttentionNoise, options: DrawNoiseOptions = {}): string {
  const { title, tokens, query, theme, styled, ...size } = optionsOf(options, [...LOOK, "title", "tokens", "query", "width", "height"]);
  checkNoise(noise);
  checkText("title", title);
  checkTexts("tokens", tokens);
  if (query !== undefined) integer("query", query, 0, Infinity, "an index");
  const width = extentOf("width", size.width ?? 640, 160);
  const height = extentOf("height", size.height ?? 160, 40);
  const [first, end] = noise.rows;
  const count = end - first;
  const plot = width - AXIS - 2 * GAP;
  const x = (i: number): number => figureOf(AXIS + (count > 1 ? (i / (count - 1)) * plot : plot / 2));
  const headings = headingsOf(noise.terms.length);
  const lines = [
    { name: headings[0] ?? "", values: noise.terms[0] ?? [], kind: "da-minus da-dash" },
    { name: headings.at(-1) ?? "", values: noise.diff, kind: "da-plus" },
  ].map((line) => ({ ...line, label: `${line.name} (mean ${percent(mean(line.values))})` }));

  let top = GAP;
  let body = "";
  if (title) {
    body += text(GAP, top + HEADING, HEADING + 1, title, { kind: " da-heading" });
    top += HEADING + 2 * GAP;
  }
  // Each line's sample and name, below each other where they do not fit side by side.
  let left = AXIS;
  for (const line of lines) {
    const across = 32 + widthOf(line.label) * SMALL * ADVANCE + 2 * GAP;
    if (left > AXIS && left + across > width) {
      left = AXIS;
      top += SMALL + GAP;
    }
    body += `<path class="da-line ${line.kind}" d="M${left} ${top + SMALL - 4}h26"/>${text(left + 32, top + SMALL, SMALL, line.label)}`;
    left += across;
  }
  top += SMALL + 2 * GAP;
  const y = (value: number): number => figureOf(top + (1 - value) * height);
  for (const tick of TICKS) {
    body += `<path class="da-frame" stroke-opacity="${tick === 0 ? 1 : 0.35}" d="M${AXIS} ${y(tick)}h${plot}"/>`;
    body += text(AXIS - 5, y(tick) + 4, SMALL, percent(tick), { more: ' text-anchor="end"' });
  }
  if (query !== undefined && query >= first && query < end) body += `<path class="da-frame" d="M${x(query - first)} ${top}v${height}"/>`;
  for (const { values, kind } of lines)
    body += `<path class="da-line ${kind}" d="${values.map((value, i) => `${i === 0 ? "M" : "L"}${x(i)} ${y(value)}`).join("")}"/>`;

  // As many tokens as there is room for.
  const under = top + height + GAP;
  const every = Math.max(1, Math.ceil((count * (SMALL + 3)) / plot));
  const shown = Array.from({ length: Math.ceil(count / every) }, (_, i) => i * every);
  const labels = shown.map((i) => (tokens ? label(tokens[first + i] ?? "") : String(first + i)));
  labels.forEach((l, i) => {
    body += text(0, 0, SMALL, l, { more: ` text-anchor="end" transform="translate(${x(shown[i] ?? 0) + 4} ${under}) rotate(-90)"` });
  });
  const bottom = under + Math.ceil(largest(labels.map(widthOf)) * SMALL * ADVANCE) + GAP;

  const [what, rule] =
    "keep" in noise.relevant
      ? [`beside the ${noise.relevant.keep} keys that a row's maps weigh most together`, "the same keys for all maps"]
      : ["on irrelevant tokens", "all but the given keys"];
  const name = title ?? `Attention ${what}`;
  const description = `Share of each query's attention that falls ${what} (${rule}), for ${count} queries. ${lines
    .map(
      ({ name, values }) =>
        `${name}: mean ${percent(mean(values))}, from ${figure(
          -largest(
            values.map((v) => -v),
            -Infinity,
          ),
        )} to ${figure(largest(values, -Infinity))}`,
    )
    .join("; ")}.`;
  return picture([{ width, height: bottom, body, description }], name, description, 0, { theme, styled });
}
