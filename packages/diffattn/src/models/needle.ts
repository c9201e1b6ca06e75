// The needle task: whether a model finds a number that stands somewhere in a long text, and how
// much of its attention is there when it is asked for. Maps are those of a prompt's last token,
// over a cache of all before it.

import { checkOptions, isArray, isAbsent, show } from "../check.js";
import { DiffAttnError, fail } from "../errors.js";
import { checkSignal } from "../run.js";
import { type HeadMass, headMasses, Masses } from "./attention-mass.js";
import { checkLength, checkProgress, modelOf, wholeOf } from "./evaluate.js";
import { type Encode, firstIds, openData } from "./evaluation-data.js";
import { type LanguageModel, mapsOfLayers } from "./language-model.js";
import { CITIES, PROSE } from "./needle-prose.js";
import {
  beginningOf,
  type Draw,
  drawOf,
  idsWithin,
  isRight,
  leastOf,
  needleOf,
  type Parts,
  partsOfIds,
  partsOfText,
  type Prompt,
  type PromptParts,
  promptOf,
  questionOf,
} from "./needle-text.js";
import type * as types from "./types.js";

const OPTIONS = ["lengths", "depths", "draws", "seed", "text", "attention", "signal", "onProgress"];
const DEPTHS = [0, 0.25, 0.5, 0.75, 1];
const DRAWS = 20;
/** Tokens that are written at most: five digits, a space, and what holds text back. */
const ANSWER = 16;
const DIGITS = 5;
/** Numbers whose tokens are as many as most others'. */
const NUMBERS = ["10000", "98765"];
/** Running text beyond the longest prompt, so that draws begin at different places. */
const SPARE = 2;

type Signal = AbortSignal | undefined;

/** A layer that attends. */
interface Attending {
  readonly layer: number;
  /** Maps that there are of it, the difference among them. */
  readonly maps: number;
}

/** The layers that have maps: of one token they are small. */
async function attendingLayers(model: LanguageModel, id: number, signal: Signal): Promise<Attending[]> {
  const found: Attending[] = [];
  for (let layer = 0; layer < Number(model.config["num_hidden_layers"]); layer++) {
    try {
      const [maps] = await mapsOfLayers(model, [id], [layer], signal);
      if (!maps) continue;
      const terms = maps.maps?.length ?? 2;
      found.push({ layer, maps: terms + 1 });
    } catch (error) {
      // One of another kind.
      if (!(error instanceof DiffAttnError && error.code === "OPTION")) throw error;
    }
  }
  return found;
}

/** Layers whose maps are asked for at once: those that have as many. */
function groupsOf(layers: readonly Attending[]): number[][] {
  const groups = new Map<number, number[]>();
  for (const { layer, maps } of layers) groups.set(maps, [...(groups.get(maps) ?? []), layer]);
  return [...groups.values()];
}

/**
 * What all heads of all layers have of the needle, at the prompt's last token. `cache` knows the
 * prompt, and what was written after it.
 */
async function massesOf({ model, groups, signal }: Task, { ids, span }: Prompt, cache: types.ModelCache): Promise<HeadMass[]> {
  const heads: HeadMass[] = [];
  for (const layers of groups) {
    await cache.rewind(ids.length - 1);
    const maps = await mapsOfLayers(model, ids.slice(-1), layers, signal, cache);
    heads.push(...maps.flatMap((layer) => headMasses(layer, span)));
  }
  return heads;
}

/** What a model writes after a prompt: enough of it for the number. */
async function answerOf(model: LanguageModel, prompt: readonly number[], cache: types.ModelCache, signal: Signal): Promise<string> {
  let answer = "";
  for await (const { text } of model.generate(prompt, { maxNewTokens: ANSWER, cache, signal })) {
    answer += text;
    if (answer.trimStart().length >= DIGITS) break;
  }
  return answer;
}

/** The running text that needles are hidden in. */
async function partsOf(given: types.NeedleOptions["text"], encode: Encode, most: number, signal: Signal): Promise<Parts> {
  if (isAbsent(given)) return partsOfText(encode, PROSE, most);
  if (typeof given === "string") return partsOfText(encode, given, most);
  const data = await openData(given, (text) => [...firstIds(encode, text, most)], most, signal);
  try {
    return partsOfIds(await data.ids(0, data.length));
  } finally {
    data.close();
  }
}

/** A list of numbers that an option names. */
function listOf(name: string, given: unknown, wanted: string, isOne: (x: unknown) => boolean): number[] {
  if (!isArray(given) || given.length === 0) return fail("OPTION", name, `an array of ${wanted}`, show(given));
  for (let i = 0; i < given.length; i++) if (!isOne(given[i])) fail("OPTION", `${name}[${i}]`, wanted, show(given[i]));
  return [...new Set(given as number[])];
}

const isLength = (x: unknown): boolean => Number.isSafeInteger(x) && (x as number) > 0;
const isDepth = (x: unknown): boolean => typeof x === "number" && x >= 0 && x <= 1;

/** The figures of a length and a depth, as they come. */
class Cell {
  right = 0;
  readonly masses = new Masses();

  constructor(readonly depth: number) {}
}

/** What all prompts of an evaluation share. */
interface Task {
  readonly model: LanguageModel;
  readonly depths: readonly number[];
  /** The layers that have maps, those together that are asked for at once. */
  readonly groups: readonly (readonly number[])[];
  readonly signal: Signal;
  /** Told of each prompt. */
  readonly onPrompt: () => void;
}

/** All prompts of one length. */
class Series {
  /** Those with the deepest needles come first: what the next begins with like them is cached. */
  readonly #cells: readonly Cell[];

  constructor(
    readonly task: Task,
    readonly length: number,
  ) {
    this.#cells = task.depths.map((depth) => new Cell(depth)).sort((a, b) => b.depth - a.depth);
  }

  /** The prompts of a draw, and of so many what they attend to. */
  async run(draw: Draw, parts: PromptParts, isLooked: boolean, cache: types.ModelCache): Promise<void> {
    const { model, signal, onPrompt } = this.task;
    for (const cell of this.#cells) {
      const prompt = promptOf(parts, this.length, cell.depth, draw.start);
      if (isRight(await answerOf(model, prompt.ids, cache, signal), draw)) cell.right++;
      if (isLooked) cell.masses.add(await massesOf(this.task, prompt, cache), prompt.span, this.length);
      onPrompt();
    }
  }

  /** What was found, in the order of the depths. */
  results(draws: number): types.NeedleCell[] {
    return this.task.depths.flatMap((depth) => {
      const cell = this.#cells.find((one) => one.depth === depth);
      if (!cell) return [];
      const { right, masses } = cell;
      return [{ length: this.length, depth, draws, right, accuracy: right / draws, attention: masses.summary() }];
    });
  }
}

/** What prompts are made of, whatever they hide. */
type Shared = Pick<PromptParts, "beginning" | "parts">;

/** A draw with its ids. */
const partsOfDraw = (encode: Encode, draw: Draw, shared: Shared): PromptParts => ({
  ...shared,
  needle: idsWithin(encode, needleOf(draw)),
  question: idsWithin(encode, questionOf(draw)),
});

/** Refuses lengths that do not hold needle and question. */
function checkLeast(lengths: readonly number[], every: readonly PromptParts[]): void {
  const least = Math.max(...every.map(leastOf));
  const short = lengths.find((length) => length < least);
  if (short !== undefined) fail("OPTION", "lengths", `${least} tokens or more, as needle and question have`, String(short));
}

export async function evaluateNeedle(given: types.LanguageModel, options: types.NeedleOptions): Promise<types.NeedleEvaluation> {
  const { depths, text, signal, onProgress, ...asked } = checkOptions("options", options, OPTIONS);
  checkSignal(signal);
  checkProgress(onProgress);
  const model = modelOf(given);
  const lengths = listOf("lengths", asked.lengths, "numbers of tokens", isLength);
  for (const length of lengths) checkLength("lengths", length, model);
  const depthsOf = isAbsent(depths) ? DEPTHS : listOf("depths", depths, "numbers from 0 to 1", isDepth);
  const draws = wholeOf("draws", asked.draws, 1, DRAWS);
  const seed = wholeOf("seed", asked.seed, 0, 0);
  const looked = wholeOf("attention", asked.attention, 0, draws);

  const encode: Encode = (words, how) => model.encode(words, how);
  const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
  const shared = { beginning: beginningOf(encode), parts: await partsOf(text, encode, SPARE * longest, signal) };
  const [first] = shared.parts;
  if (first?.[0] === undefined) return fail("OPTION", "text", "a text of 1 token or more", "none");
  // (Before anything is computed for any of them.)
  const every = CITIES.flatMap((city) => NUMBERS.map((number) => partsOfDraw(encode, { city, number, start: 0 }, shared)));
  checkLeast(lengths, every);
  const total = lengths.length * draws * depthsOf.length;
  let done = 0;
  const begin = performance.now();
  const layers = looked > 0 ? await attendingLayers(model, first[0], signal) : [];
  const onPrompt = (): void => onProgress?.({ done: ++done, total });
  const task: Task = { model, depths: depthsOf, groups: groupsOf(layers), signal, onPrompt };
  const cells: types.NeedleCell[] = [];
  for (const length of lengths) {
    const series = new Series(task, length);
    const cache = await model.createCache({ capacity: length + ANSWER });
    try {
      for (let index = 0; index < draws; index++) {
        const draw = drawOf(seed, length, index);
        const parts = partsOfDraw(encode, draw, shared);
        checkLeast([length], [parts]);
        await series.run(draw, parts, index < looked, cache);
      }
    } finally {
      cache.dispose();
    }
    cells.push(...series.results(draws));
  }
  return { cells, draws, seed, seconds: (performance.now() - begin) / 1000 };
}
