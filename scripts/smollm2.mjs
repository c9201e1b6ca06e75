// A real model, whole: fetches SmolLM2-135M-Instruct's GGUF (94 MB), converts it to differential
// attention with the adapter of examples/smollm2, and compares logits, ids and losses with those
// that were computed in float64. Closes with "N passed, N failed". No part of `npm test`, which
// has small models for the same.
//
//   node scripts/smollm2.mjs [--gguf FILE|ADDRESS] [--backend native|wasm] [--only NAME,...]
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { smollm2File } from "./smollm2-file.mjs";
import { CommandFailed, root } from "./tools.mjs";

const { values } = parseArgs({
  options: { gguf: { type: "string" }, backend: { type: "string" }, only: { type: "string" } },
});

const built = (name) => import(pathToFileURL(join(root, "packages/diffattn/dist", name)).href);
const { dispose, init } = await built("node.js");
const { convertCheckpoint, convertModel, LanguageModel, openSafetensors } = await built("models-node.js");
await init({ ...(values.backend && { backend: values.backend }) });

const example = join(root, "examples/smollm2");

/** The log-sum-exp of a row of logits, in float64. */
function logSumExp(row) {
  const most = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - most);
  return most + Math.log(sum);
}

const WINDOW = 1024;

/** Mean negative log-likelihood of positions 1… of each window, in nats; `cached`: each by a cache of its own. */
async function loss(language, ids, cached = false) {
  let total = 0;
  let count = 0;
  for (let first = 0; first + WINDOW <= ids.length; first += WINDOW) {
    const window = ids.slice(first, first + WINDOW);
    const cache = cached ? await language.createCache() : undefined;
    const { data, shape } = await language.forward(window, { cache });
    cache?.dispose();
    const vocabulary = shape.at(-1);
    for (let at = 1; at < WINDOW; at++) {
      const row = data.subarray((at - 1) * vocabulary, at * vocabulary);
      total += logSumExp(row) - row[window[at]];
      count++;
    }
  }
  return total / count;
}

const expected = await openSafetensors(join(example, "expected.safetensors"));
const { prompts, eval: text } = JSON.parse(expected.metadata.case);
/** Float64 or int64 values of a tensor, as numbers. */
async function read(name) {
  const { dtype, data } = await expected.read(name);
  const buffer = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  return dtype === "I64" ? Array.from(new BigInt64Array(buffer), Number) : new Float64Array(buffer);
}

const evaluation = readFileSync(join(example, text.file), "utf8");

/** The first ids of the text that losses are measured on. */
const evaluationIds = (language) => language.encode(evaluation, { addSpecialTokens: false }).slice(0, text.tokens);

let passed = 0;
let failed = 0;
function check(what, figure, limit) {
  const ok = figure <= limit;
  if (ok) passed++;
  else failed++;
  console.log(`${ok ? "ok    " : "FAILED"}  ${what}: ${figure.toPrecision(3)} (at most ${limit})`);
}

/** Logits, log-sum-exp and greedy ids of all prompts against the record, and the loss. */
async function verify(language, name, recorded) {
  for (const [i, { prompt }] of prompts.entries()) {
    const ids = await read(`${i}.input_ids`);
    const own = language.encode(prompt);
    check(
      `${name} ${i}: ids of the prompt that differ`,
      own.length === ids.length ? own.filter((id, at) => id !== ids[at]).length : ids.length,
      0,
    );
    const { data, shape } = await language.forward(ids);
    const vocabulary = shape.at(-1);
    const last = data.subarray(data.length - vocabulary);
    const wanted = await read(`${i}.${name}.last_logits`);
    const mean = wanted.reduce((a, b) => a + b, 0) / vocabulary;
    const spread = Math.sqrt(wanted.reduce((sum, x) => sum + (x - mean) ** 2, 0) / vocabulary);
    const off = wanted.reduce((most, x, at) => Math.max(most, Math.abs(x - last[at])), 0);
    check(`${name} ${i}: last logits, off by (of their spread)`, off / spread, 2e-5);
    const sums = await read(`${i}.${name}.logsumexp`);
    const sumsOff = sums.reduce(
      (most, x, at) => Math.max(most, Math.abs(x - logSumExp(data.subarray(at * vocabulary, (at + 1) * vocabulary)))),
      0,
    );
    check(`${name} ${i}: log-sum-exp, off by`, sumsOff, 1e-4);
    const greedy = (await read(`${i}.${name}.greedy`)).slice(ids.length);
    const written = [];
    for await (const { id } of language.generate(ids, { maxNewTokens: greedy.length, temperature: 0, stopIds: [] })) written.push(id);
    check(`${name} ${i}: greedy ids that differ`, greedy.filter((id, at) => id !== written[at]).length, 0);
  }
  const nats = await loss(language, evaluationIds(language));
  check(`${name}: loss ${nats.toFixed(4)}, off by`, Math.abs(nats - recorded), 2e-4);
  return nats;
}

// The one that was named, or the one that the figures were computed with.
const isPath = values.gguf && !/^https?:/.test(values.gguf);
const gguf = isPath ? values.gguf : await smollm2File(values.gguf);
const work = mkdtempSync(join(tmpdir(), "diffattn-smollm2-"));
/** Loads a model, lets it be used, and gives its memory back. */
async function using(source, options, use) {
  const language = await LanguageModel.load(source, options);
  try {
    return await use(language);
  } finally {
    language.dispose();
  }
}

/** The GGUF as float32 in a folder, with its tokenizer; made once. */
async function floatsOf() {
  const target = join(work, "floats");
  if (existsSync(join(target, "model.safetensors"))) return target;
  mkdirSync(target, { recursive: true });
  const { files } = await convertCheckpoint(gguf, { dtype: "float32", target: join(target, "model.safetensors") });
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(target, name), bytes);
  return target;
}

/** The evaluation's ids, for a model that has no tokenizer beside it. */
const idsByFile = async () => using(gguf, {}, async (language) => evaluationIds(language));

/** The parts, in order; what a later one compares with, an earlier one leaves in `known`. */
const known = {};
const plain = async () =>
  (known.llama ??= await using(gguf, { dtype: "float32" }, async (language) => loss(language, evaluationIds(language))));
const parts = {
  llama: async () => {
    known.llama = await using(gguf, { dtype: "float32" }, (language) => verify(language, "llama", text.loss_llama));
  },
  diff: async () => {
    await using(gguf, { dtype: "float32", adapter: example }, (language) => verify(language, "diff", text.loss_diff));
  },
  converted: async () => {
    const target = join(work, "float32");
    const { exact } = await convertModel(gguf, { to: "v2", share: 1, dtype: "float32", target });
    check("converted without the adapter: is not exact", exact ? 0 : 1, 0);
    const nats = await using(target, {}, async (language) => loss(language, evaluationIds(language)));
    check(`converted without the adapter: loss ${nats.toFixed(4)}, off by`, Math.abs(nats - (await plain())), 2e-4);
    rmSync(target, { recursive: true });
  },
  stored: async () => {
    const nats = await using(gguf, {}, async (language) => loss(language, evaluationIds(language)));
    check(`as stored (Q4_1, Q8_0; activations int8): loss ${nats.toFixed(4)}, more than float32's by`, nats - (await plain()), 2e-3);
  },
  // (Codes that are there never become codes of more bits: both are made of the floats.)
  q8: async () => {
    const floats = await floatsOf();
    const nats = await using(floats, { dtype: "q8" }, async (language) => loss(language, evaluationIds(language)));
    check(`q8: loss ${nats.toFixed(4)}, more than float32's by`, nats - (await plain()), 2e-3);
  },
  q4: async () => {
    const floats = await floatsOf();
    // The rule alone: the same codes, their products in float32.
    const { file, files } = await convertCheckpoint(floats, { dtype: "q4" });
    const rule = await using({ ...files, "model.safetensors": file }, { dtype: "float32" }, async (language) =>
      loss(language, await idsByFile()),
    );
    const nats = await using(floats, { dtype: "q4" }, async (language) => loss(language, evaluationIds(language)));
    check(`q4: loss ${nats.toFixed(4)}, more than the rule's (${rule.toFixed(4)}) by`, nats - rule, 1e-3);
  },
  int8: async () => {
    const options = { dtype: "float32", cacheDtype: "int8" };
    const nats = await using(gguf, options, async (language) => loss(language, evaluationIds(language), true));
    check(`int8 cache: loss ${nats.toFixed(4)}, more than float32's by`, nats - (await plain()), 2e-3);
  },
};

try {
  for (const name of values.only?.split(",") ?? Object.keys(parts)) {
    if (!(name in parts)) throw new CommandFailed(`there is no part "${name}"; parts: ${Object.keys(parts).join(", ")}`);
    console.log(`\n== ${name}`);
    await parts[name]();
  }
} finally {
  rmSync(work, { recursive: true, force: true });
  dispose();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
