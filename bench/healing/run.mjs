// Heals SmolLM2-135M-Instruct in three ways, trains three small models from nothing on the same
// text, measures them, and writes bench/healing/record.json, of which pictures.mjs draws those of
// docs/healing.md. Each part goes on where it was ended, by the trainer's checkpoints in
// .cache/healing. Two hours on two cores; no part of `npm test`.
//
//   node bench/healing/run.mjs [--only PART,...] [--text FOLDER]     parts: names of plan.mjs,
//   "measure" (all that are there), "int8"
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { smollm2File } from "../../scripts/smollm2-file.mjs";
import { CommandFailed, root } from "../../scripts/tools.mjs";
import { machine } from "../record.mjs";
import { median } from "../statistics.mjs";
import { beginnings, healings, measured } from "./plan.mjs";
import { documents, folder, identity } from "./text.mjs";

const { values } = parseArgs({ options: { only: { type: "string" }, text: { type: "string" } } });

const built = (name) => import(pathToFileURL(join(root, "packages/diffattn/dist", name)).href);
const cli = join(root, "packages/diffattn/dist/cli.js");
const recordFile = join(root, "bench/healing/record.json");
const example = join(root, "examples/smollm2");

const say = (line) => console.log(`${new Date().toISOString().slice(11, 19)}  ${line}`);

/** The project's own command, as a user calls it; what it prints follows. */
async function diffattn(...args) {
  say(`diffattn ${args.join(" ")}`.slice(0, 300));
  const child = spawn(process.execPath, [cli, ...args], { stdio: ["ignore", "inherit", "inherit"] });
  const [code, signal] = await new Promise((resolve) => child.on("close", (...end) => resolve(end)));
  if (code !== 0) throw new CommandFailed(`diffattn ${args[0]}: ${signal ?? `exit ${code}`}`);
}

const record = existsSync(recordFile) ? JSON.parse(readFileSync(recordFile, "utf8")) : { runs: {}, measured: {} };
const keep = () => writeFileSync(recordFile, `${JSON.stringify(record, undefined, 1)}\n`);

mkdirSync(folder, { recursive: true });
const llama = join(folder, "llama");
const files = documents(values.text);

/** A file of tokens, made once. */
async function tokens(name, tokenizer) {
  const path = join(folder, `${name}.tokens`);
  if (!existsSync(path)) await diffattn("tokens", ...files, path, "--tokenizer", tokenizer, "--end-id", "0");
  return path;
}

const flags = (options) => Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);

/** What its last checkpoint tells of a run. */
function told(out) {
  const name = readFileSync(join(out, "latest"), "utf8").trim();
  return { checkpoint: join(out, name), ...JSON.parse(readFileSync(join(out, name, "training.json"), "utf8")) };
}

/** Numbers as short as their use allows. */
const short = (value) => (typeof value === "number" ? Number(value.toPrecision(6)) : value);

function keepRun(name, title, options, out) {
  const { history } = told(out);
  const last = history.at(-1);
  if (last.step !== options.steps) throw new CommandFailed(`${name}: expected ${options.steps} steps, got ${last.step}`);
  record.runs[name] = {
    title,
    options,
    tokens: last.tokens,
    tokensPerSecond: short(median(history.map((step) => step.tokensPerSecond))),
    history: history.map(({ step, tokens: read, loss, crossEntropy, divergence, evalLoss, gradNorm, lambda }) =>
      Object.fromEntries(
        Object.entries({ step, tokens: read, loss, crossEntropy, divergence, evalLoss, gradNorm })
          .map(([key, value]) => [key, short(value)])
          .concat(lambda.some((value) => value !== null) ? [["lambda", lambda.map(short)]] : [])
          .filter(([, value]) => value !== undefined),
      ),
    ),
  };
  record.text = identity(files);
  record.machine = machine();
  keep();
}

async function base() {
  if (!existsSync(join(llama, "config.json"))) await diffattn("convert", await smollm2File(), llama, "--dtype", "float32");
}

/** The model that a healing begins with. */
async function start(name) {
  await base();
  const { convert } = healings[name];
  if (!convert) return llama;
  const target = join(folder, `start-${name}`);
  if (!existsSync(join(target, "config.json")))
    await diffattn("convert", llama, target, "--to", "diff", "--kind", convert.to, "--share", String(convert.share));
  return target;
}

async function heal(name) {
  const { title, options } = healings[name];
  const out = join(folder, `run-${name}`);
  const model = await start(name);
  const data = await tokens("smollm2", llama);
  await diffattn("train", model, "--data", data, "--out", out, "--teacher", llama, "--resume", ...flags(options));
  keepRun(name, title, options, out);
}

async function begin(name) {
  const { title, options, config } = beginnings[name];
  const out = join(folder, `run-${name}`);
  mkdirSync(out, { recursive: true });
  const file = join(folder, `${name}.json`);
  writeFileSync(file, JSON.stringify(config));
  const tokenizer = join(root, "examples/model");
  const data = await tokens("small", tokenizer);
  await diffattn("train", file, "--from-scratch", "--tokenizer", tokenizer, "--data", data, "--out", out, "--resume", ...flags(options));
  keepRun(name, title, options, out);
}

/** Loss on a text of another kind and the needle, of one model. */
async function measure(name, source, options) {
  if (record.measured[name]) return;
  const { LanguageModel, evaluateNeedle, evaluateText } = await built("models-node.js");
  say(`measuring ${name}`);
  const model = await LanguageModel.load(source, options);
  const { loss, counted } = await evaluateText(model, readFileSync(join(example, "eval.txt"), "utf8"), measured.loss);
  say(`  loss ${loss.toFixed(4)} over ${counted} tokens`);
  const { cells, seconds } = await evaluateNeedle(model, measured.needle);
  say(`  needle: ${cells.map(({ right, draws }) => `${right}/${draws}`).join(" ")} in ${seconds.toFixed(0)} s`);
  const spread = (mass) => mass && { mean: short(mass.mean), sd: short(mass.sd), heads: mass.heads };
  record.measured[name] = {
    parameters: model.parameters,
    loss: short(loss),
    counted,
    needle: cells.map(({ length, depth, draws, right, attention: { even, plain, terms, difference } }) => ({
      ...{ length, depth, draws, right, even: short(even) },
      ...(plain && { plain: spread(plain) }),
      ...(terms.length > 0 && { terms: terms.map(spread), difference: spread(difference) }),
    })),
  };
  model.dispose();
  keep();
}

/**
 * What the trainer measures of a model: the loss of what was held back of the text, and λ of each
 * layer, the mean over heads and the tokens of sixteen windows, by a step that moves nothing.
 */
async function asTrained(model, load) {
  const { Trainer } = await built("training-node.js");
  const { context, batch, seed, eval: share, "eval-batches": batches } = healings.all.options;
  const trainer = await Trainer.create({
    model,
    load,
    data: await tokens("smollm2", llama),
    dataset: { context, seed, eval: share },
    steps: 1,
    batch,
    accumulate: 16 / batch,
    optimizer: { lr: 0 },
    adapter: { rank: 1 },
    recompute: true,
  });
  const heldBack = short(await trainer.evaluate({ batches }));
  const { lambda } = await trainer.advance();
  trainer.dispose();
  say(`  held back: ${heldBack}`);
  return { heldBack, ...(lambda.some((value) => value !== null) && { lambda: lambda.map(short) }) };
}

async function measureAll() {
  const { init } = await built("node.js");
  await init();
  await base();
  await measure("base", llama, {});
  Object.assign(record.measured.base, await asTrained(llama, {}));
  for (const name of Object.keys(healings))
    if (record.runs[name]) {
      const healed = [await start(name), { adapter: told(join(folder, `run-${name}`)).checkpoint }];
      await measure(name, ...healed);
      Object.assign(record.measured[name], await asTrained(...healed));
      keep();
    }
}

/**
 * What the int8 rule costs over the float products that training made: the healed model over a base
 * of q8 codes, its adapter beside them, once as inference takes it and once as floats.
 */
async function int8() {
  if (record.int8) return;
  const { init } = await built("node.js");
  await init();
  const { LanguageModel, convertCheckpoint, evaluateText } = await built("models-node.js");
  const adapter = told(join(folder, "run-all")).checkpoint;
  const { file, files } = await convertCheckpoint(await start("all"), { dtype: "q8" });
  // (A checkpoint in memory has no tokenizer beside it.)
  const plain = await LanguageModel.load(llama);
  const ids = plain.encode(readFileSync(join(example, "eval.txt"), "utf8"), { addSpecialTokens: false });
  plain.dispose();
  const losses = {};
  for (const [name, options] of Object.entries({ floats: { dtype: "float32" }, int8: {} })) {
    const model = await LanguageModel.load({ ...files, "model.safetensors": file }, { adapter, ...options });
    losses[name] = short((await evaluateText(model, ids, measured.loss)).loss);
    model.dispose();
    say(`  q8 base, products in ${name}: loss ${losses[name]}`);
  }
  record.int8 = losses;
  keep();
}

const parts = {
  ...Object.fromEntries(Object.keys(healings).map((name) => [name, () => heal(name)])),
  measure: measureAll,
  int8,
  ...Object.fromEntries(Object.keys(beginnings).map((name) => [name, () => begin(name)])),
};
for (const name of values.only?.split(",") ?? Object.keys(parts)) {
  if (!(name in parts)) throw new CommandFailed(`there is no part "${name}"; parts: ${Object.keys(parts).join(", ")}`);
  await parts[name]();
}
