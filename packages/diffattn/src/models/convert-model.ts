// Whole models converted: Llamas to differential attention, and those of DEX into plain Llamas.
// What each tensor becomes is Rust's (requests 105, 76, 77); read, made and written here one tensor
// after the other.

import type { Handle } from "../backend.js";
import { checkOptions, has, isAbsent, isArray, oneOf, show, tagOf } from "../check.js";
import { encode } from "../encode.js";
import { fail, internal } from "../errors.js";
import { checkSignal } from "../run.js";
import { throwIfAborted } from "./abort.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import { create, drop, run } from "./backend.js";
import type { Reading } from "./byte-source.js";
import { Checkpoint, Progress } from "./checkpoint.js";
import { entropyOf } from "./entropy.js";
import { type Folder, folderOf, MODEL, readOptionalText, readText } from "./folder.js";
import { bufferOf, jsonOf } from "./outputs.js";
import { modelsPlatform, type Sink } from "./platform.js";
import * as requests from "./requests.generated.js";
import { layoutOf, sinkOf, writePieces } from "./safetensors.js";
import { memoryOf } from "./source.js";
import type * as types from "./types.js";

const FOLD_OPTIONS = ["target", ...LOAD_OPTIONS];
const OPTIONS = ["to", "share", "heads", "layers", "text", "ids", "start", "lambda", "seed", "dtype", ...FOLD_OPTIONS];
const DTYPES = ["F32", "F16", "BF16"] as const;

/** What lies beside weights and stays right for them. */
const COMPANIONS = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
];

/** A conversion as it is planned. */
interface Plan extends Omit<types.ModelConversion, "files"> {
  /** The text of `config.json`. */
  readonly config: string;
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: types.StoredDType;
    readonly shape: readonly number[];
    readonly from: readonly string[];
    readonly copied: boolean;
  }[];
}

/** Where files are written, by their names. */
interface Output {
  begin(name: string, length: number): Promise<Sink>;
  readonly files: Record<string, Uint8Array<ArrayBuffer>> | undefined;
}

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

/** What is asked for, as request 105 takes it; refused before anything is read. */
function targetOf(given: types.ConvertModelOptions): Record<string, unknown> {
  const { to, start, seed, dtype } = given;
  for (const [name, text] of [
    ["to", to],
    ["start", start],
  ] as const)
    if (!isAbsent(text) && typeof text !== "string") fail("OPTION", name, "a text", show(text));
  if (!isAbsent(dtype) && !DTYPES.includes(dtype)) fail("OPTION", "dtype", oneOf(DTYPES), show(dtype));
  if (!isAbsent(seed) && !(Number.isSafeInteger(seed) && seed >= 0)) fail("OPTION", "seed", "an integer from 0 to 2^53 - 1", show(seed));
  return {
    to,
    start,
    seed,
    dtype,
    lambda: numberOf("lambda", given.lambda),
    share: numberOf("share", given.share),
    ...headsOf(given),
  };
}

/** A folder by its path, streams by name, or memory. */
async function outputOf(target: types.ConvertModelOptions["target"], source: unknown): Promise<Output> {
  if (isAbsent(target)) {
    const files: Record<string, Uint8Array<ArrayBuffer>> = {};
    const begin = (name: string, length: number): Promise<Sink> => {
      const file = memoryOf(length);
      let at = 0;
      const sink: Sink = {
        write: async (bytes) => {
          file.set(bytes, at);
          at += bytes.byteLength;
        },
        end: async () => void (files[name] = file),
        abort: async () => {},
      };
      return Promise.resolve(sink);
    };
    return { begin, files };
  }
  if (typeof target === "function") {
    const open = async (name: string): Promise<Sink> => {
      const stream: unknown = await target(name);
      return has(stream, "getWriter")
        ? sinkOf(stream as unknown as WritableStream<Uint8Array>)
        : fail("OPTION", "target", "a function that gives a WritableStream for each name", show(stream));
    };
    return { begin: open, files: undefined };
  }
  const isPath = typeof target === "string" ? target !== "" : has(target, "protocol") && tagOf(target) === "URL";
  if (!isPath)
    return fail("OPTION", "target", "the path of a folder, or a function that gives a WritableStream for each name", show(target));
  const { files } = modelsPlatform();
  if (!files) return fail("OPTION", "target", "a function that gives a WritableStream for each name, or none, in browsers", show(target));
  if ((typeof source === "string" || tagOf(source) === "URL") && (await files.isSame(source as string | URL, target)))
    fail("OPTION", "target", "a folder other than the source's", show(target));
  return { begin: async (name) => files.write(await files.within(target, name)), files: undefined };
}

/** A whole file. */
async function writeFile(output: Output, name: string, bytes: Uint8Array): Promise<void> {
  const sink = await output.begin(name, bytes.byteLength);
  try {
    await writePieces(sink, bytes);
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.end();
}

/** One tensor of the plan, as bytes. */
async function tensorOf(plan: Plan, index: number, checkpoint: Checkpoint, conversion: Handle, reading: Reading) {
  const { signal } = reading;
  throwIfAborted(signal);
  const { from, copied } = plan.tensors[index] ?? { from: [], copied: false };
  const { bytes, owned } = await checkpoint.read(from, reading);
  const [first] = from;
  if (copied && first !== undefined) return bytes.get(first) ?? new Uint8Array();
  const tensors = from.map((name) => checkpoint.stored(name, bytes));
  const [made] = await run(encode(requests.convertTensor, { conversion, index, tensors }), { signal, transfer: owned && from.length > 0 });
  return new Uint8Array(bufferOf(made));
}

/** The tensors of the plan, in the order of the file. */
async function writeTensors(
  plan: Plan,
  { order, header }: { order: Int32Array; header: Uint8Array },
  sink: Sink,
  tensor: (index: number) => Promise<Uint8Array>,
): Promise<void> {
  if (order.length !== plan.tensors.length) throw internal("a file that lacks a tensor");
  await writePieces(sink, header);
  for (const index of order) await writePieces(sink, await tensor(index));
}

/** Plans with `target`, or without one the folding, and writes. */
async function convertAll(
  folder: Folder,
  target: object | undefined,
  output: Output,
  given: Partial<types.LoadOptions>,
): Promise<types.ModelConversion> {
  const { signal, onProgress, maxTensors } = given;
  const progress = new Progress(onProgress);
  const reading = { signal, onBytes: progress.add };
  const config = await readText(folder, "config.json", { signal });
  const checkpoint = await Checkpoint.open(folder, { signal, maxTensors }, progress);
  let conversion: Handle | undefined;
  try {
    const entries = JSON.stringify(checkpoint.entries);
    conversion = await create(
      "conversion",
      encode(requests.createConversion, { config, entries, target: target && JSON.stringify(target) }),
    );
    const handle = conversion;
    const [about] = await run(encode(requests.conversionInfo, { conversion: handle }), { signal });
    const plan = jsonOf(about) as Plan;
    const layout = await layoutOf(
      plan.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
      checkpoint.metadata,
    );
    const sink = await output.begin(MODEL, layout.length);
    try {
      await writeTensors(plan, layout, sink, (index) => tensorOf(plan, index, checkpoint, handle, reading));
      await writeFile(output, "config.json", new TextEncoder().encode(plan.config));
      for (const name of COMPANIONS) {
        const bytes = await readOptionalText(folder, name, { signal });
        if (bytes) await writeFile(output, name, bytes);
      }
    } catch (error) {
      await sink.abort(error);
      throw error;
    }
    // (The weights get their name last: it stands for a whole checkpoint.)
    await sink.end();
    progress.end();
    const { exact, heads, parameters, added, notes } = plan;
    return { exact, heads, parameters, added, notes, files: output.files };
  } finally {
    if (conversion) drop(conversion);
    checkpoint.close();
  }
}

export async function convertModel(source: types.CheckpointSource, options?: types.ConvertModelOptions): Promise<types.ModelConversion> {
  const given = checkOptions("options", options, OPTIONS);
  const { signal, text, ids } = given;
  const target = targetOf(given);
  checkSignal(signal);
  const folder = await folderOf(source, accessOf(given));
  const output = await outputOf(given.target, source);
  if (given.heads === "entropy") target["entropy"] = await entropyOf(source, { text, ids }, loadOf(given));
  return convertAll(folder, target, output, given);
}

export async function foldDex(source: types.CheckpointSource, options?: types.FoldOptions): Promise<types.ModelConversion> {
  const given = checkOptions("options", options, FOLD_OPTIONS);
  checkSignal(given.signal);
  const folder = await folderOf(source, accessOf(given));
  return convertAll(folder, undefined, await outputOf(given.target, source), given);
}

/** The options of a load, of those of a conversion; its progress is not that of the conversion. */
function loadOf(given: Partial<types.ConvertModelOptions>): types.LoadOptions {
  const load = Object.fromEntries(Object.entries(given).filter(([name]) => LOAD_OPTIONS.includes(name) && name !== "onProgress"));
  return load as types.LoadOptions;
}
