// Checkpoints of training: a model that loads as any other, or an adapter in PEFT's names, with the
// moments of AdamW and what else training goes on from. Trains nothing.

import type { Handle } from "../backend.js";
import { show } from "../check.js";
import { encode } from "../encode.js";
import { fail, internal } from "../errors.js";
import { saveAdapter } from "../models/adapter.js";
import { accessOf } from "../models/access.js";
import { Checkpoint, isFloat, Progress, type Weights } from "../models/checkpoint.js";
import { COMPANIONS } from "../models/companions.js";
import { type Output, writeFile } from "../models/folder-output.js";
import { type Folder, folderOf, MODEL, openFile, parseJson, readOptionalText, readText } from "../models/folder.js";
import { ADAPTER } from "../models/load.js";
import { bufferOf } from "../models/outputs.js";
import { layoutOf, writePieces } from "../models/safetensors.js";
import type { CheckpointSource } from "../models/types.js";
import { run } from "./backend.js";
import * as requests from "./requests.generated.js";
import type { TrainStep } from "./types.js";

const MOMENTS = "optimizer.safetensors";
const STATE = "training.json";
const PREFIX = "base_model.model.";
/** What PEFT's and Hugging Face's files say of themselves. */
const METADATA = { format: "pt" };

export type StateTensor = "value" | "firstMoment" | "secondMoment";

/** A tensor that moves. */
export interface Moving {
  readonly name: string;
  readonly shape: readonly number[];
}

/** What a checkpoint is made of. */
export interface Saved {
  readonly trainer: Handle;
  readonly parameters: readonly Moving[];
  /** Where the model came from: of what stays, and the files beside weights. */
  readonly folder: () => Promise<Folder>;
  /** What B A is multiplied with, of adapters; undefined: the whole model is written. */
  readonly adapterAlpha: number | undefined;
  /** What training must agree with to go on, and what was told of it. */
  readonly run: object;
  readonly history: readonly TrainStep[];
}

/** A tensor of a trainer's state. */
async function tensorOf(trainer: Handle, name: string, of: StateTensor): Promise<Uint8Array<ArrayBuffer>> {
  const [out] = await run(encode(requests.trainerTensor, { trainer, name, of }));
  return new Uint8Array(bufferOf(out));
}

/** A tensor that is to be written, and how its bytes are had. */
interface Piece extends Moving {
  readonly dtype: string;
  bytes(): Promise<Uint8Array>;
}

async function writeTensors(output: Output, file: string, tensors: readonly Piece[]): Promise<void> {
  const { header, order, length } = await layoutOf(
    tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    METADATA,
  );
  const sink = await output.begin(file, length);
  try {
    await writePieces(sink, header);
    for (const index of order) {
      const tensor = tensors[index];
      if (!tensor) throw internal("a file that lacks a tensor");
      await writePieces(sink, await tensor.bytes());
    }
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.end();
}

/** The weights of a whole model: what moved as float32, what stayed as it is stored. */
function wholeOf({ trainer, parameters }: Saved, weights: Weights): Piece[] {
  const moved = new Map(parameters.map((of) => [of.name, of]));
  const pieces: Piece[] = [];
  const value = ({ name, shape }: Moving): Piece => ({ name, shape, dtype: "F32", bytes: () => tensorOf(trainer, name, "value") });
  for (const { name, dtype, shape } of weights.entries) {
    const of = moved.get(name);
    moved.delete(name);
    // (In its own shape: position embeddings are kept as they were resampled for the images.)
    if (of) pieces.push(value(of));
    else pieces.push({ name, dtype, shape, bytes: async () => (await weights.read([name], {})).bytes.get(name) ?? new Uint8Array() });
  }
  for (const of of moved.values()) pieces.push(value(of));
  return pieces;
}

/** A configuration whose weights are float32 now. */
function configOf(bytes: Uint8Array): Uint8Array {
  const config = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  for (const key of ["torch_dtype", "dtype"]) if (key in config) config[key] = "float32";
  return new TextEncoder().encode(`${JSON.stringify(config, null, 2)}\n`);
}

async function writeWhole(saved: Saved, output: Output): Promise<void> {
  const folder = await saved.folder();
  const weights = await Checkpoint.open(folder, { all: true }, new Progress(undefined));
  try {
    await writeFile(output, "config.json", configOf(await readText(folder, "config.json", {})));
    for (const name of COMPANIONS) {
      const bytes = await readOptionalText(folder, name, {});
      if (bytes) await writeFile(output, name, bytes);
    }
    await writeTensors(output, MODEL, wholeOf(saved, weights));
  } finally {
    weights.close();
  }
}

async function writeAdapter({ trainer, parameters, adapterAlpha }: Saved, output: Output): Promise<void> {
  const weights: Record<string, unknown> = {};
  for (const { name, shape } of parameters) {
    const data = new Float32Array((await tensorOf(trainer, name, "value")).buffer);
    const tensor = { data, shape: [...shape] };
    const [, module, part] = /^(.*)\.lora_([AB])\.weight$/.exec(name) ?? [];
    if (module === undefined || part === undefined) weights[name] = tensor;
    else weights[`${module}.weight`] = { ...(weights[`${module}.weight`] as object | undefined), [part.toLowerCase()]: tensor };
  }
  const files = await saveAdapter(weights as Parameters<typeof saveAdapter>[0], { alpha: adapterAlpha });
  for (const [name, bytes] of Object.entries(files ?? {})) await writeFile(output, name, bytes);
}

/** Writes a checkpoint. */
export async function writeCheckpoint(saved: Saved, output: Output): Promise<void> {
  const { trainer, parameters } = saved;
  const moments = parameters.flatMap(({ name, shape }) =>
    (["firstMoment", "secondMoment"] as const).map((of) => ({
      name: `${of === "firstMoment" ? "m" : "v"}.${name}`,
      shape,
      dtype: "F32",
      bytes: () => tensorOf(trainer, name, of),
    })),
  );
  await (saved.adapterAlpha === undefined ? writeWhole(saved, output) : writeAdapter(saved, output));
  await writeTensors(output, MOMENTS, moments);
  const [state] = await run(encode(requests.trainerState, { trainer }));
  const told = JSON.parse(new TextDecoder().decode(bufferOf(state))) as object;
  const json = JSON.stringify({ ...told, run: saved.run, history: saved.history }, null, 1);
  await writeFile(output, STATE, new TextEncoder().encode(`${json}\n`));
}

/** What of a run differs from that of a checkpoint. */
function checkRun(own: object, stored: unknown): void {
  for (const [key, value] of Object.entries(own)) {
    const other = (stored as Record<string, unknown> | undefined)?.[key];
    const [is, was] = [JSON.stringify(value ?? null), JSON.stringify(other ?? null)];
    if (is !== was) fail("FILE", `${STATE}: ${key}`, is, was);
  }
}

/** The tensors of a file, under the names that they move by. */
async function restoreFile(
  { trainer, parameters }: Pick<Saved, "trainer" | "parameters">,
  [folder, file]: readonly [Folder, string],
  tensors: readonly (readonly [prefix: string, of: StateTensor])[],
): Promise<void> {
  const weights = await Checkpoint.open({ ...folder, only: file }, { all: true }, new Progress(undefined));
  try {
    const entries = new Map(weights.entries.map((entry) => [entry.name, entry]));
    for (const { name, shape } of parameters) {
      for (const [prefix, of] of tensors) {
        const entry = entries.get(prefix + name) ?? fail("FILE", `${file}, tensor ${prefix}${name}`, "a tensor that moves", "none");
        if (entry.dtype !== "F32" || entry.shape.join() !== shape.join())
          fail("FILE", `${file}, tensor ${entry.name}`, `F32 [${shape.join(", ")}]`, `${entry.dtype} [${entry.shape.join(", ")}]`);
        const bytes = (await weights.read([entry.name], {})).bytes.get(entry.name) ?? new Uint8Array();
        // (Of its own memory, where elements begin as they must.)
        const values = { data: new Float32Array(bytes.slice().buffer), shape: [...shape] };
        await run(encode(requests.setTrainerTensor, { trainer, name, of, values }));
      }
    }
  } finally {
    weights.close();
  }
}

const NUMBERS = ["step", "loss", "lr", "gradNorm", "tokens", "tokensPerSecond"] as const;

/** What a file says that was told of steps. (JSON has null for what is no number.) */
function historyOf(given: unknown): TrainStep[] {
  const isStep = (step: unknown): boolean => {
    const of = (step ?? {}) as Record<string, unknown>;
    const isNumber = (name: string): boolean => typeof of[name] === "number" || of[name] === null;
    return NUMBERS.every(isNumber) && Array.isArray(of["lambda"]) && /^(number|undefined)$/.test(typeof of["evalLoss"]);
  };
  if (!Array.isArray(given) || !given.every(isStep)) return fail("FILE", `${STATE}: history`, "what was told of steps", show(given));
  const numbers = (step: TrainStep): object => Object.fromEntries(NUMBERS.map((name) => [name, (step[name] as number | null) ?? NaN]));
  return (given as TrainStep[]).map((step) => ({ ...step, ...numbers(step) }));
}

/** Goes on from a checkpoint: the step that it is of, and what was told of its steps. */
export async function readCheckpoint(
  source: CheckpointSource,
  saved: Pick<Saved, "trainer" | "parameters" | "adapterAlpha" | "run">,
): Promise<{ step: number; history: TrainStep[] }> {
  const folder = await folderOf(source, accessOf({}), "resume");
  const state = await readText(folder, STATE, {});
  const told = (await parseJson(STATE, state)) as { step?: unknown; run?: unknown; history?: unknown } | null;
  checkRun(saved.run, told?.run);
  const history = historyOf(told?.history);
  const isAdapter = saved.adapterAlpha !== undefined;
  await restoreFile(saved, [folder, isAdapter ? ADAPTER.weights : MODEL], [[isAdapter ? PREFIX : "", "value"]]);
  await restoreFile(
    saved,
    [folder, MOMENTS],
    [
      ["m.", "firstMoment"],
      ["v.", "secondMoment"],
    ],
  );
  await run(encode(requests.resumeTrainer, { trainer: saved.trainer, state }));
  // (A whole number, or that was refused.)
  return { step: Number(told?.step), history };
}

/** Refuses a checkpoint whose weights cannot be written again as they are, where all are to be. */
export async function checkWhole(folder: Folder): Promise<void> {
  const weights = await Checkpoint.open(folder, {}, new Progress(undefined));
  const other = weights.entries.find(({ dtype }) => !isFloat(dtype) && dtype !== "F64");
  weights.close();
  if (other) fail("OPTION", "adapter", "adapters over a quantised checkpoint", `none over ${other.name}, ${other.dtype}`);
  (await openFile(folder, "config.json", {})).close();
}
