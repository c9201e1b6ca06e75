// The trainer: a loop over steps, each of which reads its windows, adds its micro-batches, and
// moves the weights. What is computed, and in which order windows come, is Rust's (requests 150 to
// 162).

import type { Handle, Output } from "../backend.js";
import { checkOptions, has, isAbsent, isOf, show } from "../check.js";
import { encode } from "../encode.js";
import { fail } from "../errors.js";
import { live } from "../init.js";
import { Owned, resourceOf } from "../owned.js";
import { checkSignal } from "../run.js";
import { throwIfAborted } from "../models/abort.js";
import { accessOf } from "../models/access.js";
import { begin, create, drop } from "../models/backend.js";
import { folderOf } from "../models/folder.js";
import { handleOf, LanguageModel } from "../models/language-model.js";
import { DiffViT, vitHandleOf } from "../models/vit.js";
import { bufferOf, jsonOf } from "../models/outputs.js";
import type { CheckpointSource, FileSource, GeneratedToken, GenerateOptions, ModelLoadOptions } from "../models/types.js";
import { run } from "./backend.js";
import { checkWhole, type Moving, readCheckpoint, type Saved, writeCheckpoint } from "./checkpoint.js";
import { isImages, type Reads, readsOf } from "./data.js";
import { wholeIn } from "./dataset.js";
import { freshFiles, isFresh } from "./fresh.js";
import { type Training, trainingOf } from "./options.js";
import { type Place, placeOf } from "./output.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

const OPTIONS = [
  ..."model load data dataset steps batch accumulate unit optimizer schedule adapter teacher teacherLoad alpha lambdaAnneal".split(" "),
  ..."recompute seed evalEvery evalBatches saveEvery keep out resume signal".split(" "),
];
const CALLBACKS = ["onStep", "onEval", "onSave"] as const;
/** Numbers of a report before λ of each layer. */
const TOLD = 8;

type Signal = AbortSignal | null | undefined;
type Given = Partial<types.TrainerOptions> | Partial<types.ImageTrainerOptions>;
type Model = LanguageModel | DiffViT;

const modelHandleOf = (model: Model): Handle => (isOf(model, DiffViT) ? vitHandleOf(model) : handleOf(model));

/** What a trainer owns. */
interface Parts {
  readonly handle: Handle;
  readonly model: Model;
  readonly teacher: Model | undefined;
  readonly data: Reads;
}

/** What is done between steps. */
interface Habits {
  readonly evalEvery: number;
  readonly evalBatches: number;
  readonly saveEvery: number;
  readonly keep: number;
  readonly place: Place | undefined;
  readonly signal: Signal;
}

interface Info {
  parameters: Moving[];
  moving: number;
  windows: number;
  evalWindows: number;
}

/** What a trainer is made of, beside what it owns. */
interface Made {
  readonly info: Info;
  readonly training: Training;
  readonly saved: Omit<Saved, "history">;
  /** Steps that were made, and what was told of them. */
  readonly step: number;
  readonly history: types.TrainStep[];
  readonly habits: Habits;
}

/** An output of float64 numbers. */
const numbersOf = (output: Output | undefined): Float64Array => new Float64Array(bufferOf(output));

/** Several ranges of the data's bytes, one behind the other. */
async function bytesOf(data: Reads, ranges: readonly (readonly [number, number])[], signal: Signal): Promise<Uint8Array> {
  const bytes = new Uint8Array(ranges.reduce((sum, [from, to]) => sum + to - from, 0));
  const source = data.source();
  let at = 0;
  for (const [from, to] of ranges) {
    bytes.set(await source.read(from, to, { signal: signal ?? undefined }), at);
    at += to - from;
  }
  return bytes;
}

const nameOf = (step: number): string => `step-${String(step).padStart(6, "0")}`;

class ModelTrainer<M extends Model> extends Owned<Parts> implements types.Trainer<M> {
  readonly parameters: readonly Moving[];
  readonly moving: number;
  readonly steps: number;
  readonly windows: number;
  readonly evalWindows: number;
  readonly history: types.TrainStep[];
  readonly #habits: Habits;
  readonly #saved: Omit<Saved, "history">;
  /** What is under way: steps, measurements and checkpoints come one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  #step: number;
  /** Of which step the model is that `model` gives. */
  #modelOf = -1;

  /** Use `create`. */
  constructor(parts: Parts, { info, training, saved, step, history, habits }: Made) {
    const { handle, model, teacher, data } = parts;
    const end = (): void => {
      drop(handle);
      model.dispose();
      teacher?.dispose();
      data.dispose();
    };
    super("trainer", parts, end, true);
    this.parameters = info.parameters;
    this.moving = info.moving;
    this.windows = info.windows;
    this.evalWindows = info.evalWindows;
    this.steps = training.steps;
    this.history = history;
    this.#step = step;
    this.#saved = saved;
    this.#habits = habits;
  }

  get step(): number {
    return this.#step;
  }

  get #handle(): Handle {
    return live(resourceOf<Parts>(this).handle);
  }

  /** Does something once all before it is done. */
  #inTurn<T>(body: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(body, body);
    this.#last = turn.catch(() => {});
    return turn;
  }

  advance(): Promise<types.TrainStep | undefined> {
    return this.#inTurn(() => this.#advance());
  }

  async #advance(): Promise<types.TrainStep | undefined> {
    const { teacher, data } = resourceOf<Parts>(this);
    const { signal } = this.#habits;
    const trainer = this.#handle;
    const start = performance.now();
    const [told] = await run(encode(requests.trainerPlan, { trainer }), { signal });
    const plan = jsonOf(told) as [number, number][][];
    if (plan.length === 0) return undefined;
    for (const [micro, ranges] of plan.entries()) {
      const bytes = await bytesOf(data, ranges, signal);
      await run(encode(requests.trainerAdd, { trainer, micro, bytes, teacher: teacher && modelHandleOf(teacher) }), { signal });
    }
    throwIfAborted(signal ?? undefined);
    // (Without the signal: weights must not be left on their way.)
    const [report] = await run(encode(requests.trainerUpdate, { trainer }));
    const step = this.#told(numbersOf(report), performance.now() - start, teacher !== undefined);
    // (It was made, whatever becomes of what is done after it.)
    this.history.push(step);
    if (step.diverged) return step;
    this.#step = step.step;
    return this.#between(step);
  }

  #told(numbers: Float64Array, milliseconds: number, hasTeacher: boolean): types.TrainStep {
    const [step = 0, loss = 0, crossEntropy = 0, divergence = 0, lr = 0, gradNorm = 0, tokens = 0, diverged = 0] = numbers;
    const before = this.history.at(-1)?.tokens ?? 0;
    return {
      step,
      loss,
      ...(hasTeacher && { crossEntropy, divergence }),
      lr,
      gradNorm,
      tokens,
      tokensPerSecond: (tokens - before) / (milliseconds / 1000),
      lambda: Array.from(numbers.subarray(TOLD), (value) => (Number.isNaN(value) ? null : value)),
      ...(diverged === 1 && { diverged: true as const }),
    };
  }

  /** What is done after a step: measured, saved. */
  async #between(step: types.TrainStep): Promise<types.TrainStep> {
    const { evalEvery, evalBatches, saveEvery, place, signal } = this.#habits;
    const isDue = (every: number): boolean => every > 0 && step.step % every === 0;
    let told = step;
    const tell = (more: Partial<types.TrainStep>): void => {
      told = { ...told, ...more };
      this.history[this.history.length - 1] = told;
    };
    if (isDue(evalEvery)) {
      const measured = await this.#measure(evalBatches, signal);
      if (measured) {
        const { loss: evalLoss, accuracy: evalAccuracy } = measured;
        tell({ evalLoss, ...(evalAccuracy !== undefined && { evalAccuracy }) });
      }
    }
    if (place && isDue(saveEvery)) {
      const saved = nameOf(step.step);
      await this.#save(place, [...this.history.slice(0, -1), { ...told, saved }]);
      tell({ saved });
    }
    return told;
  }

  async evaluate(options?: { batches?: number | undefined; signal?: Signal }): Promise<number | undefined> {
    return (await this.measure(options))?.loss;
  }

  async measure(options?: { batches?: number | undefined; signal?: Signal }): Promise<types.Measurement | undefined> {
    const { batches, signal } = checkOptions("options", options, ["batches", "signal"]);
    const most = wholeIn("batches", batches, 1, Infinity);
    return this.#inTurn(() => this.#measure(most, signal));
  }

  async #measure(batches: number, signal: Signal): Promise<types.Measurement | undefined> {
    const { data } = resourceOf<Parts>(this);
    const trainer = this.#handle;
    let [sum, counted, right] = [0, 0, 0];
    for (let index = 0; index < batches; index++) {
      const [told] = await run(encode(requests.trainerEvalPlan, { trainer, index }), { signal });
      const ranges = jsonOf(told) as [number, number][];
      if (ranges.length === 0) break;
      const bytes = await bytesOf(data, ranges, signal);
      const [measured] = await run(encode(requests.trainerEvaluate, { trainer, index, bytes }), { signal });
      const [of = 0, count = 0, named = NaN] = numbersOf(measured);
      sum += of;
      counted += count;
      // (Of texts it is not told, and no number.)
      right += named;
    }
    if (counted === 0) return undefined;
    return { loss: sum / counted, ...(!Number.isNaN(right) && { accuracy: right / counted }) };
  }

  model(): Promise<M> {
    return this.#inTurn(async () => {
      const { model } = resourceOf<Parts>(this);
      if (this.#modelOf !== this.#step) {
        await run(encode(requests.trainedModel, { trainer: this.#handle, model: modelHandleOf(model) }));
        this.#modelOf = this.#step;
      }
      return model as M;
    });
  }

  async *sample(prompt: string, options?: GenerateOptions): AsyncGenerator<GeneratedToken, void, undefined> {
    const model = await this.model();
    if (isOf(model, DiffViT)) return fail("UNAVAILABLE", "model", "a language model, which goes on with texts", "a DiffViT");
    yield* model.generate(prompt, options);
  }

  async save(out?: types.TrainOutput): Promise<string> {
    const place = isAbsent(out) ? this.#habits.place : placeOf(out);
    if (!place) return fail("OPTION", "out", "where the checkpoint is to be written", "nothing");
    return this.#inTurn(() => this.#save(place, this.history));
  }

  async #save(place: Place, history: readonly types.TrainStep[]): Promise<string> {
    const name = nameOf(this.#step);
    live(this.#handle);
    const begun = await place.begin(name);
    await writeCheckpoint({ ...this.#saved, history }, begun.output);
    await begun.end(this.#habits.keep);
    return name;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<types.TrainStep, void, undefined> {
    for (;;) {
      const step = await this.advance();
      if (!step) return;
      yield step;
    }
  }
}

/** What a run is, beside what Rust compares: another would not go on to the same bits. */
async function runOf(data: Reads, training: Training): Promise<object> {
  return {
    ...(await data.identity()),
    adapter: training.adapter ?? null,
    freeze: training.freeze,
    lrScale: training.lrScale,
  };
}

/** Where the model lies, and how its files are opened again. */
async function sourceOf(given: Given): Promise<CheckpointSource | FileSource> {
  const { model, signal } = given;
  if (isAbsent(model)) return fail("OPTION", "model", "a checkpoint, or { config }", show(model));
  return isFresh(model) ? freshFiles(model, signal) : model;
}

const loadOf = (load: ModelLoadOptions | undefined): ModelLoadOptions => load ?? {};

/** The options between steps. */
function habitsOf(given: Given): Habits {
  return {
    evalEvery: wholeIn("evalEvery", given.evalEvery, 1, 0),
    evalBatches: wholeIn("evalBatches", given.evalBatches, 1, Infinity),
    saveEvery: wholeIn("saveEvery", given.saveEvery, 1, 0),
    keep: wholeIn("keep", given.keep, 1, 2),
    place: isAbsent(given.out) ? undefined : placeOf(given.out),
    signal: given.signal,
  };
}

async function start(parts: Parts, training: Training): Promise<Info> {
  const { handle: trainer, model, data } = parts;
  await run(encode(requests.startTrainer, { trainer, model: modelHandleOf(model), ...data.start(), ...training }));
  const [info] = await run(encode(requests.trainerInfo, { trainer }));
  return jsonOf(info) as Info;
}

/** From what a caller says, checked, to a trainer before its first step, or where it left off. */
async function createTrainer<M extends Model>(given: Given): Promise<ModelTrainer<M>> {
  const training = trainingOf(given);
  const habits = habitsOf(given);
  const { signal, resume, load } = given;
  checkSignal(signal);
  if (!training.adapter && load && has(load, "adapter") && !isAbsent(load.adapter))
    fail("OPTION", "load.adapter", "none unless adapters alone are trained", "one");
  begin("trainer");
  const source = await sourceOf(given);
  const folder = (): ReturnType<typeof folderOf> => folderOf(source, accessOf({ ...loadOf(load), signal: undefined }), "model");
  if (!training.adapter) await checkWhole(await folder());
  const parts: { -readonly [K in keyof Parts]?: Parts[K] } = {};
  try {
    const loaded = (source: CheckpointSource | FileSource, load: ModelLoadOptions): Promise<Model> =>
      isImages(given.data) ? DiffViT.loadAt("trainer", source as CheckpointSource, load) : LanguageModel.loadAt("trainer", source, load);
    const model = (parts.model = await loaded(source, { ...loadOf(load), signal: signal ?? undefined }));
    if (!isAbsent(given.teacher)) parts.teacher = await loaded(given.teacher, loadOf(given.teacherLoad));
    parts.data = await readsOf(given, { tokenizer: isOf(model, DiffViT) ? null : model.tokenizer, signal });
    parts.handle = await create("trainer", encode(requests.createTrainer, {}), "trainer");
    const whole = { teacher: undefined, ...parts } as Parts;
    const info = await start(whole, training);
    const saved = {
      trainer: whole.handle,
      parameters: info.parameters,
      folder,
      adapterAlpha: training.adapter?.alpha,
      run: await runOf(whole.data, training),
    };
    const from = resume === true ? await habits.place?.latest() : resume || undefined;
    const made = from === undefined ? { step: 0, history: [] } : await readCheckpoint(from, saved);
    return new ModelTrainer(whole, { info, training, saved, ...made, habits });
  } catch (error) {
    if (parts.handle) drop(parts.handle);
    parts.model?.dispose();
    parts.teacher?.dispose();
    parts.data?.dispose();
    throw error;
  }
}

export const Trainer = {
  create: async <M extends Model>(options: types.TrainerOptions | types.ImageTrainerOptions): Promise<types.Trainer<M>> =>
    createTrainer<M>(checkOptions<types.TrainerOptions | types.ImageTrainerOptions>("options", options, OPTIONS)),
};

export async function train(
  options: (types.TrainerOptions & types.TrainCallbacks) | (types.ImageTrainerOptions & types.TrainCallbacks<DiffViT>),
): Promise<readonly types.TrainStep[]> {
  const { onStep, onEval, onSave, ...given } = checkOptions("options", options, [...OPTIONS, ...CALLBACKS]);
  for (const [name, callback] of Object.entries({ onStep, onEval, onSave }))
    if (!isAbsent(callback) && typeof callback !== "function") fail("OPTION", name, "a function", show(callback));
  // (Of whichever model: callbacks are those of its data.)
  const trainer = await createTrainer<never>(given);
  try {
    let last: types.TrainStep | undefined;
    for await (const step of trainer) {
      last = step;
      if (step.evalLoss !== undefined) await onEval?.(step.evalLoss, step);
      if (step.saved !== undefined) await onSave?.(step.saved, step);
      if ((await onStep?.(step, trainer)) === false) break;
    }
    if (last && !isAbsent(given.out) && last.saved === undefined && !last.diverged) await onSave?.(await trainer.save(), last);
    return trainer.history;
  } finally {
    trainer.dispose();
  }
}
