// LanguageModel: the handle of a model in the backend, its tokenizer, and the loop that asks for
// one token after the other. Knows no family: which it is, the configuration says.

import type { Handle, Output, Request } from "../backend.js";
import { checkOptions, isAbsent, isArray, oneOf, show } from "../check.js";
import { encode } from "../encode.js";
import { aborted, fail } from "../errors.js";
import { live } from "../init.js";
import { Owned, resourceOf } from "../owned.js";
import { mapsOf } from "../plans.js";
import { checkSignal } from "../run.js";
import type { AttentionMaps, CacheDType } from "../types.js";
import { together } from "./abort.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import { create, drop, run } from "./backend.js";
import { cacheState, createCache, importCache, lend, type ModelCache, use } from "./cache.js";
import { Detokenizer } from "./detokenize.js";
import { type Folder, folderOf } from "./folder.js";
import { formatOf } from "./formats.js";
import { mayBeGguf } from "./gguf.js";
import { checkDense, idsOf, promptOf, tensorOfIds } from "./ids.js";
import { loadModel, type ModelInfo } from "./load.js";
import { int32Of, tensorOf } from "./outputs.js";
import { throughProxies } from "./proxies.js";
import * as requests from "./requests.generated.js";
import { stopPatterns, type StopPatterns, Stops } from "./stops.js";
import { type ReadingTexts, type Texts, textsOf } from "./texts.js";
import { checkDecode, checkEncode, checkPackage, checkTokenizer, flagOf, isMaker } from "./tokenizer.js";
import type * as types from "./types.js";

const LOGITS = ["all", "last"] as const;
const SAMPLING = ["temperature", "topK", "topP", "repetitionPenalty", "seed"] as const;
const GENERATE = [...SAMPLING, "maxNewTokens", "stop", "stopIds", "addSpecialTokens", "window", "cache", "deterministic", "signal"];
const FORWARD = ["cache", "hiddenStates", "logits", "window", "deterministic", "signal", "onProgress"];
/**
 * Steps that are asked for at once: the backend computes the second while the first is told and the
 * next one asked for. (One: 1.2 times the time per token of a model that takes 0.3 ms.)
 */
const STEPS_AHEAD = 2;
/** New tokens, where the caller says nothing. */
const MAX_NEW_TOKENS = 256;
const REGEX = ["any", "known"] as const;
const OWN_OPTIONS = ["adapter", "onNotice", "tokenizer", "tokenizerRegex", "dtype", "head", "cacheDtype"];
const CACHE_DTYPES = ["float32", "float16", "bfloat16", "int8"] as const;

/** One text that is being generated. */
class Text {
  readonly #detokenizer: Detokenizer | undefined;
  readonly #stops: Stops | undefined;
  /** How many ids the caller was given. */
  told = 0;
  ended = false;

  constructor(prompt: Int32Array, tokenizer: types.Tokenizer | undefined, stops: StopPatterns | undefined) {
    if (tokenizer) this.#detokenizer = new Detokenizer(tokenizer, prompt);
    if (stops) this.#stops = new Stops(stops);
  }

  /** What an id adds to the text. `finish`: whether it is the last one, and why. */
  push(id: number, index: number, finish: types.GeneratedToken["finish"]): types.GeneratedToken {
    const ends = this.#stops?.needsEnds;
    const before = ends ? this.#detokenizer?.peek() : "";
    let text = this.#detokenizer?.push(id) ?? "";
    if (finish) text += this.#detokenizer?.end() ?? "";
    const after = ends && !finish ? this.#detokenizer?.peek() : "";
    let stopped = false;
    if (this.#stops) ({ text, stopped } = this.#stops.push({ id, text, before, after }));
    if (finish && !stopped) text += this.#stops?.end() ?? "";
    const why = stopped ? "stop" : finish;
    this.told++;
    this.ended = why !== null;
    return { id, text, index, finish: why };
  }
}

interface Generation {
  generator: Handle | undefined;
  /** Gives the caches back. */
  readonly home: () => Promise<void>;
  ended: Promise<void> | undefined;
}

const endGeneration = (generation: Generation): void => {
  if (generation.generator) drop(generation.generator);
  generation.ended = generation.home();
};

/** A generator in the backend; one whose loop was forgotten ends with the garbage collection. */
class Running extends Owned<Generation> {
  constructor(home: () => Promise<void>) {
    const generation: Generation = { generator: undefined, home, ended: undefined };
    super("generator", generation, () => endGeneration(generation), true);
  }

  async start(request: Request): Promise<Handle> {
    return (resourceOf<Generation>(this).generator = await create("generator", request));
  }

  /** When the caches are back. */
  async end(): Promise<void> {
    const generation = resourceOf<Generation>(this);
    this.dispose();
    await generation.ended;
  }
}

const FINISH = [null, "stop", "length"] as const;

interface Model {
  readonly handle: Handle;
  /** Calls that were made and have not ended: the model outlives its end for them. */
  calls: number;
  dropped: boolean;
}

const release = (model: Model): void => {
  if (model.dropped && model.calls === 0) drop(model.handle);
};

export class LanguageModel extends Owned<Model> {
  readonly family: string;
  readonly config: types.ModelConfig;
  readonly parameters: number;
  readonly dtype: types.WeightFormat;
  readonly tokenizer: types.Tokenizer | null;
  readonly chatTemplate: string | undefined;
  /** What its caches hold. */
  readonly #cacheDtype: CacheDType | undefined;

  /** Use `load`. */
  constructor(handle: Handle, info: ModelInfo, texts: Texts, cacheDtype?: CacheDType) {
    const model = { handle, calls: 0, dropped: false };
    const end = (): void => {
      model.dropped = true;
      release(model);
    };
    super("model", model, end, true);
    throughProxies(LanguageModel);
    this.family = info.family;
    this.config = info.config;
    this.parameters = info.parameters;
    this.dtype = info.dtype;
    this.tokenizer = texts.tokenizer;
    this.chatTemplate = texts.chatTemplate;
    this.#cacheDtype = cacheDtype;
  }

  static async load(source: types.CheckpointSource | types.FileSource, options?: types.ModelLoadOptions): Promise<LanguageModel> {
    const given = checkOptions("options", options, [...LOAD_OPTIONS, ...OWN_OPTIONS]);
    checkSignal(given.signal);
    for (const name of ["dtype", "head"] as const) formatOf(name, given[name]);
    const regex = given.tokenizerRegex ?? "any";
    if (!REGEX.includes(regex)) fail("OPTION", "tokenizerRegex", oneOf(REGEX), show(regex));
    const { cacheDtype } = given;
    if (!isAbsent(cacheDtype) && !CACHE_DTYPES.includes(cacheDtype)) fail("OPTION", "cacheDtype", oneOf(CACHE_DTYPES), show(cacheDtype));
    const own = isAbsent(given.tokenizer) ? given.tokenizer : checkTokenizer(given.tokenizer);
    const folder = await folderOf(source, accessOf(given));
    const adapter = isAbsent(given.adapter) ? undefined : await folderOf(given.adapter, accessOf(given), "adapter");
    const isMade = own && isMaker(own);
    const reading: ReadingTexts = { regex, make: isMade ? own : undefined, own: isMade ? undefined : own };
    return together(given.signal, (signal) => LanguageModel.#load(folder, { ...given, adapter, signal }, reading));
  }

  static async #load(
    folder: Folder,
    given: Omit<types.ModelLoadOptions, "tokenizer" | "adapter"> & { adapter: Folder | undefined },
    reading: ReadingTexts,
  ): Promise<LanguageModel> {
    // Meanwhile, unless the weights' own file may have it; where both fail, the model's reason is
    // told.
    const beside = mayBeGguf(folder) ? undefined : textsOf(folder, undefined, reading, given);
    beside?.catch(() => {});
    const { handle, info, own } = await loadModel("text", folder, given);
    try {
      const texts = await (beside ?? textsOf(folder, own, reading, given));
      return new LanguageModel(handle, info, texts, given.cacheDtype ?? undefined);
    } catch (error) {
      drop(handle);
      throw error;
    }
  }

  /** The handle of a model that is alive. */
  get #handle(): Handle {
    return live(resourceOf<Model>(this).handle);
  }

  get #tokenizer(): types.Tokenizer {
    return this.tokenizer ?? fail("UNAVAILABLE", "tokenizer", "a model with a tokenizer (tokenizer.json, or the option tokenizer)", "none");
  }

  encode(text: string, options?: types.EncodeOptions): number[] {
    if (typeof text !== "string") fail("OPTION", "text", "a text", show(text));
    checkEncode(options);
    return this.#tokenizer.encode(text, options);
  }

  decode(ids: readonly number[] | Int32Array, options?: types.DecodeOptions): string {
    const list = Array.from(idsOf("ids", ids));
    checkDecode(options);
    return this.#tokenizer.decode(list, options);
  }

  async forward(ids: types.TokenIds, options?: types.ModelForwardOptions): Promise<types.ModelOutput> {
    const { cache, hiddenStates, logits, window, deterministic, signal, onProgress } = checkOptions("options", options, FORWARD);
    const which = logits ?? "all";
    if (!LOGITS.includes(which)) fail("OPTION", "logits", oneOf(LOGITS), show(logits));
    const tensor = tensorOfIds("ids", ids);
    const given: unknown = cache ?? [];
    const caches = Array.from(isArray(given) ? given : [given], cacheState);
    const model = resourceOf<Model>(this);
    const request = encode(requests.textForward, {
      model: live(model.handle),
      ids: tensor,
      caches: caches.map(({ handle }) => handle),
      logits: which,
      hiddenStates: hiddenStates ?? false,
      layer: [],
      window,
      deterministic: deterministic ?? false,
    });
    checkSignal(signal);
    model.calls++;
    try {
      const [output, hidden] = await use(caches, () => run(request, { signal, onProgress }));
      return hidden ? Object.assign(tensorOf(output), { hiddenStates: tensorOf(hidden) }) : tensorOf(output);
    } finally {
      model.calls--;
      release(model);
    }
  }

  async maps(ids: types.TokenIds, layer: number, options?: { signal?: AbortSignal | undefined }): Promise<AttentionMaps> {
    const { signal } = checkOptions("options", options, ["signal"]);
    const [maps] = await mapsOfLayers(this, ids, [layer], signal);
    return maps ?? fail("OPTION", "layer", "a layer", "none");
  }

  generate(
    prompt: string | types.TokenIds | readonly (string | readonly number[] | Int32Array)[],
    options?: types.GenerateOptions,
  ): AsyncGenerator<types.GeneratedToken, void, undefined> {
    // Nothing is done before the first token is asked for, but the prompt is that of now.
    return this.#generate(promptOf(prompt), options);
  }

  async *#generate(prompt: unknown, options?: types.GenerateOptions): AsyncGenerator<types.GeneratedToken, void, undefined> {
    const given = checkOptions("options", options, GENERATE);
    const { maxNewTokens, stop, stopIds, addSpecialTokens, window, cache, deterministic, signal, ...sampling } = given;
    checkSignal(signal);
    checkDense("prompt", prompt);
    const handle = this.#handle;
    flagOf("addSpecialTokens", addSpecialTokens, true);
    const prompts = this.#prompts(prompt, addSpecialTokens === undefined ? undefined : { addSpecialTokens });
    const stops = this.#stops(stop);
    const tokenizer = this.#textual();
    if (!isAbsent(cache) && prompts.length !== 1) fail("OPTION", "cache", "one text with a cache", `${prompts.length} texts`);
    const caches = isAbsent(cache) ? [] : [cacheState(cache)];
    const texts = prompts.map((ids) => new Text(ids, tokenizer, stops));

    checkStopIds(stopIds);
    const request = encode(requests.createGenerator, {
      model: handle,
      texts: prompts.map((prompt) => ({ prompt, maxNewTokens: maxNewTokens ?? MAX_NEW_TOKENS, stopIds, ...sampling })),
      window,
      deterministic: deterministic ?? false,
      caches: caches.map(({ handle }) => handle),
      cacheDtype: this.#cacheDtype,
    });

    const running = new Running(await lend(caches));
    // What is under way when the loop ends is given up as by an abort.
    const stopped = new AbortController();
    const abort = (): void => stopped.abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    // (It may have come while caches were waited for.)
    if (signal?.aborted) abort();
    const steps: Promise<Output[]>[] = [];
    let end: ((text: number) => Promise<Output[]>) | undefined;
    try {
      const generator = await running.start(request);
      end = (text) => run(encode(requests.endText, { generator, text, kept: texts[text]?.told ?? 0 }));
      const ask = (): void => {
        const step = run(encode(requests.generatorStep, { generator }), { signal: stopped.signal });
        // Its failure is told when its turn comes, if it does.
        step.catch(() => {});
        steps.push(step);
      };
      for (let ahead = 0; ahead < STEPS_AHEAD; ahead++) ask();
      while (texts.some(({ ended }) => !ended)) {
        // The model may be disposed of between two tokens.
        live(resourceOf<Model>(this).handle);
        const [output] = (await steps.shift()) ?? [];
        const rows = int32Of(output);
        if (rows.length === 0) return;
        ask();
        for (let row = 0; row < rows.length; row += 3) {
          const [index = 0, id = 0, finish = 0] = rows.subarray(row, row + 3);
          const text = texts[index];
          // One that has come to a stop string, of which the steps ahead did not know.
          if (!text || text.ended) continue;
          if (stopped.signal.aborted) throw aborted(stopped.signal.reason);
          const token = text.push(id, index, FINISH[finish] ?? null);
          // The backend knows nothing of stop strings. (A text alone is ended below.)
          if (token.finish && finish === 0 && texts.length > 1) end(index).catch(() => {});
          yield token;
        }
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      stopped.abort();
      await Promise.allSettled(steps);
      // What the steps ahead added to a cache goes; where that fails, so did the backend, which the
      // next call tells.
      if (caches.length > 0) await end?.(0).catch(() => {});
      await running.end();
    }
  }

  /** The texts of a prompt, as ids. */
  #prompts(prompt: unknown, options: types.EncodeOptions | undefined): Int32Array[] {
    const idsIn = (name: string, given: unknown): Int32Array => {
      const ids = idsOf(name, typeof given === "string" ? this.encode(given, options) : given);
      return ids.length > 0 ? ids : fail("OPTION", name, "1 id or more", "none");
    };
    if (typeof prompt === "string") return [idsIn("prompt", prompt)];
    if (isArray(prompt) && prompt.length > 0 && prompt.every((item) => typeof item !== "number")) {
      return prompt.map((item: unknown, index) => idsIn(`prompt[${index}]`, item));
    }
    const { data, shape } = tensorOfIds("prompt", prompt);
    const [B, L] = shape;
    // Before anything is made for each text: of those without ids there may be any number.
    if (L === 0 && B > 0) fail("OPTION", "prompt", "1 id or more", "none");
    return Array.from({ length: B }, (_, b) => data.slice(b * L, (b + 1) * L));
  }

  #stops(stop: unknown): StopPatterns | undefined {
    const stops: unknown[] = stop === undefined || stop === null ? [] : isArray(stop) ? stop : [stop];
    for (const text of stops) if (typeof text !== "string" || text === "") fail("OPTION", "stop", "texts that are not empty", show(text));
    if (stops.length === 0) return undefined;
    // A stop string is looked for in text.
    checkPackage(this.#tokenizer);
    return stopPatterns(stops as string[], this.#tokenizer);
  }

  /**
   * The tokenizer that texts are written with. Of ids alone it need not be there: their texts are
   * empty then.
   */
  #textual(): types.Tokenizer | undefined {
    if (!this.tokenizer) return undefined;
    try {
      checkPackage(this.tokenizer);
    } catch {
      return undefined;
    }
    return this.tokenizer;
  }

  async createCache(options?: types.ModelCacheOptions): Promise<ModelCache> {
    const { dtype, ...given } = checkOptions("options", options, ["capacity", "window", "dtype"]);
    return createCache(this.#handle, { ...given, dtype: isAbsent(dtype) ? this.#cacheDtype : dtype });
  }

  async importCache(state: types.ModelCacheState): Promise<ModelCache> {
    return importCache(this.#handle, state);
  }
}

/** The maps of several layers of one pass, all of which have as many. */
export async function mapsOfLayers(
  model: LanguageModel,
  ids: types.TokenIds,
  layers: readonly number[],
  signal: AbortSignal | null | undefined,
): Promise<AttentionMaps[]> {
  const request = encode(requests.textForward, {
    model: live(resourceOf<Model>(model).handle),
    ids: tensorOfIds("ids", ids),
    caches: [],
    logits: "none",
    hiddenStates: false,
    layer: layers,
    deterministic: false,
  });
  const outputs = await run(request, { signal });
  const each = outputs.length / layers.length;
  return layers.map((_, i) => mapsOf(outputs.slice(i * each, (i + 1) * each)));
}

/**
 * Refuses a stop id that is no number, by its place. (What is no list is for the request to
 * refuse.)
 */
function checkStopIds(given: unknown): void {
  if (!isArray(given)) return;
  for (let i = 0; i < given.length; i++) if (typeof given[i] !== "number") fail("OPTION", `stopIds[${i}]`, "a number", show(given[i]));
}
