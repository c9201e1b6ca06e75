// Whole models converted: Llamas to differential attention, and those of DEX into plain Llamas.
// What each tensor becomes, derived.ts knows and recode.ts where it is quantised; read, made and
// written here one tensor after the other.

import { checkOptions, isAbsent, isArray, oneOf, show } from "../check.js";
import { fail, internal } from "../errors.js";
import { checkSignal } from "../run.js";
import { throwIfAborted } from "./abort.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import type { Reading } from "./byte-source.js";
import { Checkpoint, isCodes, isFloat, isQuantized, Progress, type Weights } from "./checkpoint.js";
import { Derived, type Plan } from "./derived.js";
import { COMPANIONS } from "./companions.js";
import { entropyOf } from "./entropy.js";
import { type Folder, folderOf, MODEL, readOptionalText, readText } from "./folder.js";
import { type Output, outputOf, writeFile } from "./folder-output.js";
import { fileType, FORMATS, formatOf, groupSizeOf } from "./formats.js";
import { openAdapter } from "./load.js";
import type { Sink } from "./platform.js";
import { filesOf, Recoded } from "./recode.js";
import { layoutOf, writePieces } from "./safetensors.js";
import type * as types from "./types.js";

const FOLD_OPTIONS = ["target", ...LOAD_OPTIONS];
/** What says which conversion. */
const OF_TARGET = ["to", "share", "heads", "layers", "text", "ids", "start", "lambda", "seed"] as const;
const OPTIONS = [...OF_TARGET, "adapter", "dtype", "head", "groupSize", ...FOLD_OPTIONS];
const DTYPES = ["F32", "F16", "BF16", ...FORMATS] as const;

/** A number that JSON can hold. */
function numberOf(name: string, given: unknown): number | undefined {
  if (isAbsent(given)) return undefined;
  return typeof given === "number" && Number.isFinite(given) ? given : fail("OPTION", name, "a finite number", show(given));
}

/** What says which heads and layers; lists of numbers are Rust's to check. */
function headsOf(given: types.ConvertModelOptions): Pick<types.ConvertModelOptions, "heads" | "layers"> {
  const { heads, layers } = given;
  const isNumbers = (list: unknown): boolean =>
    isArray(list) && Array.from(list).every((one) => Number.isInteger(one) && (one as number) >= 0);
  if (!isAbsent(heads) && typeof heads !== "string" && !(isArray(heads) && Array.from(heads).every(isNumbers)))
    fail("OPTION", "heads", '"all", "last", "first", "entropy", or lists of numbers for each layer', show(heads));
  if (!isAbsent(layers) && !isNumbers(layers)) fail("OPTION", "layers", "numbers of layers", show(layers));
  return { ...(heads && { heads }), ...(layers && { layers }) };
}

/** As what weights are to be written. */
interface Format {
  readonly dtype: "F32" | "F16" | "BF16" | "q8" | "q4" | undefined;
  readonly head: types.WeightFormat | undefined;
  readonly groupSize: types.ConvertOptions["groupSize"];
}

/** As what weights are to be written, checked. */
function formatIn({ dtype: given, head: of, groupSize }: types.ConvertModelOptions): Format {
  if (!isAbsent(given) && !DTYPES.includes(given)) fail("OPTION", "dtype", oneOf(DTYPES), show(given));
  const [dtype, head] = [isAbsent(given) ? undefined : fileType(given), formatOf("head", of)];
  return { dtype, head, groupSize: groupSizeOf(groupSize, [dtype, head]) };
}

/** What is asked for, as request 105 takes it; refused before anything is read. */
function targetOf(given: types.ConvertModelOptions, format: Format): Record<string, unknown> {
  const { to, start, seed } = given;
  for (const [name, text] of [
    ["to", to],
    ["start", start],
  ] as const)
    if (!isAbsent(text) && typeof text !== "string") fail("OPTION", name, "a text", show(text));
  const { dtype } = format;
  if (!isAbsent(seed) && !(Number.isSafeInteger(seed) && seed >= 0)) fail("OPTION", "seed", "an integer from 0 to 2^53 - 1", show(seed));
  return {
    to,
    start,
    seed,
    // (Quantised when they are written.)
    dtype: dtype === "q8" || dtype === "q4" ? undefined : dtype,
    lambda: numberOf("lambda", given.lambda),
    share: numberOf("share", given.share),
    ...headsOf(given),
  };
}

/** Tensors that are to be written, and how the bytes of each are had. */
interface Written {
  readonly tensors: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[] }[];
  readonly config: Uint8Array;
  readonly notes: readonly string[];
  tensor(index: number, reading: Reading): Promise<Uint8Array>;
}

/**
 * As they are made, where all floats are what they are to be; else in other types, or quantised as
 * MLX has it.
 */
async function writtenOf(derived: Derived, { dtype, head, groupSize }: Format, signal: types.LoadOptions["signal"]): Promise<Written> {
  const { tensors, config: text, notes } = derived.plan;
  const config = new TextEncoder().encode(text);
  // (A plan has its floats in one type already; with an adapter only those that it changes.)
  const isOther = ({ dtype: is }: Plan["tensors"][number]): boolean =>
    isQuantized(is) || (dtype !== undefined && is !== dtype && (isFloat(is) || isCodes(is)));
  if (head || tensors.some(isOther)) {
    const recoded = await Recoded.of(derived, config, { dtype, head, groupSize }, signal);
    return {
      tensors: recoded.tensors,
      config: recoded.config,
      notes: [...notes, ...recoded.notes],
      tensor: (index, reading) => recoded.tensor(index, reading),
    };
  }
  const tensor = async (index: number, reading: Reading): Promise<Uint8Array> => {
    const name = tensors[index]?.name ?? "";
    return (await derived.read([name], reading)).bytes.get(name) ?? new Uint8Array();
  };
  return { tensors, config, notes, tensor };
}

/** Writes the tensors, in the order of the file. */
async function writeTensors(written: Written, { order, header }: { order: Int32Array; header: Uint8Array }, sink: Sink, reading: Reading) {
  if (order.length !== written.tensors.length) throw internal("a file that lacks a tensor");
  await writePieces(sink, header);
  for (const index of order) {
    throwIfAborted(reading.signal);
    await writePieces(sink, await written.tensor(index, reading));
  }
}

/** What belongs to the model besides its weights and its configuration. */
async function writeCompanions(folder: Folder, weights: Weights, output: Output, signal: types.LoadOptions["signal"]): Promise<void> {
  const own = await filesOf(weights, signal);
  for (const name of COMPANIONS) {
    const bytes = own[name] ?? (await readOptionalText(folder, name, { signal }));
    if (bytes) await writeFile(output, name, bytes);
  }
}

/** Plans with `target` or the adapter, or without either the folding, and writes. */
async function convertAll(
  folder: Folder,
  what: { readonly target?: object | undefined; readonly adapter?: Folder | undefined },
  output: Output,
  given: Partial<types.LoadOptions> & Format,
): Promise<types.ModelConversion> {
  const { signal, onProgress, maxTensors, dtype, head, groupSize } = given;
  const progress = new Progress(onProgress);
  const reading = { signal, onBytes: progress.add };
  let weights: Weights = await Checkpoint.open(folder, { signal, maxTensors, all: true, gguf: true }, progress);
  try {
    const config = weights.own?.config ?? (await readText(folder, "config.json", { signal }));
    const adapter = what.adapter && (await openAdapter(what.adapter, { signal, maxTensors }));
    const merged = dtype === "F16" || dtype === "BF16" ? dtype : "F32";
    const target = what.target && JSON.stringify(what.target);
    const derived = await Derived.of(
      weights,
      {
        config,
        target,
        adapter,
        ...(adapter && (dtype || weights.entries.some((entry) => isCodes(entry.dtype))) && { dtype: merged }),
      },
      reading,
    );
    weights = derived;
    const written = await writtenOf(derived, { dtype, head, groupSize }, signal);
    const layout = await layoutOf(written.tensors, weights.metadata);
    const sink = await output.begin(MODEL, layout.length);
    try {
      await writeTensors(written, layout, sink, reading);
      await writeFile(output, "config.json", written.config);
      await writeCompanions(folder, weights, output, signal);
    } catch (error) {
      await sink.abort(error);
      throw error;
    }
    // (The weights get their name last: it stands for a whole checkpoint.)
    await sink.end();
    progress.end();
    const { exact, heads, parameters, added } = derived.plan;
    const isRounded = dtype === "q8" || dtype === "q4" || head !== undefined;
    return { exact: exact && !isRounded, heads, parameters, added, notes: written.notes, files: output.files };
  } finally {
    weights.close();
  }
}

export async function convertModel(source: types.CheckpointSource, options?: types.ConvertModelOptions): Promise<types.ModelConversion> {
  const given = checkOptions("options", options, OPTIONS);
  const { signal, text, ids } = given;
  const format = formatIn(given);
  const { adapter: from } = given;
  if (!isAbsent(from))
    for (const name of OF_TARGET)
      if (!isAbsent(given[name])) fail("OPTION", name, "none with an adapter, which names it", show(given[name]));
  const target = targetOf(given, format);
  checkSignal(signal);
  const folder = await folderOf(source, accessOf(given));
  const adapter = isAbsent(from) ? undefined : await folderOf(from, accessOf(given), "adapter");
  const output = await outputOf(given.target, source);
  if (adapter) return convertAll(folder, { adapter }, output, { ...given, ...format });
  if (given.heads === "entropy") target["entropy"] = await entropyOf(source, { text, ids }, loadOf(given));
  return convertAll(folder, { target }, output, { ...given, ...format });
}

export async function foldDex(source: types.CheckpointSource, options?: types.FoldOptions): Promise<types.ModelConversion> {
  const given = checkOptions("options", options, FOLD_OPTIONS);
  checkSignal(given.signal);
  const folder = await folderOf(source, accessOf(given));
  return convertAll(folder, {}, await outputOf(given.target, source), {
    ...given,
    dtype: undefined,
    head: undefined,
    groupSize: undefined,
  });
}

/** The options of a load, of those of a conversion; its progress is not that of the conversion. */
function loadOf(given: Partial<types.ConvertModelOptions>): types.LoadOptions {
  return Object.fromEntries(Object.entries(given).filter(([name]) => LOAD_OPTIONS.includes(name) && name !== "onProgress"));
}
