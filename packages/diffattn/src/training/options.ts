// The options of training, as requests take them. Loads nothing.

import { checkOptions, isAbsent, isArray, oneOf, show } from "../check.js";
import { fail } from "../errors.js";
import { numberOf, wholeIn } from "./dataset.js";
import type * as types from "./types.js";

const OPTIMIZER = ["lr", "betas", "eps", "weightDecay", "maxGradNorm", "lrScale", "freeze"];
const SCHEDULE = ["warmup", "final", "shape"];
const ADAPTER = ["rank", "alpha", "targets"];
const SHAPES = ["cosine", "linear", "constant"] as const;
const RECOMPUTE = ["nothing", "mlps", "layers"] as const;
/** The maps of layers that have an adapter by default. */
const TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/** What of options changes the numbers that come out, as a checkpoint keeps it. */
export interface Training {
  batch: number;
  accumulate: number;
  unit: number | undefined;
  lr: number;
  steps: number;
  warmup: number;
  finalShare: number;
  shape: (typeof SHAPES)[number];
  betas: readonly number[];
  eps: number;
  weightDecay: number;
  maxGradNorm: number | undefined;
  alpha: number;
  lambdaAnneal: number | undefined;
  freeze: { pattern: string; rows: readonly number[] }[];
  lrScale: { pattern: string; factor: number }[];
  adapter: { rank: number; alpha: number; targets: readonly string[]; seed: number } | undefined;
  recompute: (typeof RECOMPUTE)[number];
}

const isText = (x: unknown): x is string => typeof x === "string" && x !== "";

function freezeOf(given: unknown): Training["freeze"] {
  if (isAbsent(given)) return [];
  if (!isArray(given)) return fail("OPTION", "optimizer.freeze", "a list of patterns", show(given));
  return given.map((one: unknown, index) => {
    if (isText(one)) return { pattern: one, rows: [] };
    const [pattern, rows] = isArray(one) ? one : [];
    const isRows =
      isArray(rows) && rows.length > 0 && rows.length % 2 === 0 && rows.every((row) => Number.isSafeInteger(row) && (row as number) >= 0);
    if (isText(pattern) && isRows) return { pattern, rows: rows as number[] };
    return fail("OPTION", `optimizer.freeze[${index}]`, "a pattern, or one with rows [from, to, …]", show(one));
  });
}

function lrScaleOf(given: unknown): Training["lrScale"] {
  if (isAbsent(given)) return [];
  if (!isArray(given)) return fail("OPTION", "optimizer.lrScale", "a list of [pattern, factor]", show(given));
  return given.map((one: unknown, index) => {
    const [pattern, factor] = isArray(one) ? one : [];
    if (isText(pattern) && typeof factor === "number") return { pattern, factor };
    return fail("OPTION", `optimizer.lrScale[${index}]`, "[pattern, factor]", show(one));
  });
}

function adapterOf(given: types.TrainerOptions["adapter"], seed: number): Training["adapter"] {
  if (isAbsent(given) || given === false) return undefined;
  const { rank, alpha, targets } = checkOptions("adapter", given === true ? {} : given, ADAPTER);
  const of = wholeIn("adapter.rank", rank, 1, 16);
  if (!isAbsent(targets) && !(isArray(targets) && targets.length > 0 && targets.every(isText)))
    fail("OPTION", "adapter.targets", "names of maps", show(targets));
  return { rank: of, alpha: numberOf("adapter.alpha", alpha, of), targets: targets ?? TARGETS, seed };
}

/** Whether the model has a λ that is annealed is checked in Rust. */
const annealOf = (given: unknown): number | undefined => (isAbsent(given) ? undefined : wholeIn("lambdaAnneal", given, 0, 0));

/** Checks what can be checked without a model, and fills in the defaults. */
export function trainingOf(given: Partial<types.TrainerOptions> | Partial<types.ImageTrainerOptions>): Training {
  const { lr, betas, eps, weightDecay, maxGradNorm, lrScale, freeze } = checkOptions("optimizer", given.optimizer, OPTIMIZER);
  const { warmup, final, shape } = checkOptions("schedule", given.schedule, SCHEDULE);
  const steps = wholeIn("steps", given.steps, 1, 0);
  if (steps === 0) fail("OPTION", "steps", "a whole number from 1", show(given.steps));
  const falls = shape ?? "cosine";
  if (!SHAPES.includes(falls)) fail("OPTION", "schedule.shape", oneOf(SHAPES), show(shape));
  const anew = given.recompute === true ? "layers" : given.recompute || "nothing";
  if (!RECOMPUTE.includes(anew)) fail("OPTION", "recompute", oneOf(RECOMPUTE), show(given.recompute));
  const isPair = isArray(betas) && (betas as unknown[]).length === 2 && betas.every((beta) => typeof beta === "number");
  if (!isAbsent(betas) && !isPair) fail("OPTION", "optimizer.betas", "two numbers", show(betas));
  return {
    batch: wholeIn("batch", given.batch, 1, 8),
    accumulate: wholeIn("accumulate", given.accumulate, 1, 1),
    unit: isAbsent(given.unit) ? undefined : wholeIn("unit", given.unit, 1, 1),
    lr: numberOf("optimizer.lr", lr, 1e-3),
    steps,
    warmup: wholeIn("schedule.warmup", warmup, 0, Math.floor(steps / 50)),
    finalShare: numberOf("schedule.final", final, 0.1),
    shape: falls,
    betas: betas ?? [0.9, 0.95],
    eps: numberOf("optimizer.eps", eps, 1e-8),
    weightDecay: numberOf("optimizer.weightDecay", weightDecay, 0.1),
    maxGradNorm: maxGradNorm === null ? undefined : numberOf("optimizer.maxGradNorm", maxGradNorm, 1),
    alpha: numberOf("alpha", given.alpha, 0.5),
    lambdaAnneal: annealOf("lambdaAnneal" in given ? given.lambdaAnneal : undefined),
    freeze: freezeOf(freeze),
    lrScale: lrScaleOf(lrScale),
    adapter: adapterOf("adapter" in given ? given.adapter : undefined, wholeIn("seed", given.seed, 0, 0)),
    recompute: anew,
  };
}
