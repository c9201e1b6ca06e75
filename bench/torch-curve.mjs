// Whether training here learns what PyTorch's does: the 7M model of examples/model from nothing, on
// a text of 2 MB, by diffattn/training and by transformers' DiffLlama with PyTorch's AdamW, from the
// same weights over the same windows. The loss of the last step must be the same within 0.02. Ten
// minutes on two cores; no part of `npm test`. (Gradients and single steps are compared with float64
// by `npm test`: this is what becomes of rounding in two hundred of them.)
//
//   npm run check:torch-curve [-- --steps 200] [--text FOLDER]
//
// The package must be built. Python is that of the benchmark (bench/peers/setup.mjs), which writes
// down what each step's loss is (torch_curve.py): order of windows and learning rates are its own.
import { spawn } from "node:child_process";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cache, CommandFailed, ensureFolder, root } from "../scripts/tools.mjs";
import { documents, identity } from "./healing/text.mjs";
import { python, setupPeers } from "./peers/setup.mjs";
import { table } from "./tables.mjs";

const { steps: given, text: place } = parseArgs({
  options: { steps: { type: "string", default: "200" }, text: { type: "string" } },
}).values;
const steps = Number(given);
if (!Number.isInteger(steps) || steps < 1) throw new CommandFailed(`--steps: expected a whole number from 1, got ${given}`);

/** Bytes of text, about: 200 steps read less than an epoch of it. */
const TEXT = 2e6;
/** What the losses of the last step may differ by. */
const TOLERANCE = 0.02;
/** Rows that are printed. */
const ROWS = 20;
/**
 * How both train. At higher rates rounding decides when a run leaves its plateau, at step 60 or 80:
 * at 2e-3 PyTorch's own two forms of attention are 0.14 apart then, at 5e-4 its losses at the end
 * are 0.024 apart between one thread and two.
 */
const options = {
  steps,
  batch: 8,
  context: 256,
  seed: 0,
  lr: 2.5e-4,
  warmup: Math.floor(steps / 10),
  final: 0.1,
  betas: [0.9, 0.95],
  eps: 1e-8,
  weightDecay: 0.1,
  maxGradNorm: 1,
};

const say = (line) => console.error(line);
const folder = ensureFolder(join(cache, "torch-curve"));
const model = join(root, "examples/model");

/** The first documents that are as much text as is wanted. */
function textOf(files) {
  const chosen = [];
  let bytes = 0;
  for (const file of files) {
    if (bytes >= TEXT) break;
    chosen.push(file);
    bytes += statSync(file).size;
  }
  if (bytes < TEXT / 2) throw new CommandFailed(`expected at least ${TEXT / 2} bytes of text, got ${bytes}`);
  return chosen;
}

/** Our steps: their losses and learning rates; before the first the weights are written. */
async function ours(tokens, written) {
  const { Trainer } = await import("../packages/diffattn/dist/training-node.js");
  const { batch, context, seed, lr, warmup, final, betas, eps, weightDecay, maxGradNorm } = options;
  const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8"));
  const trainer = await Trainer.create({
    model: { config, seed },
    load: { tokenizer: null },
    data: tokens,
    dataset: { context, documents: "join", eval: 0, seed },
    steps,
    batch,
    optimizer: { lr, betas, eps, weightDecay, maxGradNorm },
    schedule: { warmup, final, shape: "cosine" },
  });
  say(`diffattn: ${trainer.moving} parameters, ${trainer.windows} windows of ${context} tokens`);
  rmSync(written, { recursive: true, force: true });
  const start = join(written, await trainer.save(written));
  const told = [];
  for await (const step of trainer) {
    told.push({ loss: step.loss, lr: step.lr, gradNorm: step.gradNorm });
    if (step.step % Math.ceil(steps / ROWS) === 0) say(`diffattn: step ${step.step}, loss ${step.loss.toFixed(4)}`);
  }
  trainer.dispose();
  return { start, told };
}

/** PyTorch's steps: the same of each. */
async function theirs(start, tokens) {
  const script = fileURLToPath(new URL("torch_curve.py", import.meta.url));
  const child = spawn(python, [script, start, tokens, JSON.stringify(options)], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.on("close", (...end) => resolve(end)));
  const told = [];
  for await (const line of createInterface({ input: child.stdout })) {
    told.push(JSON.parse(line));
    if (told.length % Math.ceil(steps / ROWS) === 0) say(`PyTorch: step ${told.length}, loss ${told.at(-1).loss.toFixed(4)}`);
  }
  const [code, signal] = await ended;
  if (code !== 0 || told.length !== steps)
    throw new CommandFailed(`torch_curve.py: ${signal ?? `exit ${code}`} after ${told.length} steps`);
  return told;
}

const { python: reason } = setupPeers();
if (reason) throw new CommandFailed(`PyTorch cannot be had: ${reason}`);
const files = textOf(documents(place));
const { documents: count, bytes, sha256 } = identity(files);
say(`text: ${count} documents, ${bytes} bytes, SHA-256 ${sha256}`);

const { createDataset } = await import("../packages/diffattn/dist/training-node.js");
const { LanguageModel } = await import("../packages/diffattn/dist/models-node.js");
const tokens = join(folder, "text.tokens");
const known = await LanguageModel.load(model);
const data = await createDataset({ files }, { tokenizer: known.tokenizer, context: options.context, endId: 0 });
writeFileSync(tokens, await data.bytes());
data.dispose();
known.dispose();

const { start, told } = await ours(tokens, join(folder, "start"));
const expected = await theirs(start, tokens);

const differences = told.map(({ loss }, i) => Math.abs(loss - expected[i].loss));
const shown = told.flatMap((_, i) => (i === 0 || (i + 1) % Math.ceil(steps / ROWS) === 0 || i === steps - 1 ? [i] : []));
const headings = ["step", "diffattn", "PyTorch", "difference"].map((heading) => [heading, "right"]);
const rows = shown.map((i) => [`${i + 1}`, told[i].loss.toFixed(5), expected[i].loss.toFixed(5), differences[i].toExponential(1)]);
console.log(table(headings, rows).join("\n"));

const last = differences.at(-1);
const rates = Math.max(...told.map(({ lr }, i) => Math.abs(lr / expected[i].lr - 1)));
const findings = [
  [`the learning rates of the steps: ${rates.toExponential(1)} apart, 1e-12 is allowed`, rates <= 1e-12],
  [`the loss of step 1: ${differences[0].toExponential(1)} apart, 1e-4 is allowed`, differences[0] <= 1e-4],
  [`the loss of step ${steps}: ${last.toExponential(1)} apart, ${TOLERANCE} is allowed`, last <= TOLERANCE],
];
for (const [what, isKept] of findings) console.log(`${isKept ? "kept" : "NOT KEPT"}: ${what}`);
console.log(`the largest difference of any step: ${Math.max(...differences).toExponential(1)}`);
if (findings.some(([, isKept]) => !isKept)) process.exitCode = 1;
