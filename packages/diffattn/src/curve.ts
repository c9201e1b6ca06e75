// The curve of a training's loss, as a picture and as a table, for the command line and for the
// page (packages/demo); of no public entry. Pure; scales and lines are d3's.

import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";
import type { TrainStep } from "./training/types.js";

/** A run, as its file tells it. */
export interface Run {
  readonly name: string;
  readonly history: readonly TrainStep[];
}

/** How it is drawn. */
export interface CurveOptions {
  /** Pixels; 720 by default. */
  readonly width?: number;
  /**
   * Whether the picture holds its style; a page whose policy forbids style elements brings
   * {@link curveStyles} itself. true by default.
   */
  readonly styled?: boolean;
}

const WIDTH = 720;
const HEIGHT = 380;
const MARGIN = { top: 34, right: 20, bottom: 44, left: 58 };
/** Colours that are told apart by everyone (Okabe and Ito's), light and dark. */
const COLOURS = [
  ["#0072b2", "#56b4e9"],
  ["#d55e00", "#e69f00"],
  ["#009e73", "#2fd1a5"],
  ["#aa4499", "#cc79a7"],
] as const;
/** The part of a run that its smoothed curve averages over: few steps, so that it stays at them. */
const SMOOTHED = 40;

/** Numbers as "1.5K". */
const COMPACT = new Intl.NumberFormat("en", { notation: "compact" });

const escaped = (text: string): string => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);

/**
 * A mean over the steps so far, later ones counting more, without the pull of its beginning. A step
 * counts so much that a {@link SMOOTHED}th of the run is averaged; a short run is as it is.
 */
export function smoothed(values: readonly number[]): number[] {
  const share = Math.min(1, SMOOTHED / values.length);
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    sum = (1 - share) * sum + share * value;
    weight = (1 - share) * weight + share;
    return sum / weight;
  });
}

/** The least and the largest of numbers, of which there may be any number. */
const extentOf = (values: readonly number[]): [number, number] => [
  values.reduce((least, value) => Math.min(least, value), Infinity),
  values.reduce((most, value) => Math.max(most, value), -Infinity),
];

const rules = (theme: 0 | 1): string =>
  COLOURS.map((colours, index) => `.lc-line${index}{stroke:${colours[theme]}}.lc-fill${index}{fill:${colours[theme]}}`).join("");

/** Its style, in both themes. */
export const curveStyles: string = [
  ".loss-curve{background:#fff;color:#1b1f24;font:12px system-ui,sans-serif}.lc-grid{stroke:currentColor;stroke-opacity:.15}.lc-raw{stroke-opacity:.25}",
  rules(0),
  `@media (prefers-color-scheme:dark){.loss-curve{background:#0d1117;color:#e6edf3}${rules(1)}}`,
].join("");

/**
 * Losses over tokens: each step's faintly, their mean as a line, and what was measured as dots. The
 * axis of losses begins where the losses do, and says so by its numbers.
 */
export function lossCurve(runs: readonly Run[], { width = WIDTH, styled = true }: CurveOptions = {}): string {
  const finite = (steps: readonly TrainStep[]): TrainStep[] => steps.filter(({ loss }) => Number.isFinite(loss));
  const drawn = runs.map(({ name, history }) => ({ name, steps: finite(history) })).filter(({ steps }) => steps.length > 0);
  const losses = drawn.flatMap(({ steps }) => steps.flatMap(({ loss, evalLoss }) => [loss, ...(evalLoss === undefined ? [] : [evalLoss])]));
  const tokens = drawn.flatMap(({ steps }) => steps.map((step) => step.tokens));
  const [, last] = extentOf([0, ...tokens]);
  const x = scaleLinear([0, Math.max(1, last)], [MARGIN.left, width - MARGIN.right]).nice();
  const y = scaleLinear(losses.length > 0 ? extentOf(losses) : [0, 1], [HEIGHT - MARGIN.bottom, MARGIN.top]).nice();
  const acrossTicks = width < 480 ? 4 : 6;
  const at = (value: number): string => value.toFixed(1);
  const parts: string[] = [];
  for (const tick of y.ticks(6)) {
    parts.push(`<line class="lc-grid" x1="${MARGIN.left}" x2="${width - MARGIN.right}" y1="${at(y(tick))}" y2="${at(y(tick))}"/>`);
    parts.push(`<text x="${MARGIN.left - 8}" y="${at(y(tick) + 4)}" text-anchor="end" fill="currentColor">${y.tickFormat(6)(tick)}</text>`);
  }
  for (const tick of x.ticks(acrossTicks))
    parts.push(
      `<text x="${at(x(tick))}" y="${HEIGHT - MARGIN.bottom + 20}" text-anchor="middle" fill="currentColor">${COMPACT.format(tick)}</text>`,
    );
  parts.push(`<text x="${width - MARGIN.right}" y="${HEIGHT - 6}" text-anchor="end" fill="currentColor">tokens</text>`);
  parts.push(`<text x="8" y="18" fill="currentColor">loss (nats per token)</text>`);
  for (const [index, { name, steps }] of drawn.entries()) {
    const colour = index % COLOURS.length;
    const path = line(
      (point) => x(point[0]),
      (point) => y(point[1]),
    );
    const points = (of: readonly number[]): [number, number][] => of.map((loss, step) => [steps[step]?.tokens ?? 0, loss]);
    const own = steps.map(({ loss }) => loss);
    parts.push(`<path class="lc-line${colour} lc-raw" fill="none" d="${path(points(own)) ?? ""}"/>`);
    parts.push(`<path class="lc-line${colour}" fill="none" stroke-width="2" d="${path(points(smoothed(own))) ?? ""}"/>`);
    for (const { tokens: of, evalLoss } of steps)
      if (evalLoss !== undefined) parts.push(`<circle class="lc-fill${colour}" cx="${at(x(of))}" cy="${at(y(evalLoss))}" r="4"/>`);
    const label = drawn.length > 1 || name ? name : "";
    if (label)
      parts.push(
        `<text class="lc-fill${colour}" x="${width - MARGIN.right}" y="${18 + 16 * index}" text-anchor="end">${escaped(label)}</text>`,
      );
  }
  const title = `Loss over ${last} tokens; dots: what was measured on text that was not trained on`;
  const style = styled ? `<style>${curveStyles}</style>` : "";
  return `<svg xmlns="http://www.w3.org/2000/svg" class="loss-curve" role="img" viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}"><title>${title}</title>${style}${parts.join("")}</svg>\n`;
}

/** A line per step. */
export function lossTable(history: readonly TrainStep[]): string {
  const row = ({ step, tokens, loss, evalLoss, crossEntropy, divergence, lr, gradNorm, lambda }: TrainStep): string =>
    [step, tokens, loss, evalLoss ?? "", crossEntropy ?? "", divergence ?? "", lr, gradNorm, lambda.map((of) => of ?? "").join(" ")].join(
      ",",
    );
  return `${["step,tokens,loss,eval_loss,cross_entropy,divergence,lr,grad_norm,lambda", ...history.map(row)].join("\n")}\n`;
}
