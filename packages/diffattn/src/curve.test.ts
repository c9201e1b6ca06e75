// The curve of a loss: what it draws of any run, and the table beside it.

import { expect, test } from "vitest";
import { lossCurve, lossTable, smoothed } from "./curve.js";
import type { TrainStep } from "./training/types.js";

const step = (index: number, more: Partial<TrainStep> = {}): TrainStep => ({
  step: index,
  loss: 4 / index,
  lr: 1e-3,
  gradNorm: 1,
  tokens: 256 * index,
  tokensPerSecond: 1000,
  lambda: [0.2, null],
  ...more,
});

test("a short run is drawn as it is; of a long one the mean follows its losses", () => {
  expect(smoothed([4, 3, 2])).toEqual([4, 3, 2]);
  const long = Array.from({ length: 4000 }, (_, i) => 5 - i / 1000 + (i % 2 ? 0.5 : -0.5));
  const drawn = smoothed(long);
  expect(drawn).toHaveLength(4000);
  for (let i = 500; i < 4000; i++) expect(Math.abs((drawn[i] ?? 0) - (5 - i / 1000))).toBeLessThan(0.15);
});

test("losses that are no numbers are left out, names are escaped, and no run is drawn as nothing", () => {
  const svg = lossCurve([{ name: `<b>&"`, history: [step(1), step(2, { loss: NaN }), step(3, { evalLoss: 1.5 })] }]);
  expect(svg).toMatch(/^<svg [^>]*role="img"[^>]*>.*<\/svg>\n$/s);
  expect(svg).not.toMatch(/NaN|Infinity|<b>/);
  expect(svg.match(/<circle /g)).toHaveLength(1);
  expect(lossCurve([])).not.toMatch(/NaN|Infinity/);
  expect(lossCurve([{ name: "", history: [step(1)] }], { styled: false })).not.toContain("<style>");
});

test("any number of steps", () => {
  const history = Array.from({ length: 200_000 }, (_, i) => step(i + 1));
  expect(lossCurve([{ name: "", history }])).toContain("51");
});

test("a line per step, with what was measured", () => {
  expect(lossTable([step(1), step(2, { evalLoss: 3, crossEntropy: 2, divergence: 1 })])).toBe(
    "step,tokens,loss,eval_loss,cross_entropy,divergence,lr,grad_norm,lambda\n1,256,4,,,,0.001,1,0.2 \n2,512,2,3,2,1,0.001,1,0.2 \n",
  );
});
