// diffattn train: trains a model, or heals one that was converted: steps on standard output, a bar
// for who watches, checkpoints, and at the end the curve.

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { lossCurve, lossTable } from "../curve.js";
import type * as models from "../models/types.js";
import type * as training from "../training/types.js";
import { Exit, Failure, fileFailure, Stopped, UsageError } from "./failure.js";
import { bytes, count, duration } from "./format.js";
import { type BackendOptions, loadTraining, opening, start } from "./library.js";
import { writeOutput } from "./output.js";
import type { Terminal } from "./terminal.js";
import { textsOf } from "./tokens.js";
import { tokenizerOf } from "./tokenizer.js";

export interface TrainOptions extends BackendOptions {
  data: string[];
  out: string;
  fromScratch?: boolean;
  tokenizer?: string;
  separator?: string;
  endId?: number;
  joinDocuments?: boolean;
  eval: number;
  steps: number;
  batch: number;
  context: number;
  accumulate: number;
  unit?: number;
  lr: number;
  warmup?: number;
  final: number;
  schedule: "cosine" | "linear" | "constant";
  weightDecay: number;
  clip: number;
  seed: number;
  evalEvery?: number;
  evalBatches?: number;
  saveEvery?: number;
  keep: number;
  sample?: string[];
  sampleEvery?: number;
  sampleTokens: number;
  freeze?: string[];
  recompute?: string | boolean;
  resume?: boolean;
  teacher?: string;
  teacherDtype?: models.WeightFormat;
  alpha: number;
  lambdaAnneal?: number;
  rank?: number;
  dtype?: models.WeightFormat;
  json?: boolean;
}

/** Bytes per parameter that moves: master, gradient, two moments. */
const PER_MOVING = 16;

/** Where the texts come from: files of tokens stand alone. */
async function sourceOf(files: readonly string[]): Promise<training.DatasetSource> {
  const [first] = files;
  if (files.length === 1 && first?.endsWith(".tokens")) return first;
  return { text: await textsOf(files) };
}

async function modelOf(source: string, { fromScratch, seed, tokenizer }: TrainOptions): Promise<training.TrainerOptions["model"]> {
  if (!fromScratch) return source;
  const text = await readFile(source, "utf8").catch((error: unknown) => {
    throw fileFailure(source, error);
  });
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (cause) {
    throw new Failure(`${source}: expected a config.json, got no JSON`, { cause });
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) throw new Failure(`${source}: expected an object of JSON`);
  return { config: config as Record<string, unknown>, seed, ...(tokenizer !== undefined && { tokenizer }) };
}

async function optionsOf(source: string, options: TrainOptions): Promise<training.TrainerOptions> {
  const { data, out, steps, batch, accumulate, lr, warmup, final, schedule, weightDecay, clip, freeze, rank, recompute, ...rest } = options;
  const { teacher, alpha, dtype, seed, evalEvery, evalBatches, saveEvery, keep, resume, context, separator, endId } = rest;
  return {
    model: await modelOf(source, options),
    load: { tokenizer: tokenizerOf, ...(dtype && { dtype }) },
    data: await sourceOf(data),
    dataset: {
      context,
      eval: rest.eval,
      seed,
      documents: rest.joinDocuments ? "join" : "mask",
      ...(separator !== undefined && { separator }),
      ...(endId !== undefined && { endId }),
    },
    steps,
    batch,
    accumulate,
    ...(rest.unit !== undefined && { unit: rest.unit }),
    optimizer: { lr, weightDecay, maxGradNorm: clip === 0 ? null : clip, ...(freeze && { freeze }) },
    schedule: { final, shape: schedule, ...(warmup !== undefined && { warmup }) },
    ...(rank !== undefined && { adapter: { rank } }),
    ...(teacher !== undefined && {
      teacher,
      alpha,
      teacherLoad: { tokenizer: null, ...(rest.teacherDtype && { dtype: rest.teacherDtype }) },
    }),
    ...(rest.lambdaAnneal !== undefined && { lambdaAnneal: rest.lambdaAnneal }),
    recompute: recompute === true ? "layers" : ((recompute ?? "nothing") as "nothing" | "mlps" | "layers"),
    seed,
    ...(evalEvery !== undefined && { evalEvery }),
    ...(evalBatches !== undefined && { evalBatches }),
    ...(saveEvery !== undefined && { saveEvery }),
    keep,
    out,
    ...(resume && { resume }),
  };
}

/** How many steps between two lines where nobody watches. */
const everyOf = (steps: number): number => Math.max(1, Math.ceil(steps / 100));

const told = ({ step, loss, evalLoss, lr, gradNorm, tokensPerSecond }: training.TrainStep, steps: number): string =>
  `step ${step}/${steps}  loss ${loss.toFixed(3)}${evalLoss === undefined ? "" : ` (eval ${evalLoss.toFixed(3)})`}  lr ${lr.toExponential(1)}` +
  `  |g| ${gradNorm.toFixed(2)}  ${tokensPerSecond.toPrecision(3)} tok/s`;

/** A signal asks for the end between two steps; a second one does not wait. */
function endings(terminal: Terminal): { code: () => number | undefined; end: () => void } {
  let terminated = false;
  const onTerm = (): void => {
    if (terminated) process.exit(Exit.terminated);
    terminated = true;
  };
  process.on("SIGTERM", onTerm);
  return {
    code: () => (terminated ? Exit.terminated : terminal.signal.aborted ? Exit.interrupted : undefined),
    end: () => process.removeListener("SIGTERM", onTerm),
  };
}

async function writeCurve(out: string, history: readonly training.TrainStep[]): Promise<void> {
  await writeOutput(join(out, "loss.svg"), lossCurve([{ name: "", history }]), true);
  await writeOutput(join(out, "loss.csv"), lossTable(history), true);
}

/** What the model writes after prompts. */
async function samplesOf(
  trainer: training.Trainer,
  prompts: readonly string[],
  maxNewTokens: number,
): Promise<{ prompt: string; text: string }[]> {
  const samples = [];
  for (const prompt of prompts) {
    let text = "";
    for await (const token of trainer.sample(prompt, { maxNewTokens })) text += token.text;
    samples.push({ prompt, text });
  }
  return samples;
}

function tellBefore(terminal: Terminal, trainer: training.Trainer, { batch, accumulate, context, steps }: TrainOptions): void {
  const perStep = batch * accumulate;
  terminal.note(
    `${count(trainer.moving)} values move (${bytes(PER_MOVING * trainer.moving)} with gradients and moments); ` +
      `${count(trainer.windows)} windows of ${count(context)} tokens to train on, ${count(trainer.evalWindows)} to measure; ` +
      `${count(Math.ceil(trainer.windows / perStep))} steps an epoch, ${count(steps)} in all` +
      (trainer.step > 0 ? `; goes on behind step ${count(trainer.step)}` : ""),
  );
}

/** The loop; gives the code that a signal asked for. */
async function loop(terminal: Terminal, trainer: training.Trainer, options: TrainOptions): Promise<number | undefined> {
  const { steps, json, sample: prompts = [], sampleEvery, sampleTokens, out } = options;
  const bar = terminal.bar("training", (amount) => `step ${count(amount)}`);
  const signals = endings(terminal);
  let last: training.TrainStep | undefined;
  try {
    for await (const step of trainer) {
      if (!last) terminal.note(`${duration(step.tokens / Math.max(1, step.step) / step.tokensPerSecond)} a step`);
      last = step;
      bar.update({ done: step.step, total: steps });
      const isLast = step.step === steps || step.diverged === true;
      if (json) await terminal.json(step);
      else if (isLast || step.evalLoss !== undefined || step.step % everyOf(steps) === 0) await terminal.line(told(step, steps));
      if (step.diverged) {
        const before = trainer.history.at(-2)?.loss;
        throw new Failure(
          `training diverged in step ${step.step}: the loss is ${step.loss}${before === undefined ? "" : `, it was ${before.toFixed(3)} in the step before`}; try a smaller --lr`,
        );
      }
      if (prompts.length > 0 && (isLast || (sampleEvery !== undefined && step.step % sampleEvery === 0)))
        for (const { prompt, text } of await samplesOf(trainer, prompts, sampleTokens))
          await (json ? terminal.json({ step: step.step, prompt, text }) : terminal.line(`  ${prompt}|${text}`));
      if (signals.code() !== undefined) break;
    }
    bar.stop();
    if (last && last.saved === undefined) terminal.note(`saved ${join(out, await trainer.save())}`);
    return signals.code();
  } finally {
    bar.stop();
    signals.end();
    if (trainer.history.length > 0) await writeCurve(out, trainer.history);
  }
}

export async function train(terminal: Terminal, source: string, options: TrainOptions): Promise<void> {
  const { backend, isa, threads, sample, fromScratch, tokenizer, out } = options;
  if (tokenizer !== undefined && !fromScratch) throw new UsageError("train: --tokenizer is for --from-scratch; a model has its own");
  if (sample && fromScratch && tokenizer === undefined) throw new UsageError("train: --sample needs --tokenizer with --from-scratch");
  await start({ ...(backend && { backend }), ...(isa && { isa }), ...(threads && { threads }) });
  const { Trainer } = await loadTraining();
  const given = await optionsOf(source, options);
  await mkdir(out, { recursive: true }).catch((error: unknown) => {
    throw fileFailure(out, error, "written");
  });
  const make = (reading: object): Promise<training.Trainer> => Trainer.create({ ...given, load: { ...given.load, ...reading } });
  using trainer = fromScratch ? await make({}) : await opening(terminal, source, "text", ({ onProgress }) => make({ onProgress }));
  tellBefore(terminal, trainer, options);
  const code = await loop(terminal, trainer, options);
  if (code !== undefined) throw new Stopped(code);
}
