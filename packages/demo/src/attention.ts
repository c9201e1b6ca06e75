// What a token attends to: rows, maps and noise of one head, drawn by diffattn/viz, and their
// export. Asks for maps; computes none.

import type { AttentionMaps, Tensor } from "diffattn";
import {
  attentionNoise,
  attentionRow,
  drawMap,
  drawMaps,
  drawNoise,
  drawRow,
  mapsToJson,
  stylesheet,
  summarizeNoise,
  svgToPng,
  type AttentionNoise,
} from "diffattn/viz";
import { partsOf } from "./attention-parts.js";
import { element, reasonOf } from "./dom.js";
import type { LayerMaps } from "./layer-maps.js";
import { spansOf, typicalOf, verdictOf, type Planted, type Spans } from "./noise.js";
import { save } from "./save.js";
import { seen, TokenList } from "./tokens.js";
import type { Voice } from "./voice.js";

/** A text that is finished, and where its maps come from. */
export interface Written extends LayerMaps {
  readonly tokens: readonly string[];
  /** How many of the tokens the prompt has. */
  readonly ofPrompt: number;
  /** What is known of the prompt. */
  readonly planted: Planted | undefined;
}

/** A head among those of all layers. */
interface Place {
  readonly layer: number;
  readonly head: number;
  readonly heads: number;
}

const HEADINGS = ["map 1", "map 2", "difference: map 1 − λ · map 2"];
const TABLE = ["token", "position"];
/** Rows of the table. */
const STRONGEST = 6;
/** Milliseconds that typing rests before all layers are asked. */
const REST = 250;

/** With a sign, and a real minus. */
const signed = (value: number): string => `${value > 0 ? "+" : ""}${value.toFixed(4).replace("-", "−")}`;

/**
 * The drawings' own rules: a style element in each is what a strict Content-Security-Policy
 * forbids.
 */
export function adoptStyles(): void {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(stylesheet);
  document.adoptedStyleSheets.push(sheet);
}

/** A plain layer's heads have one map, from which nothing is subtracted. */
const isPlain = ({ maps }: AttentionMaps): boolean => maps?.length === 1;

/** The maps that a difference is made of; none of a plain layer, whose one map is shown as it. */
const termsOf = (maps: AttentionMaps): Tensor[] =>
  isPlain(maps) ? [] : (maps.maps ?? [maps.map1, maps.map2].filter((map) => map !== undefined));

function headingsOf(maps: AttentionMaps): string[] {
  const { length } = termsOf(maps);
  if (length === 0) return ["map"];
  return length === 2 ? HEADINGS : [...Array.from({ length }, (_, i) => `map ${i + 1}`), "difference"];
}

/** As they are drawn: a plain layer's map once. */
const drawable = (maps: AttentionMaps): AttentionMaps => (isPlain(maps) ? { diff: maps.diff } : maps);

export class Attention {
  #written: Written | undefined;
  #maps: AttentionMaps | undefined;
  /** What is asked and what answers it, where that is known. */
  #spans: Spans | undefined;
  #noise: AttentionNoise | undefined;
  /** What the noise over all heads is of; an answer to anything older is dropped. */
  #summed = 0;
  #resting: ReturnType<typeof setTimeout> | undefined;
  /** The layer and head were chosen by hand. */
  #chosen = false;
  #query = 0;
  #max = 1;
  /** What is asked of the model last; an answer to anything older is dropped. */
  #asked = 0;
  #frame = 0;
  #width = 0;

  readonly #parts: ReturnType<typeof partsOf>;
  /** The tokens of the text, which are coloured. */
  readonly list: TokenList;

  /** `prefix`: of the ids of this view's elements. */
  constructor(
    prefix: string,
    readonly voice: Voice,
  ) {
    this.#parts = partsOf(prefix);
    this.list = new TokenList(this.#parts.text, (index, byKeyboard) => this.choose(index, byKeyboard));
    this.#parts.layer.addEventListener("change", () => {
      this.#chosen = true;
      void this.#load();
    });
    this.#parts.head.addEventListener("change", () => {
      this.#chosen = true;
      this.#drawAll();
    });
    for (const input of [this.#parts.answer, this.#parts.question])
      input.addEventListener("input", () => {
        this.#readSpans();
        this.#drawNoise();
        this.#markSpans();
        clearTimeout(this.#resting);
        this.#resting = setTimeout(() => void this.#sumUp(), REST);
      });
    for (const kind of ["svg", "png", "json"] as const)
      this.#parts.exports[kind].addEventListener(
        "click",
        () => void this.#export(kind).catch((e: unknown) => this.voice.complain(reasonOf(e))),
      );
    for (const type of ["pointermove", "click"] as const) this.#parts.figures.addEventListener(type, (event) => this.#pointAtMap(event));
    new ResizeObserver(() => {
      if (this.#maps && Math.abs(this.#parts.section.clientWidth - this.#width) > 8) this.#drawAll();
    }).observe(this.#parts.section);
  }

  /** Nothing to be seen until the next text. */
  clear(): void {
    this.list.clear();
    this.#asked += 1;
    this.#summed += 1;
    clearTimeout(this.#resting);
    this.#written = this.#maps = this.#noise = this.#spans = undefined;
    this.#parts.spanKey.hidden = true;
    this.#parts.section.hidden = true;
  }

  /** Shows what the tokens of a finished text attend to, the last one first. */
  async show(written: Written): Promise<void> {
    this.#written = written;
    this.#query = written.tokens.length - 1;
    if (this.#parts.layer.options.length !== written.layers) {
      this.#parts.layer.replaceChildren(...Array.from({ length: written.layers }, (_, i) => new Option(String(i + 1), String(i))));
      this.#parts.layer.value = String(Math.floor(written.layers / 2));
    }
    // Words of the text before say nothing of this one.
    if (written.planted || !written.tokens.join("").includes(this.#parts.answer.value)) {
      this.#parts.answer.value = written.planted?.answer ?? "";
      this.#parts.question.value = written.planted?.question ?? "";
    }
    this.#readSpans();
    const typical = await this.#sumUp();
    if (this.#written !== written) return;
    if (typical && !this.#chosen) {
      this.#parts.layer.value = String(typical.layer);
      this.#fillHeads(typical.heads);
      this.#parts.head.value = String(typical.head);
    }
    await this.#load();
  }

  /** Another token is chosen. */
  choose(query: number, byKeyboard: boolean): void {
    if (!this.#maps || query === this.#query) return;
    this.#query = query;
    this.list.mark(query);
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      this.#drawRow();
      this.#markQuery();
      if (byKeyboard) this.voice.say(this.#sentence());
    });
  }

  async #load(): Promise<void> {
    const written = this.#written;
    if (!written) return;
    const asked = ++this.#asked;
    try {
      const maps = await written.maps(Number(this.#parts.layer.value));
      if (asked !== this.#asked) return;
      this.#maps = maps;
    } catch (error) {
      if (asked === this.#asked) this.voice.complain(reasonOf(error));
      return;
    }
    this.#fillHeads(this.#maps.diff.shape[1] ?? 0);
    this.#parts.section.hidden = false;
    this.#drawAll();
  }

  #fillHeads(heads: number): void {
    if (this.#parts.head.options.length !== heads)
      this.#parts.head.replaceChildren(...Array.from({ length: heads }, (_, i) => new Option(String(i + 1), String(i))));
  }

  get #head(): number {
    return Number(this.#parts.head.value);
  }

  #drawAll(): void {
    const maps = this.#maps;
    if (!maps) return;
    this.#width = this.#parts.section.clientWidth;
    this.#drawFigures(maps);
    this.#drawRow();
    this.#drawNoise();
    this.list.mark(this.#query);
  }

  #drawFigures(maps: AttentionMaps): void {
    const all = [...termsOf(maps), maps.diff];
    const headings = headingsOf(maps);
    const tokens = maps.diff.shape[3] ?? 1;
    this.#max = Math.max(...Array.from({ length: tokens }, (_, query) => attentionRow(maps, { head: this.#head, query }).max));
    // As wide as the widest legend, so that all three are of one size.
    const cell = Math.max(1, 330 / tokens);
    const drawn = all.map((map, i) => {
      const made = element("figure");
      made.append(element("figcaption", headings[i]));
      const svg = drawMap(map, { head: this.#head, cell, max: this.#max, signed: map === maps.diff && all.length > 1, styled: false });
      made.insertAdjacentHTML("beforeend", svg);
      // The caption is what is seen; the name says which of the layers and heads.
      const name = `${headings[i] ?? ""}, ${this.#place()}`;
      made.querySelector("svg")?.setAttribute("aria-label", name);
      made.querySelector("title")?.replaceChildren(name);
      return made;
    });
    this.#parts.figures.replaceChildren(...drawn);
    this.#markQuery();
    this.#markSpans();
  }

  /** The matrix in each drawing: the first frame; the second is the legend's. */
  #frames(): SVGRectElement[] {
    return Array.from(this.#parts.figures.querySelectorAll("svg"), (svg) => svg.querySelector<SVGRectElement>(".da-frame")).filter(
      (f) => f !== null,
    );
  }

  /** Draws a box into every map: rows and columns are half-open ranges of tokens. */
  #box(kind: "mark" | "span", rows: readonly [number, number], columns: readonly [number, number]): void {
    const count = this.#maps?.diff.shape[2] ?? 1;
    for (const frame of this.#frames()) {
      const svg = frame.ownerSVGElement;
      const box = svg?.querySelector(`.${kind}`) ?? document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const { x, y, width, height } = frame;
      const across = width.baseVal.value / count;
      const down = height.baseVal.value / count;
      for (const [key, value] of Object.entries({
        class: kind,
        x: x.baseVal.value + columns[0] * across,
        y: y.baseVal.value + rows[0] * down,
        width: (columns[1] - columns[0]) * across,
        height: (rows[1] - rows[0]) * down,
      }))
        box.setAttribute(key, String(value));
      frame.after(box);
    }
  }

  #markQuery(): void {
    this.#box("mark", [this.#query, this.#query + 1], [0, this.#maps?.diff.shape[3] ?? 1]);
  }

  /** Where the question looks at the answer. */
  #markSpans(): void {
    const spans = this.#spans;
    this.list.markSpans(spans);
    this.#parts.spanKey.hidden = !spans;
    if (spans) this.#box("span", spans.rows, [spans.answer[0] ?? 0, (spans.answer.at(-1) ?? 0) + 1]);
    else for (const old of this.#parts.figures.querySelectorAll(".span")) old.remove();
  }

  #pointAtMap(event: MouseEvent): void {
    const svg = (event.target as Element).closest("svg");
    const frame = this.#frames().find((f) => f.ownerSVGElement === svg);
    if (!frame) return;
    const { top, height, left, width } = frame.getBoundingClientRect();
    const count = this.#maps?.diff.shape[2] ?? 0;
    const query = Math.floor(((event.clientY - top) / height) * count);
    if (query >= 0 && query < count && event.clientX >= left && event.clientX <= left + width) this.choose(query, false);
  }

  #place(): string {
    return `layer ${Number(this.#parts.layer.value) + 1}, head ${this.#head + 1}`;
  }

  #title(): string {
    const token = this.#written?.tokens[this.#query] ?? "";
    return `What “${token.trim() || seen(token)}” attends to (${this.#place()})`;
  }

  /** The strongest weights of the difference, by size. */
  #strongest(count: number): { key: number; token: string; terms: number[]; diff: number }[] {
    if (!this.#maps) return [];
    const { terms, diff } = attentionRow(drawable(this.#maps), { head: this.#head, query: this.#query });
    return diff
      .map((value, key) => ({
        key,
        token: seen(this.#written?.tokens[key] ?? ""),
        terms: terms.map((term) => term[key] ?? 0),
        diff: value,
      }))
      .sort((a, b) => Math.abs(b.diff) - Math.abs(a.diff))
      .slice(0, count);
  }

  #sentence(): string {
    const most = this.#strongest(3).map(({ token, diff }) => `${token.trim()} ${signed(diff)}`);
    return `${this.#title()}: ${most.join(", ")}`;
  }

  #drawRow(): void {
    const maps = this.#maps;
    if (!maps) return;
    const values = attentionRow(drawable(maps), { head: this.#head, query: this.#query });
    this.list.colour(values.diff, values.max);
    this.#parts.heading.textContent = this.#title();
    this.#parts.row.innerHTML = drawRow(drawable(maps), { ...this.#rowOptions(maps), styled: false });
    const columns = headingsOf(maps).map((heading) => heading.replace(/:.*/, ""));
    this.#parts.strongest.caption?.replaceChildren(`The ${STRONGEST} tokens that weigh most in the ${columns.at(-1) ?? ""}`);
    this.#parts.strongest.tHead?.rows[0]?.replaceChildren(...[...TABLE, ...columns].map((text) => element("th", text, { scope: "col" })));
    this.#parts.strongest.tBodies[0]?.replaceChildren(
      ...this.#strongest(STRONGEST).map(({ key, token, terms, diff }) => {
        const line = element("tr");
        line.append(element("th", token, { scope: "row" }), element("td", String(key + 1)));
        for (const value of [...terms.map((v) => v.toFixed(4)), terms.length > 0 ? signed(diff) : diff.toFixed(4)])
          line.append(element("td", value));
        return line;
      }),
    );
    this.#noisePicture();
  }

  #rowOptions(maps: AttentionMaps) {
    const width = Math.max(240, Math.min(1100, this.#parts.section.clientWidth));
    return { head: this.#head, query: this.#query, tokens: this.#written?.tokens ?? [], headings: headingsOf(maps), width };
  }

  /** Finds the words of both fields in the text. */
  #readSpans(): void {
    const tokens = this.#written?.tokens ?? [];
    const words = { answer: this.#parts.answer.value.trim(), question: this.#parts.question.value.trim() };
    const found = words.answer === "" ? "" : spansOf(tokens, words);
    this.#spans = typeof found === "string" ? undefined : found;
    if (typeof found === "string")
      this.#parts.noiseRule.textContent =
        `${found} Which tokens matter to which is not known here, and without that no figure means anything. Name the words of the text that answer a question, and the question after them.`.trim();
  }

  #drawNoise(): void {
    const spans = this.#spans;
    this.#noise = undefined;
    const isDifference = this.#maps !== undefined && !isPlain(this.#maps);
    this.#parts.noisePart.hidden = !isDifference;
    if (this.#maps && isDifference && spans) {
      this.#noise = attentionNoise(this.#maps, { head: this.#head, rows: spans.rows, relevant: spans.answer });
      const asks = spans.rows[1] - spans.rows[0];
      this.#parts.noiseRule.textContent = `Here, in ${this.#place()}: of the attention of each of the question’s ${asks} tokens, by size, the share beside the ${spans.answer.length} tokens of the answer, which are the same for both maps and their difference. In the maps, the box is where the question looks at the answer.`;
    }
    this.#parts.noiseOption.disabled = !this.#noise;
    if (!this.#noise && this.#parts.picture.value === "noise") this.#parts.picture.value = "maps";
    this.#noisePicture();
  }

  /**
   * Says what the noise is over all layers and heads, which are asked one after the other, away
   * from the page. Gives the place of a typical head, or undefined where nothing is known, or where
   * something else is asked by now.
   */
  async #sumUp(): Promise<Place | undefined> {
    const mine = ++this.#summed;
    const written = this.#written;
    const spans = this.#spans;
    this.#parts.noiseAll.textContent = "";
    if (!written || !spans) return undefined;
    try {
      const noises: AttentionNoise[] = [];
      const places: Place[] = [];
      for (let at = 0; at < written.layers; at += 1) {
        const maps = await written.mapsUpTo(spans.rows[1], at);
        if (mine !== this.#summed) return undefined;
        if (isPlain(maps)) continue;
        const heads = maps.diff.shape[1] ?? 0;
        for (let of = 0; of < heads; of += 1) {
          noises.push(attentionNoise(maps, { head: of, rows: spans.rows, relevant: spans.answer }));
          places.push({ layer: at, head: of, heads });
        }
      }
      if (noises.length === 0) return undefined;
      const summary = summarizeNoise(noises);
      this.#parts.noiseAll.textContent = `${verdictOf(summary)}${this.#ending(written, spans)}`;
      return places[typicalOf(noises, summary)];
    } catch (error) {
      if (mine === this.#summed) this.voice.complain(reasonOf(error));
      return undefined;
    }
  }

  /**
   * Whether the model found the answer, where the text says: the prompt ends with the question,
   * whose words begin the answer.
   */
  #ending({ tokens, ofPrompt }: Written, { rows }: Spans): string {
    const [wanted, asked] = [this.#parts.answer.value.trim(), this.#parts.question.value.trim()];
    if (asked === "" || !wanted.startsWith(asked) || rows[1] !== ofPrompt || tokens.length === ofPrompt) return "";
    const found = tokens.slice(ofPrompt).join("").trimStart().startsWith(wanted.slice(asked.length).trim().replace(/\W$/, ""));
    return ` The model ${found ? "goes on" : "does not go on"} with the answer.`;
  }

  #noisePicture(): void {
    this.#parts.noisePlace.innerHTML = this.#noise ? drawNoise(this.#noise, { ...this.#noiseOptions(), styled: false }) : "";
  }

  #noiseOptions() {
    return {
      tokens: this.#written?.tokens ?? [],
      query: this.#query,
      width: Math.max(240, Math.min(1100, this.#parts.section.clientWidth)),
    };
  }

  /** The chosen picture as a file of its own, in the theme of the page. */
  #drawExport(theme: "light" | "dark"): string {
    const maps = this.#maps;
    if (!maps) throw new Error("there are no maps yet");
    if (this.#parts.picture.value === "row")
      return drawRow(drawable(maps), { ...this.#rowOptions(maps), width: 900, title: this.#title(), theme });
    if (this.#parts.picture.value === "noise" && this.#noise)
      return drawNoise(this.#noise, {
        ...this.#noiseOptions(),
        width: 900,
        title: `Attention on irrelevant tokens (${this.#place()})`,
        theme,
      });
    const tokens = this.#written?.tokens ?? [];
    return drawMaps(drawable(maps), {
      head: this.#head,
      tokens,
      headings: headingsOf(maps),
      title: `Attention maps (${this.#place()})`,
      max: this.#max,
      theme,
    });
  }

  async #export(kind: "svg" | "png" | "json"): Promise<void> {
    const what = kind === "json" ? "maps" : this.#parts.picture.value;
    const name = `diffattn-layer${Number(this.#parts.layer.value) + 1}-head${this.#head + 1}-${what}.${kind}`;
    if (kind === "json") {
      if (!this.#maps) throw new Error("there are no maps yet");
      const tokens = this.#written?.tokens ?? [];
      const about = { layer: Number(this.#parts.layer.value), text: tokens.join("") };
      const json = JSON.stringify(mapsToJson(this.#maps, { head: this.#head, tokens, about, noise: this.#noise }));
      save(name, new Blob([json], { type: "application/json" }));
      return;
    }
    const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const svg = this.#drawExport(theme);
    save(name, kind === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : await svgToPng(svg));
  }
}
