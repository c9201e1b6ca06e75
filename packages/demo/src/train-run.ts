// One training of the page's small model: its steps, and between them samples, maps and files.
// Knows no element of the page; what is computed is diffattn/training's, in a worker.

import type { AttentionMaps } from "diffattn";
import { Trainer, type TrainStep } from "diffattn/training";
import { leaveCore } from "./train-common.js";
import { idsOf } from "./train-text.js";

/** Tokens of a sample. */
const SAMPLE = 24;
/** Tokens of the prompt whose maps are drawn. */
const MAPPED = 48;
/** Measurements in all. */
const MEASURED = 8;
/** The share of the windows that is measured, not trained on. */
const EVAL = 0.1;
/** Batches of a measurement: it is not to take longer than the steps between two. */
const MEASURED_BATCHES = 4;

/** What a visitor wants. */
export interface Wishes {
  readonly texts: readonly string[];
  readonly prompt: string;
  readonly steps: number;
  readonly context: number;
  readonly batch: number;
  readonly rate: number;
  /** Of an adapter; undefined: all weights learn. */
  readonly rank: number | undefined;
}

/** What is known before the first step. */
export interface Before {
  /** The prompt's. */
  readonly tokens: readonly string[];
  /** Theirs, of every layer. */
  readonly maps: readonly AttentionMaps[];
  /** λ of every layer. */
  readonly lambda: readonly number[];
  /** The loss over windows that are not trained on; undefined where there are none. */
  readonly loss: number | undefined;
}

/** Files at addresses, in the browser's hands: a start reads them, and each save. */
async function filesAt(addresses: Readonly<Record<string, URL>>, signal: AbortSignal): Promise<Record<string, Blob>> {
  const fetched = Object.entries(addresses).map(async ([name, address]): Promise<[string, Blob]> => {
    const response = await fetch(address, { signal });
    if (!response.ok) throw new Error(`${name}: expected a file of the model, got the status ${response.status}`);
    return [name, await response.blob()];
  });
  return Object.fromEntries(await Promise.all(fetched));
}

export class TrainRun {
  readonly #trainer: Trainer;
  readonly #prompt: string;
  #ids: number[] = [];
  /** The checkpoint after the last step, once somebody wanted it. */
  #saved: Promise<Map<string, Uint8Array<ArrayBuffer>>> | undefined;

  private constructor(
    trainer: Trainer,
    readonly wishes: Wishes,
  ) {
    this.#trainer = trainer;
    this.#prompt = wishes.prompt;
  }

  /** Splits the texts and loads the model, whose files are at `addresses`, by name. */
  static async begin(addresses: Readonly<Record<string, URL>>, wishes: Wishes, signal: AbortSignal): Promise<TrainRun> {
    const { steps, batch, rate, rank, context } = wishes;
    const files = await filesAt(addresses, signal);
    const tokenizer = files["tokenizer.json"];
    if (!tokenizer) throw new Error("the model has no tokenizer, which splits texts into tokens");
    const ids = await idsOf(wishes.texts, tokenizer, signal);
    leaveCore();
    const trainer = await Trainer.create({
      model: files,
      data: { ids },
      dataset: { context, eval: EVAL },
      steps,
      batch,
      // (The files of adapters have names for weights alone, and λ's vectors are called otherwise.)
      optimizer: { lr: rate, ...(rank !== undefined && { freeze: ["lambda_"] }) },
      ...(rank !== undefined && { adapter: { rank } }),
      evalEvery: Math.max(1, Math.floor(steps / MEASURED)),
      evalBatches: MEASURED_BATCHES,
      signal,
    });
    return new TrainRun(trainer, wishes);
  }

  get step(): number {
    return this.#trainer.step;
  }

  get history(): readonly TrainStep[] {
    return this.#trainer.history;
  }

  /** How many values learn. */
  get moving(): number {
    return this.#trainer.moving;
  }

  steps(): AsyncIterable<TrainStep> {
    return this.#trainer;
  }

  /** How the model, as it is, goes on with the prompt. */
  async sample(signal?: AbortSignal): Promise<string> {
    let text = "";
    for await (const token of this.#trainer.sample(this.#prompt, { maxNewTokens: SAMPLE, temperature: 0, signal })) text += token.text;
    return text;
  }

  /** Asks the model as it is, before the first step. */
  async before(signal: AbortSignal): Promise<Before> {
    const loss = await this.#trainer.evaluate({ batches: MEASURED_BATCHES, signal });
    const model = await this.#trainer.model();
    this.#ids = model.encode(this.#prompt).slice(0, MAPPED);
    const maps: AttentionMaps[] = [];
    for (let layer = 0; layer < Number(model.config["num_hidden_layers"]); layer += 1)
      maps.push(await model.maps(this.#ids, layer, { signal }));
    return {
      tokens: this.#ids.map((id) => model.decode([id])),
      maps,
      // The first token sees itself alone: both of its maps are 1, their difference is 1 − λ.
      lambda: maps.map(({ diff }) => 1 - (diff.data[0] ?? NaN)),
      loss,
    };
  }

  /** A layer's maps of the prompt, and after how many steps. */
  async maps(layer: number): Promise<{ step: number; maps: AttentionMaps }> {
    const model = await this.#trainer.model();
    const { step } = this.#trainer;
    return { step, maps: await model.maps(this.#ids, layer) };
  }

  /** The files that a model, or an adapter, is loaded from. */
  get names(): readonly string[] {
    if (this.wishes.rank !== undefined) return ["adapter_model.safetensors", "adapter_config.json"];
    return ["model.safetensors", "config.json", "tokenizer.json"];
  }

  /** One of them, after the last step. */
  async file(name: string): Promise<Uint8Array<ArrayBuffer>> {
    this.#saved ??= this.#save();
    this.#saved.catch(() => (this.#saved = undefined));
    const bytes = (await this.#saved).get(name);
    if (!bytes) throw new Error(`${name}: expected it among the files of the model, got none`);
    return bytes;
  }

  /** What training would go on from is left out: moments are twice as large as the model. */
  async #save(): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    await this.#trainer.save({
      write: (path, bytes) => {
        const name = path.replace(/^.*\//, "");
        if (this.names.includes(name)) files.set(name, bytes);
      },
    });
    return files;
  }

  dispose(): void {
    this.#trainer.dispose();
  }
}
