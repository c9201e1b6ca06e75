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
import type { AttentionMaps, CacheDType, Tensor } from "../types.js";
import { together } from "./abort.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import { create, drop, run } from "./backend.js";
import { type Asked, GenerationBatch } from "./batch.js";
import { cacheState, createCache, importCache, lend, type ModelCache, use } from "./cache.js";
import { CHAT_OPTIONS, type ChatTexts, checkTemplate, Conversation, endsOfTurn, isMessages, promptOfChat } from "./chat-template.js";
import { type Folder, folderOf } from "./folder.js";
import { formatOf } from "./formats.js";
import { chosen, countOf, Running, samplingOf, Text } from "./generation.js";
import { mayBeGguf } from "./gguf.js";
import { checkDense, idsOf, promptOf, tensorOfIds } from "./ids.js";
import { loadModel, type ModelInfo } from "./load.js";
import { tensorOf } from "./outputs.js";
import type { Home } from "./platform.js";
import { throughProxies } from "./proxies.js";
import * as requests from "./requests.generated.js";
import { stopPatterns, type StopPatterns } from "./stops.js";
import { type ReadingTexts, type Texts, textsOf } from "./texts.js";
import { addedTokens, checkDecode, checkEncode, checkPackage, checkTokenizer, flagOf, isMaker } from "./tokenizer.js";
import type * as types from "./types.js";

const LOGITS = ["all", "last"] as const;
const PENALTIES = ["repetitionPenalty", "presencePenalty", "frequencyPenalty", "logitBias"] as const;
const SAMPLING = ["temperature", "topK", "topP", "minP", ...PENALTIES, "seed", "n", "logprobs"] as const;
/** Of a text alone, whichever others are written beside it. */
const OF_TEXT = [...SAMPLING, "maxNewTokens", "stop", "stopIds", "addSpecialTokens", "signal"];
const GENERATE = [...OF_TEXT, "window", "cache", "deterministic"];
const POOLINGS = ["mean", "last"] as const;
const EMBED = ["pooling", "normalize", "addSpecialTokens", "deterministic", "signal", "onProgress"];
const FORWARD = ["cache", "hiddenStates", "logits", "window", "deterministic", "signal", "onProgress"];
/**
 * Steps that are asked for at once: the backend computes the second while the first is told and the
 * next one asked for. (One: 1.2 times the time per token of a model that takes 0.3 ms.)
 */
const STEPS_AHEAD = 2;
const BATCH = ["size", "prefixBytes", "stepTokens", "window", "deterministic"];
/** What a batch has where its maker says nothing. */
const PLACES = 16;
const PREFIX_BYTES = 2 ** 28;
const STEP_TOKENS = 256;
const REGEX = ["any", "known"] as const;
const OWN_OPTIONS = ["adapter", "onNotice", "tokenizer", "chatTemplate", "tokenizerRegex", "dtype", "head", "cacheDtype"];
const CACHE_DTYPES = ["float32", "float16", "bfloat16", "int8"] as const;

interface Model {
  readonly handle: Handle;
  /** Calls that were made and have not ended: the model outlives its end for them. */
  calls: number;
  dropped: boolean;
}

const release = (model: Model): void => {
  if (model.dropped && model.calls === 0) drop(model.handle);
};

/** A conversation as a prompt. */
interface Turn {
  readonly prompt: readonly number[];
  /** What ends the answer. */
  readonly stopIds: readonly number[] | Int32Array;
}

export class LanguageModel extends Owned<Model> {
  readonly family: string;
  readonly config: types.ModelConfig;
  readonly parameters: number;
  readonly dtype: types.WeightFormat;
  readonly tokenizer: types.Tokenizer | null;
  readonly chatTemplate: string | undefined;
  readonly #chat: ChatTexts | undefined;
  readonly #template: types.ModelLoadOptions["chatTemplate"];
  /** What its caches hold. */
  readonly #cacheDtype: CacheDType | undefined;

  /** Use `load`. */
  constructor(handle: Handle, info: ModelInfo, { tokenizer, chat }: Texts, given: types.ModelLoadOptions) {
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
    this.tokenizer = tokenizer;
    this.chatTemplate = typeof given.chatTemplate === "string" ? given.chatTemplate : chat?.templates["default"];
    this.#chat = chat;
    this.#template = given.chatTemplate;
    this.#cacheDtype = given.cacheDtype ?? undefined;
  }

  static load(source: types.CheckpointSource | types.FileSource, options?: types.ModelLoadOptions): Promise<LanguageModel> {
    return LanguageModel.loadAt("models", source, options);
  }

  /** Loads one that lives among models, or where they are trained. */
  static async loadAt(
    home: Home,
    source: types.CheckpointSource | types.FileSource,
    options?: types.ModelLoadOptions,
  ): Promise<LanguageModel> {
    const given = checkOptions("options", options, [...LOAD_OPTIONS, ...OWN_OPTIONS]);
    checkSignal(given.signal);
    for (const name of ["dtype", "head"] as const) formatOf(name, given[name]);
    const regex = given.tokenizerRegex ?? "any";
    if (!REGEX.includes(regex)) fail("OPTION", "tokenizerRegex", oneOf(REGEX), show(regex));
    const { cacheDtype } = given;
    if (!isAbsent(cacheDtype) && !CACHE_DTYPES.includes(cacheDtype)) fail("OPTION", "cacheDtype", oneOf(CACHE_DTYPES), show(cacheDtype));
    checkTemplate(given.chatTemplate);
    const own = isAbsent(given.tokenizer) ? given.tokenizer : checkTokenizer(given.tokenizer);
    const folder = await folderOf(source, accessOf(given));
    const adapter = isAbsent(given.adapter) ? undefined : await folderOf(given.adapter, accessOf(given), "adapter");
    const isMade = own && isMaker(own);
    const reading: ReadingTexts = { regex, make: isMade ? own : undefined, own: isMade ? undefined : own };
    return together(given.signal, (signal) => LanguageModel.#load(folder, { ...given, adapter, signal, home }, reading));
  }

  static async #load(
    folder: Folder,
    { adapter, home, ...given }: Omit<types.ModelLoadOptions, "adapter"> & { adapter: Folder | undefined; home: Home },
    reading: ReadingTexts,
  ): Promise<LanguageModel> {
    // Meanwhile, unless the weights' own file may have it; where both fail, the model's reason is
    // told.
    const beside = mayBeGguf(folder) ? undefined : textsOf(folder, undefined, reading, given);
    beside?.catch(() => {});
    const { handle, info, own } = await loadModel("text", folder, { ...given, adapter, home });
    try {
      const texts = await (beside ?? textsOf(folder, own, reading, given));
      return new LanguageModel(handle, info, texts, given);
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
    const [output, hidden] = await this.#busy(() => use(caches, () => run(request, { signal, onProgress })));
    return hidden ? Object.assign(tensorOf(output), { hiddenStates: tensorOf(hidden) }) : tensorOf(output);
  }

  async maps(ids: types.TokenIds, layer: number, options?: { signal?: AbortSignal | undefined }): Promise<AttentionMaps> {
    const { signal } = checkOptions("options", options, ["signal"]);
    const [maps] = await mapsOfLayers(this, ids, [layer], signal);
    return maps ?? fail("OPTION", "layer", "a layer", "none");
  }

  async embed(
    texts: string | types.TokenIds | readonly (string | readonly number[] | Int32Array)[],
    options?: types.EmbedOptions,
  ): Promise<Tensor> {
    const given = checkOptions("options", options, EMBED);
    const { pooling, normalize, addSpecialTokens, deterministic, signal, onProgress } = given;
    const how = pooling ?? "mean";
    if (!POOLINGS.includes(how)) fail("OPTION", "pooling", oneOf(POOLINGS), show(pooling));
    flagOf("addSpecialTokens", addSpecialTokens, true);
    checkDense("texts", texts);
    const model = resourceOf<Model>(this);
    const request = encode(requests.embedTexts, {
      model: live(model.handle),
      texts: this.#prompts(promptOf(texts), addSpecialTokens === undefined ? undefined : { addSpecialTokens }, "texts"),
      pooling: how,
      normalize: flagOf("normalize", normalize, true),
      deterministic: deterministic ?? false,
    });
    const [output] = await this.#busy(() => run(request, { signal, onProgress }));
    return tensorOf(output);
  }

  /** Something with the model, which outlives its end for it. */
  async #busy<T>(body: () => Promise<T>): Promise<T> {
    const model = resourceOf<Model>(this);
    model.calls++;
    try {
      return await body();
    } finally {
      model.calls--;
      release(model);
    }
  }

  async applyChatTemplate(messages: readonly types.ChatMessage[], options?: types.ChatTemplateOptions): Promise<string> {
    return promptOfChat(this.#chat, this.#template ?? undefined, new Conversation(messages), options ?? {});
  }

  chat(messages: readonly types.ChatMessage[], options?: types.ChatOptions): AsyncGenerator<types.GeneratedToken, void, undefined> {
    return this.#generate(undefined, options, new Conversation(messages));
  }

  generate(
    prompt: string | types.TokenIds | readonly (string | readonly number[] | Int32Array)[] | readonly types.ChatMessage[],
    options?: types.ChatOptions,
  ): AsyncGenerator<types.GeneratedToken, void, undefined> {
    // Nothing is done before the first token is asked for, but the prompt is that of now.
    if (isMessages(prompt)) return this.#generate(undefined, options, new Conversation(prompt));
    return this.#generate(promptOf(prompt), options);
  }

  /** The ids of a conversation, and what ends its answer. */
  async #turn(conversation: Conversation, { template, variables, addSpecialTokens, stopIds }: types.ChatOptions): Promise<Turn> {
    if (addSpecialTokens === true) fail("OPTION", "addSpecialTokens", "false, or nothing, with messages: their template has them", "true");
    const text = await promptOfChat(this.#chat, this.#template ?? undefined, conversation, { template, variables });
    const prompt = this.encode(text, { addSpecialTokens: false });
    return { prompt, stopIds: stopIds ?? endsOfTurn(this.config, this.#chat, addedTokens(this.#tokenizer)) };
  }

  /** The texts that a call makes of prompts or of a conversation, as a generator takes them. */
  async #asked(given: unknown, options: types.ChatOptions, conversation?: Conversation): Promise<Asked[]> {
    const { stop, stopIds, addSpecialTokens } = options;
    const turn = conversation && (await this.#turn(conversation, options));
    const prompt = turn?.prompt ?? given;
    checkDense("prompt", prompt);
    live(resourceOf<Model>(this).handle);
    flagOf("addSpecialTokens", addSpecialTokens, true);
    const count = countOf(options.n);
    const prompts = this.#prompts(prompt, addSpecialTokens === undefined ? undefined : { addSpecialTokens });
    const stops = this.#stops(stop);
    const tokenizer = this.#textual();
    checkStopIds(stopIds);
    const sampling = samplingOf({ ...options, stopIds: turn?.stopIds ?? stopIds });
    const each = prompts.flatMap((ids) => Array.from({ length: count }, () => ids));
    return each.map((prompt, index) => ({
      text: new Text(prompt, tokenizer, stops),
      request: { prompt, ...sampling(index % count) },
    }));
  }

  /** Goes on with what is given, or with a conversation. */
  async *#generate(
    given: unknown,
    options?: types.ChatOptions,
    conversation?: Conversation,
  ): AsyncGenerator<types.GeneratedToken, void, undefined> {
    const asked = checkOptions("options", options, conversation ? [...GENERATE, ...CHAT_OPTIONS] : GENERATE);
    checkSignal(asked.signal);
    const each = await this.#asked(given, asked, conversation);
    const { window, cache, deterministic, signal } = asked;
    if (!isAbsent(cache) && each.length !== 1) fail("OPTION", "cache", "one text with a cache", `${each.length} texts`);
    const caches = isAbsent(cache) ? [] : [cacheState(cache)];
    const texts = each.map(({ text }) => text);
    const request = encode(requests.createGenerator, {
      model: this.#handle,
      texts: each.map(({ request }) => request),
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
        const rows = chosen((await steps.shift()) ?? []);
        if (rows.length === 0) return;
        ask();
        for (const row of rows) {
          const text = texts[row.index];
          // One that has come to a stop string, of which the steps ahead did not know.
          if (!text || text.ended) continue;
          if (stopped.signal.aborted) throw aborted(stopped.signal.reason);
          const token = text.push(row);
          // The backend knows nothing of stop strings. (A text alone is ended below.)
          if (token.finish && !row.finish && texts.length > 1) end(row.index).catch(() => {});
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

  async createBatch(options?: types.BatchOptions): Promise<GenerationBatch> {
    const { size, prefixBytes, stepTokens, window, deterministic } = checkOptions("options", options, BATCH);
    const places = wholeOf("size", size, 1, PLACES);
    const request = (): Request =>
      encode(requests.createGenerator, {
        model: this.#handle,
        texts: [],
        window,
        deterministic: deterministic ?? false,
        caches: [],
        cacheDtype: this.#cacheDtype,
        prefixBytes: wholeOf("prefixBytes", prefixBytes, 0, PREFIX_BYTES),
        stepTokens: wholeOf("stepTokens", stepTokens, 1, STEP_TOKENS),
      });
    // What is wrong with the options is told here.
    drop(await create("generator", request()));
    const ask = async (prompt: unknown, given: types.BatchGenerateOptions | undefined): Promise<Asked[]> => {
      const isChat = isMessages(prompt);
      const asked = checkOptions("options", given, isChat ? [...OF_TEXT, ...CHAT_OPTIONS] : OF_TEXT);
      checkSignal(asked.signal);
      return isChat ? this.#asked(undefined, asked, new Conversation(prompt)) : this.#asked(promptOf(prompt), asked);
    };
    return new GenerationBatch(places, request, ask);
  }

  /** The texts of a prompt, as ids. */
  #prompts(prompt: unknown, options: types.EncodeOptions | undefined, argument = "prompt"): Int32Array[] {
    const idsIn = (name: string, given: unknown): Int32Array => {
      const ids = idsOf(name, typeof given === "string" ? this.encode(given, options) : given);
      return ids.length > 0 ? ids : fail("OPTION", name, "1 id or more", "none");
    };
    if (typeof prompt === "string") return [idsIn(argument, prompt)];
    if (isArray(prompt) && prompt.length > 0 && prompt.every((item) => typeof item !== "number")) {
      return prompt.map((item: unknown, index) => idsIn(`${argument}[${index}]`, item));
    }
    const { data, shape } = tensorOfIds(argument, prompt);
    const [B, L] = shape;
    // Before anything is made for each text: of those without ids there may be any number.
    if (L === 0 && B > 0) fail("OPTION", argument, "1 id or more", "none");
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

/** The handle of a model that is alive. */
export const handleOf = (model: LanguageModel): Handle => live(resourceOf<Model>(model).handle);

/**
 * The maps of several layers of one pass, all of which have as many; with a cache of the new tokens
 * over all, `[1, H, L, T]`.
 */
export async function mapsOfLayers(
  model: LanguageModel,
  ids: types.TokenIds,
  layers: readonly number[],
  signal: AbortSignal | null | undefined,
  cache?: types.ModelCache,
): Promise<AttentionMaps[]> {
  const caches = cache ? [cacheState(cache)] : [];
  const request = encode(requests.textForward, {
    model: live(resourceOf<Model>(model).handle),
    ids: tensorOfIds("ids", ids),
    caches: caches.map(({ handle }) => handle),
    logits: "none",
    hiddenStates: false,
    layer: layers,
    deterministic: false,
  });
  const outputs = await use(caches, () => run(request, { signal }));
  const each = outputs.length / layers.length;
  return layers.map((_, i) => mapsOf(outputs.slice(i * each, (i + 1) * each)));
}

/** A whole number, or what stands for none. */
function wholeOf(name: string, given: number | undefined, least: number, otherwise: number): number {
  const value = given ?? otherwise;
  return Number.isSafeInteger(value) && value >= least ? value : fail("OPTION", name, `a whole number from ${least}`, show(given));
}

/**
 * Refuses a stop id that is no number, by its place. (What is no list is for the request to
 * refuse.)
 */
function checkStopIds(given: unknown): void {
  if (!isArray(given)) return;
  for (let i = 0; i < given.length; i++) if (typeof given[i] !== "number") fail("OPTION", `stopIds[${i}]`, "a number", show(given[i]));
}
