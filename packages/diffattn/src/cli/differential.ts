// diffattn convert --to and --fold: a Llama made differential, or one with DEX plain again; and how
// far what was written is from what there was.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type * as models from "../models/types.js";
import type { WholeFile } from "../models/whole-file.js";
import { isFolder, madeFolder, placeOf, removeEmpty } from "./checkpoint-output.js";
import { Failure, fileFailure, UsageError } from "./failure.js";
import { count, counted } from "./format.js";
import { loadModels, opening } from "./library.js";
import { beginOutput, checkOutput, checkpointFiles } from "./output.js";
import type { Terminal } from "./terminal.js";
import { tokenizerOf } from "./tokenizer.js";

export interface DifferentialOptions {
  to?: "diff" | "diffllama";
  kind?: "v2" | "v1" | "dex";
  share?: number;
  select?: "last" | "first" | "entropy" | "all";
  text?: string;
  start?: "mirror" | "zero" | "mix";
  lambda?: number;
  seed?: number;
  fold?: boolean;
  verify?: boolean;
  force?: boolean;
  dtype?: "F32" | "F16" | "BF16" | "q8" | "q4";
  head?: models.WeightFormat;
  /** Inputs of a row that share a scale in what is quantised. */
  groupSize?: 32 | 64;
  adapter?: string;
}

/** How far logits of an exact start may be from what they were, of the largest. */
const EXACT = 2e-6;

/** Files that are written whatever there is beside the source. */
const WRITTEN = ["model.safetensors", "config.json"];

/** What must not stand together, as a sentence. */
function check({ to, kind, fold, select, share, text, start, lambda, seed, dtype, head, adapter }: DifferentialOptions): void {
  const refuse = (what: string): never => {
    throw new UsageError(`convert: ${what}`);
  };
  const named = to ?? kind ?? select ?? share ?? start ?? lambda ?? seed;
  if (adapter && (fold ?? named) !== undefined) refuse("--adapter names its conversion; it takes --dtype, --head, --text and --verify");
  if (fold && (named ?? dtype ?? head) !== undefined) refuse("--fold stands alone; it takes --text and --verify");
  if (!fold && !adapter && to === undefined) refuse("expected --to diff or --to diffllama with the options of a conversion, got neither");
  if (to === "diffllama" && kind !== undefined) refuse("--kind is for --to diff");
  if (select === "entropy" && text === undefined) refuse("--select entropy needs --text, a file over which it is measured");
}

/** The text of a file as ids; undefined without one. */
async function idsOf(source: string, path: string | undefined, signal: AbortSignal): Promise<number[] | undefined> {
  if (path === undefined) return undefined;
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw fileFailure(path, error);
  });
  // (What a folder or a GGUF file has of a tokenizer, its model knows.)
  using model = await (await loadModels()).LanguageModel.load(source, { signal, tokenizer: tokenizerOf });
  if (!model.tokenizer) throw new Failure(`--text: expected a source with a tokenizer.json, which ${source} has not`);
  const ids = model.encode(text);
  if (ids.length === 0) throw new Failure(`${path}: expected a text, got nothing`);
  return ids;
}

/** Streams into new files of a folder. What goes wrong with one is kept for its own sentence. */
class Outputs {
  readonly #files: WholeFile[] = [];
  broken: unknown;

  constructor(
    readonly folder: string,
    readonly force: boolean | undefined,
  ) {}

  readonly open = async (name: string): Promise<WritableStream<Uint8Array>> => {
    const told = <T>(body: Promise<T>): Promise<T> =>
      body.catch((error: unknown) => {
        throw (this.broken = error);
      });
    const file = await told(beginOutput(join(this.folder, name), this.force));
    this.#files.push(file);
    return new WritableStream<Uint8Array>({
      write: (piece) => told(file.write(piece)),
      close: () => told(file.end()),
      abort: () => file.drop(),
    });
  };
}

const percent = (value: number): string => value.toExponential(1);

/** What both models make of a text, on standard output; whether that is what an exact start is. */
async function compared(
  terminal: Terminal,
  [source, target]: readonly [string, string],
  ids: number[] | undefined,
): Promise<{ distance: models.Comparison; isSame: boolean }> {
  const { compareModels } = await loadModels();
  const distance = await compareModels(source, target, { signal: terminal.signal, ...(ids && { ids }) });
  const { largest, relative, sameTokens } = distance;
  await terminal.line(`largest logit difference: ${percent(largest)} (${percent(relative)} of the largest logit)`);
  await terminal.line(`the same 64 tokens after it: ${sameTokens ? "yes" : "no"}`);
  return { distance, isSame: relative <= EXACT && sameTokens };
}

export async function differential(terminal: Terminal, source: string, target: string, options: DifferentialOptions): Promise<void> {
  check(options);
  const { to, kind, share, select, text, start, lambda, seed, fold, verify, force, dtype, head, groupSize, adapter } = options;
  if ((await placeOf(target)) === (await placeOf(source))) throw new UsageError("convert: expected a target that is not the source");
  if (target.endsWith(".safetensors")) throw new UsageError("convert: expected a folder, as the configuration is a part of the conversion");
  const inputs = await checkpointFiles(source);
  for (const name of WRITTEN) await checkOutput(join(target, name), { force, inputs, makesFolder: true });
  const ids = await idsOf(source, text, terminal.signal);
  const { convertModel, foldDex } = await loadModels();
  const outputs = new Outputs(target, force);
  let conversion: models.ModelConversion;
  /** The first folder that was not there. */
  let made: string | undefined;
  try {
    made = await madeFolder(target, target);
    conversion = await opening(terminal, source, undefined, (reading) => {
      if (fold) return foldDex(source, { ...reading, target: outputs.open });
      return convertModel(source, {
        ...reading,
        target: outputs.open,
        ...(adapter ? { adapter } : { to: to === "diffllama" ? to : (kind ?? "v2") }),
        ...(select && { heads: select }),
        ...(select === "entropy" && ids && { ids }),
        ...(share !== undefined && { share }),
        ...(start && { start }),
        ...(lambda !== undefined && { lambda }),
        ...(seed !== undefined && { seed }),
        ...(dtype && { dtype }),
        ...(head && { head }),
        ...(groupSize && { groupSize }),
      });
    });
  } catch (error) {
    await removeEmpty(target, made);
    throw outputs.broken ?? error;
  }
  await told(terminal, target, conversion);
  // (What is no Llama any more is measured, whether or not that was asked for.)
  if (!verify && to !== "diffllama") return;
  const { distance, isSame } = await compared(terminal, [source, target], ids);
  await terminal.line(`exact start: ${conversion.exact ? (isSame ? "yes" : "no, though it should be") : "no"}`);
  if (conversion.exact && !isSame) {
    const expected = `logits within ${EXACT} of the largest, and the same tokens`;
    throw new Failure(`${target}: expected ${expected}, got ${percent(distance.relative)}${distance.sameTokens ? "" : ", and others"}`);
  }
}

/** What was made. */
async function told(terminal: Terminal, target: string, { heads, parameters, added, notes }: models.ModelConversion): Promise<void> {
  for (const note of notes) terminal.complain(`note: ${note}`);
  const all = heads.reduce((sum, list) => sum + list.length, 0);
  const layers = heads.filter((list) => list.length > 0).length;
  const more = `${added < 0 ? "-" : "+"}${count(Math.abs(added))}`;
  terminal.note(
    `written: ${target}: ${counted(all, "head")} in ${counted(layers, "layer")}; ${count(parameters)} parameters (${more})` +
      ((await isFolder(target)) ? "" : " (gone by now)"),
  );
}
