// What all pictures share: colours, labels, legend, and the document around them. Text in, text
// out; needs no DOM. Texts are escaped where they go into the document, here and nowhere before.

import { oneOf } from "../check.js";
import { escape, visible } from "./markup.js";
import { checkFlag, LARGEST_SIDE, refuse, wrong } from "./options.js";

/** How any picture looks. */
export interface LookOptions {
  /**
   * "auto", the default, follows the reader's preference. A file that becomes a bitmap wants one of
   * the others.
   */
  theme?: "auto" | "light" | "dark" | undefined;
  /**
   * false leaves the style element out. A page whose Content-Security-Policy forbids inline styles
   * then brings {@link stylesheet} itself. true by default, so that a picture stands alone.
   */
  styled?: boolean | undefined;
}

/**
 * Steps of a hue. Colour follows the root of the value, so that a tenth of the largest is still
 * seen; the legend says the values.
 */
export const STEPS = 12;
export const step = (value: number, max: number): number => Math.round(Math.sqrt(Math.min(Math.abs(value) / max, 1)) * STEPS);

/** Pixels between parts. */
export const GAP = 8;
export const HEADING = 15;
export const SMALL = 11;
const LEGEND_CELL = 12;
/** Width of a monospaced character over its height; a little more than the widest font's. */
export const ADVANCE = 0.62;
/** Characters of a label. */
const LONGEST = 14;

const LIGHT = `.da-page{fill:#fff}.da-text{fill:#1b1f24;font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}.da-heading{font-family:system-ui,sans-serif;font-weight:600}
.da-frame{fill:none;stroke:#8b949e}.da-plus{stroke:#0757b5}.da-minus{stroke:#c2410c}.da-line{fill:none;stroke-width:2;stroke-linejoin:round}.da-dash{stroke-dasharray:6 3}`;
const DARK = `.da-page{fill:#0d1117}.da-text{fill:#e6edf3}.da-plus{stroke:#6cb6ff}.da-minus{stroke:#ff9d5c}`;
const THEMES = {
  auto: `${LIGHT}\n@media (prefers-color-scheme:dark){${DARK}}`,
  light: LIGHT,
  dark: `${LIGHT}\n${DARK}`,
};

/**
 * The rules that pictures with `styled: false` want of the page around them; they follow the
 * reader's preference.
 */
export const stylesheet: string = THEMES.auto;

/** Characters that a label takes. */
export const widthOf = (label: string): number => Array.from(label).length;

/** The largest of numbers, however many, and `least`. */
export const largest = (values: readonly number[], least = 0): number => values.reduce((a, b) => Math.max(a, b), least);

/** A token on one short line: what cannot be seen gets a sign. */
export function label(token: string): string {
  const seen =
    token.trim() === "" ? token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") : token.trim().replaceAll("\n", "↵");
  const characters = Array.from(visible(seen));
  return characters.length > LONGEST ? `${characters.slice(0, LONGEST - 1).join("")}…` : characters.join("");
}

/** Two figures, without zeros at the end. */
export const figure = (value: number): string => String(Number(value.toPrecision(2))).replace("-", "−");

/** A coordinate, to a tenth of a pixel. */
export const figureOf = (value: number): number => Math.round(value * 10) / 10;

/** A part of a picture, with its size and what is to be seen in it. */
export interface Panel {
  width: number;
  height: number;
  body: string;
  description: string;
}

/** A text of any content; `more` are attributes as they are, `kind` is a class besides its own. */
export function text(x: number, y: number, size: number, content: string, { more = "", kind = "" } = {}): string {
  return `<text class="da-text${kind}" x="${x}" y="${y}" font-size="${size}"${more}>${escape(content)}</text>`;
}

/**
 * A bar of a hue from its step, −STEPS to STEPS, as a line as thick as it is high; nothing for 0.
 * `y` is its middle.
 */
export function bar(level: number, x: number, y: number, width: number, height: number): string {
  if (level === 0 || Number.isNaN(level)) return "";
  const hue = level < 0 ? "da-minus" : "da-plus";
  return `<path class="${hue}" stroke-width="${height}" stroke-opacity="${opacity(level)}" d="M${x} ${y}h${width}"/>`;
}

export const opacity = (level: number): string => figure(Math.abs(level) / STEPS);

/** The width of a legend. */
export const legendWidth = (signed: boolean): number => (signed ? 2 * STEPS + 1 : STEPS + 1) * LEGEND_CELL;
/** Its height, with the values. */
export const LEGEND_HEIGHT = LEGEND_CELL + SMALL + GAP;

/** One row of boxes, from −max (or 0) to max, with the values under them. */
export function legend(x: number, y: number, max: number, signed: boolean): string {
  const first = signed ? -STEPS : 0;
  let body = "";
  for (let level = first; level <= STEPS; level += 1) {
    const left = x + (level - first) * LEGEND_CELL;
    body += bar(level, left, y + LEGEND_CELL / 2, LEGEND_CELL, LEGEND_CELL);
    if (level % (STEPS / 2) === 0) {
      const value = Math.sign(level) * max * (level / STEPS) ** 2;
      body += text(left + LEGEND_CELL / 2, y + LEGEND_CELL + SMALL + 3, SMALL, `${level > 0 && signed ? "+" : ""}${figure(value)}`, {
        more: ' text-anchor="middle"',
      });
    }
  }
  return `${body}<rect class="da-frame" x="${x}" y="${y}" width="${legendWidth(signed)}" height="${LEGEND_CELL}"/>`;
}

/** A whole document: panels beside each other under a heading of the given height (0: none). */
export function picture(panels: readonly Panel[], title: string, description: string, headingHeight: number, look: LookOptions): string {
  const { theme = "auto", styled = true } = look;
  if (typeof theme !== "string" || !Object.hasOwn(THEMES, theme)) wrong("theme", oneOf(Object.keys(THEMES)), theme);
  checkFlag("styled", styled);
  const width = Math.ceil(panels.reduce((sum, { width: w }) => sum + w, 0));
  const height = Math.ceil(Math.max(...panels.map((p) => p.height)) + headingHeight);
  if (Math.max(width, height) > LARGEST_SIDE) {
    refuse(
      "OPTION",
      "the picture",
      `sides of at most ${LARGEST_SIDE} pixels; smaller cells or fewer rows and columns`,
      `${width} × ${height}`,
    );
  }
  let x = 0;
  let body = headingHeight ? text(GAP, GAP + HEADING, HEADING + 2, title, { kind: " da-heading" }) : "";
  for (const part of panels) {
    body += `<g transform="translate(${x} ${headingHeight})">${part.body}</g>`;
    x += part.width;
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="${escape(title)}" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
    `<title>${escape(title)}</title><desc>${escape(description)}</desc>${styled ? `<style>\n${THEMES[theme]}\n</style>` : ""}` +
    `<rect class="da-page" width="${width}" height="${height}"/>${body}</svg>\n`
  );
}
