// diffattn evaluate: how well a model expects a text, or finds a needle in one; two models beside
// each other. What is measured is the library's.

import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type * as models from "../models/types.js";
import { Failure, fileFailure, sentence, UsageError } from "./failure.js";
import { columns, count, counted, duration } from "./format.js";
import { type BackendOptions, loadLanguageModel, loadModels, start } from "./library.js";
import type { Terminal } from "./terminal.js";

export interface EvaluateOptions extends BackendOptions {
  data?: string;
  context?: number;
  limit?: number;
  /** Lengths in tokens. */
  needle?: number[];
  depths?: number[];
  draws?: number;
  seed?: number;
  attention?: number;
  /** MiB. */
  json?: boolean;
}

/** Tokens of a window, as the library has them. */
const CONTEXT = 256;
/** What files of tokens begin with, by whatever name. */
const MAGIC = "DATK";
/** What two models are called in tables. */
const LETTERS = ["A", "B"] as const;

/** A model, and what the command was told that it is. */
interface Subject {
  readonly source: string;
  readonly model: models.LanguageModel;
}

/** What must not stand together, as a sentence. */
function check({ data, needle, context, limit, depths, draws, seed, attention }: EvaluateOptions): void {
  const refuse = (what: string): never => {
    throw new UsageError(`evaluate: ${what}`);
  };
  if (data === undefined && !needle) refuse("expected --data FILE, or --needle LENGTHS with or without it, got neither");
  if (needle && (context ?? limit) !== undefined) refuse("--context and --limit are for the loss of --data, without --needle");
  const ofNeedle = depths ?? draws ?? seed ?? attention;
  if (!needle && ofNeedle !== undefined) refuse("--depths, --draws, --seed and --attention are for --needle");
}

/** What is read: a text, or a file of tokens, which is read range by range. */
async function dataOf(terminal: Terminal, path: string): Promise<models.EvaluationData> {
  if (path === "-") return (await terminal.input("the text")).toString("utf8");
  try {
    if (path.endsWith(".tokens") && (await stat(path)).isFile()) return { tokens: pathToFileURL(resolve(path)) };
    const bytes = await readFile(path);
    return bytes.subarray(0, MAGIC.length).toString("latin1") === MAGIC ? { tokens: bytes } : bytes.toString("utf8");
  } catch (error) {
    throw fileFailure(path, error);
  }
}

/** Tokens that a model was made for. */
const longestOf = ({ model }: Subject): number => Number(model.config["max_position_embeddings"] ?? Infinity);

/** Refuses what is longer than a model was made for, before anything is measured. */
function checkLengths(option: string, lengths: readonly number[], subject: Subject): void {
  const longest = longestOf(subject);
  const over = lengths.find((length) => length > longest);
  if (over !== undefined)
    throw new Failure(`${option}: expected at most ${longest} tokens (max_position_embeddings of ${subject.source}), got ${over}`);
}

/** The library's sentence, with what the command calls its arguments. */
async function told<T>(names: Readonly<Record<string, string | undefined>>, body: Promise<T>): Promise<T> {
  try {
    return await body;
  } catch (error) {
    const said = sentence(error);
    const [, argument = "", rest] = /^([\w.]+)(: expected .*)$/.exec(said) ?? [];
    const name = names[argument];
    throw name === undefined || rest === undefined ? error : new Failure(`${name}${rest}`, { cause: error });
  }
}

/** Does something with each model, with a bar. What fails says of which, where there are two. */
async function each<T>(
  terminal: Terminal,
  subjects: readonly Subject[],
  body: (
    model: models.LanguageModel,
    following: { signal: AbortSignal; onProgress: (at: { done: number; total: number }) => void },
  ) => Promise<T>,
): Promise<T[]> {
  const found: T[] = [];
  for (const [i, { source, model }] of subjects.entries()) {
    const bar = terminal.bar(subjects.length > 1 ? `evaluating ${LETTERS[i] ?? ""}` : "evaluating", count);
    try {
      found.push(await body(model, { signal: terminal.signal, onProgress: bar.update }));
    } catch (error) {
      throw subjects.length > 1 ? new Failure(`${source}: ${sentence(error)}`, { cause: error }) : error;
    } finally {
      bar.stop();
    }
  }
  return found;
}

const about = ({ source, model: { family, parameters, dtype } }: Subject): object => ({ model: source, family, parameters, dtype });

/** Says which model is called what, where there are two. */
async function legend(terminal: Terminal, subjects: readonly Subject[]): Promise<void> {
  if (subjects.length < 2) return;
  for (const [i, { source }] of subjects.entries()) await terminal.line(`${LETTERS[i] ?? ""}  ${source}`);
  await terminal.line();
}

const lossText = (value: number): string => value.toFixed(4);
const perplexityText = (value: number): string => (value < 1e5 ? value.toFixed(value < 1000 ? 2 : 0) : value.toExponential(3));
const speedText = (value: number): string => count(value < 100 ? Number(value.toPrecision(3)) : Math.round(value));
const signed = (value: number, show: (value: number) => string): string => `${value < 0 ? "−" : "+"}${show(Math.abs(value))}`;

/** One model's figures, each with its name. */
const ownRows = ({ loss, perplexity, counted: counts, tokens, context, tokensPerSecond }: models.TextEvaluation): string[][] => [
  ["loss", `${lossText(loss)} nats per token`],
  ["perplexity", perplexityText(perplexity)],
  ["tokens", `${count(counts)} of ${count(tokens)} count, in windows of ${count(context)}`],
  ["speed", `${speedText(tokensPerSecond)} tokens/s`],
];

/** What the second has more than the first. */
const more = (a: models.TextEvaluation, b: models.TextEvaluation) => ({
  loss: b.loss - a.loss,
  perplexity: b.perplexity - a.perplexity,
  tokensPerSecond: b.tokensPerSecond - a.tokensPerSecond,
});

function rowsOfBoth(a: models.TextEvaluation, b: models.TextEvaluation): string[][] {
  const difference = more(a, b);
  const row = (name: string, key: keyof typeof difference, show: (value: number) => string): string[] => [
    name,
    show(a[key]),
    show(b[key]),
    signed(difference[key], show),
  ];
  return [
    ["", ...LETTERS, "B − A"],
    row("loss (nats)", "loss", lossText),
    row("perplexity", "perplexity", perplexityText),
    ["tokens that count", count(a.counted), count(b.counted), ""],
    ["windows of", count(a.context), count(b.context), ""],
    row("tokens/s", "tokensPerSecond", speedText),
  ];
}

async function evaluateTexts(terminal: Terminal, subjects: readonly Subject[], path: string, options: EvaluateOptions): Promise<void> {
  // (Windows are alike, or losses do not compare.)
  const { context = Math.max(2, Math.min(CONTEXT, ...subjects.map(longestOf))), limit, json } = options;
  for (const subject of subjects) checkLengths("--context", [context], subject);
  const data = await dataOf(terminal, path);
  const { evaluateText } = await loadModels();
  const names = { data: path, "data.tokens": path };
  const found = await each(terminal, subjects, (model, following) =>
    told(names, evaluateText(model, data, { ...following, context, limit })),
  );
  const [a, b] = found;
  if (json) {
    const all = subjects.map((subject, i) => ({ ...about(subject), ...found[i] }));
    return terminal.json({ task: "text", data: path, models: all, ...(a && b && { difference: more(a, b) }) });
  }
  await legend(terminal, subjects);
  if (a && b) for (const line of columns(rowsOfBoth(a, b), [1, 2, 3])) await terminal.line(line);
  else if (a) for (const line of columns(ownRows(a))) await terminal.line(line);
  if (a && b && a.counted !== b.counted)
    terminal.complain("note: the models split the text into tokens of their own: losses per token do not compare");
}

const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;
const spread = (given: models.MassSpread | null | undefined): string =>
  given ? `${percent(given.mean)} (± ${(100 * given.sd).toFixed(1)})` : "–";

/** Columns of a needle's table, of which those are shown that some cell has. */
const MASSES: readonly (readonly [string, (attention: models.NeedleAttention) => models.MassSpread | null | undefined])[] = [
  ["map", ({ plain }) => plain],
  ["first map", ({ terms }) => terms[0]],
  ["second map", ({ terms }) => terms[1]],
  ["difference", ({ difference }) => difference],
];

function needleRows(found: readonly models.NeedleEvaluation[]): string[][] {
  const attentions = found.flatMap(({ cells }) => cells.flatMap(({ attention }) => attention ?? []));
  const masses = MASSES.filter(([, of]) => attentions.some((attention) => of(attention)));
  const isLooked = attentions.length > 0;
  const isTwo = found.length > 1;
  const [first] = found;
  const head = ["length", "depth", ...(isTwo ? [""] : []), "right", ...masses.map(([name]) => name), ...(isLooked ? ["even"] : [])];
  const rows = (first?.cells ?? []).flatMap((_, i) =>
    found.map(({ cells }, which) => {
      const cell = cells[i];
      if (!cell) return [];
      const { length, depth, right, draws, attention } = cell;
      return [
        ...(which === 0 ? [count(length), String(Number(depth.toFixed(4)))] : ["", ""]),
        ...(isTwo ? [LETTERS[which] ?? ""] : []),
        `${right} of ${draws}`,
        ...masses.map(([, of]) => spread(attention && of(attention))),
        ...(isLooked ? [attention ? percent(attention.even) : "–"] : []),
      ];
    }),
  );
  return [head, ...rows];
}

/** What the table's shares are of. */
function remark(found: readonly models.NeedleEvaluation[]): string | undefined {
  const heads = found.map(({ cells }) => {
    const attention = cells.find((cell) => cell.attention)?.attention;
    return attention && (attention.plain?.heads ?? 0) + (attention.difference?.heads ?? 0);
  });
  if (heads.every((of) => !of)) return undefined;
  const of = [...new Set(heads.map((some) => (some ? counted(some, "head") : "none")))].join(" and ");
  return `Shares of the last token's attention on the needle: mean over ${of} (± from head to head); even: if every token had as much.`;
}

async function evaluateNeedles(
  terminal: Terminal,
  subjects: readonly Subject[],
  lengths: readonly number[],
  options: EvaluateOptions,
): Promise<void> {
  const { data: path, depths, draws, seed, attention, json } = options;
  for (const subject of subjects) checkLengths("--needle", lengths, subject);
  const text = path === undefined ? undefined : await dataOf(terminal, path);
  const { evaluateNeedle } = await loadModels();
  const asked = { lengths, depths, draws, seed, attention, text };
  const names = { lengths: "--needle", attention: "--attention", text: path, data: path, "data.tokens": path };
  const found = await each(terminal, subjects, (model, following) => told(names, evaluateNeedle(model, { ...asked, ...following })));
  if (json) {
    const all = subjects.map((subject, i) => ({ ...about(subject), ...found[i] }));
    return terminal.json({ task: "needle", data: path ?? null, models: all });
  }
  await legend(terminal, subjects);
  const right = [0, ...Array.from({ length: 8 }, (_, i) => i + (subjects.length > 1 ? 3 : 2))];
  for (const line of columns(needleRows(found), right)) await terminal.line(line);
  const said = remark(found);
  if (said !== undefined) {
    await terminal.line();
    await terminal.line(said);
  }
  terminal.note(`took ${duration(found.reduce((sum, { seconds }) => sum + seconds, 0))}`);
}

export async function evaluate(terminal: Terminal, source: string, other: string | undefined, options: EvaluateOptions): Promise<void> {
  check(options);
  const { data, needle } = options;
  await start(options);
  using first = await loadLanguageModel(terminal, source);
  using second = other === undefined ? undefined : await loadLanguageModel(terminal, other);
  const subjects: Subject[] = [{ source, model: first }];
  if (other !== undefined && second) subjects.push({ source: other, model: second });
  if (needle) await evaluateNeedles(terminal, subjects, needle, options);
  else if (data !== undefined) await evaluateTexts(terminal, subjects, data, options);
}
