// How much attention falls on tokens that do not matter, before and after the subtraction.

import type { AttentionMaps, Tensor } from "../types.js";
import { headingsOf, part, type PartOptions, termsOf } from "./part.js";
import { escape, figure, figureOf, GAP, HEADING, label, type LookOptions, picture, SMALL, text, widthOf, ADVANCE } from "./svg.js";

/** Options of {@link attentionNoise}. */
export interface NoiseOptions extends Omit<PartOptions, "columns"> {
  /** The keys that matter, for every query and the same for all maps: those of an answer in its context. */
  relevant?: readonly number[] | undefined;
  /** Without `relevant`: how many keys of a row count, those that its terms weigh most together; 8 by default. */
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
 * for the row `a` of each map and of the difference; R is the same for all of them. With `relevant`, R are the keys of an answer in its
 * context, and the rows those of the question: what arXiv 2410.05258 compares in its table of attention to answer and noise (key information
 * retrieval). {@link summarizeNoise} sets a head beside all others.
 *
 * Where nobody can say what matters, R are the `keep` keys of a row that its terms weigh most together (the sum of their sizes): no map is
 * judged by its own choice. The share beside them says how widely a head spreads its attention, not how much of it is noise.
 *
 * A weight below zero counts by its size, as it moves the result as much. A row without any weight has no noise: 0. So has one that sees
 * no more than `keep` keys.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @throws RangeError for a head, a range, a key or a number of keys that does not fit the maps.
 */
export function attentionNoise(maps: AttentionMaps, options: NoiseOptions = {}): AttentionNoise {
  const { relevant, keep = 8 } = options;
  const whole = part(maps.diff, options);
  if (!Number.isInteger(keep) || keep < 1) throw new RangeError(`keep: expected an integer of 1 or more, got ${keep}`);
  for (const key of relevant ?? [])
    if (!Number.isInteger(key) || key < 0 || key >= whole.keys)
      throw new RangeError(`relevant: expected keys below ${whole.keys}, got ${key}`);
  const matters = relevant && new Set(relevant);

  const all = termsOf(maps).map((map) => part(map, options));
  /** What counts in a row. */
  const countsIn = (row: number): ReadonlySet<number> => {
    if (matters) return matters;
    const together = Float64Array.from({ length: whole.keys }, (_, k) => all.reduce((sum, { value }) => sum + Math.abs(value(row, k)), 0));
    const strongest = Array.from(together.keys()).sort((a, b) => (together[b] ?? 0) - (together[a] ?? 0));
    return new Set(strongest.slice(0, keep));
  };
  const counted = Array.from({ length: whole.bottom - whole.top }, (_, i) => countsIn(whole.top + i));
  const noiseOf = (map: Tensor): number[] => {
    const { top, keys, value } = part(map, options);
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
    terms: termsOf(maps).map(noiseOf),
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
  /** Pixels across, at least 160; 640 by default. */
  width?: number | undefined;
  /** Pixels of the plot's height, at least 40; 160 by default. */
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
 * Draws the noise of the first map and of the difference over the queries: a dashed line and a plain one.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @returns An SVG document, fit for a file or for `innerHTML`.
 */
export function drawNoise(noise: AttentionNoise, options: DrawNoiseOptions = {}): string {
  const { width = 640, height = 160, title, tokens, query } = options;
  if (!(width >= 160)) throw new RangeError(`width: expected 160 pixels or more, got ${width}`);
  if (!(height >= 40)) throw new RangeError(`height: expected 40 pixels or more, got ${height}`);
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
    body += text(GAP, top + HEADING, HEADING + 1, escape(title), "", " da-heading");
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
    body += `<path class="da-line ${line.kind}" d="M${left} ${top + SMALL - 4}h26"/>${text(left + 32, top + SMALL, SMALL, escape(line.label))}`;
    left += across;
  }
  top += SMALL + 2 * GAP;
  const y = (value: number): number => figureOf(top + (1 - value) * height);
  for (const tick of TICKS) {
    body += `<path class="da-frame" stroke-opacity="${tick === 0 ? 1 : 0.35}" d="M${AXIS} ${y(tick)}h${plot}"/>`;
    body += text(AXIS - 5, y(tick) + 4, SMALL, percent(tick), ' text-anchor="end"');
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
    body += text(0, 0, SMALL, l, ` text-anchor="end" transform="translate(${x(shown[i] ?? 0) + 4} ${under}) rotate(-90)"`);
  });
  const bottom = under + Math.ceil(Math.max(0, ...labels.map(widthOf)) * SMALL * ADVANCE) + GAP;

  const [what, rule] =
    "keep" in noise.relevant
      ? [`beside the ${noise.relevant.keep} keys that a row's maps weigh most together`, "the same keys for all maps"]
      : ["on irrelevant tokens", "all but the given keys"];
  const name = title ?? `Attention ${what}`;
  const description = `Share of each query's attention that falls ${what} (${rule}), for ${count} queries. ${lines
    .map(
      ({ name, values }) => `${name}: mean ${percent(mean(values))}, from ${figure(Math.min(...values))} to ${figure(Math.max(...values))}`,
    )
    .join("; ")}.`;
  return picture([{ width, height: bottom, body, description }], name, description, 0, options);
}
