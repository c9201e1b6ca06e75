// What is seen of a training: figures, the curve of its loss, λ, samples, maps before and after.
// Draws what it is given; trains nothing.

import type { AttentionMaps, Tensor } from "diffattn";
import type { TrainStep } from "diffattn/training";
import { attentionRow, drawMap } from "diffattn/viz";
import { curveStyles } from "../../diffattn/src/curve.js";
import { byId, element } from "./dom.js";
import { perFrame } from "./frames.js";
import { drawLoss } from "./train-common.js";
import type { Before } from "./train-run.js";

/** Samples that are shown: the first, and the last ones. */
const SAMPLES = 12;

const timeOf = (seconds: number): string =>
  seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
const lambdaOf = (value: number | null | undefined): string => (value == null ? "–" : value.toFixed(4).replace("-", "−"));

export class TrainView {
  readonly #results = byId("train-results", HTMLElement);
  readonly #figures = byId("train-figures", HTMLElement);
  readonly #curve = byId("train-curve", HTMLElement);
  readonly #samples = byId("train-samples", HTMLOListElement);
  readonly #maps = byId("train-maps", HTMLElement);
  readonly #lambda = byId("train-lambda", HTMLTableElement);
  readonly #layer = byId("train-layer", HTMLSelectElement);
  readonly #head = byId("train-head", HTMLSelectElement);
  readonly #map = byId("train-map", HTMLSelectElement);
  readonly #facts = new Map<string, HTMLElement>();
  #history: readonly TrainStep[] = [];
  #steps = 0;
  #isOver = false;
  #begun = 0;
  #before: Before | undefined;
  #now: { readonly layer: number; readonly step: number; readonly maps: AttentionMaps } | undefined;
  readonly #frames = perFrame(() => this.#drawSteps());

  /** `onLayer`: told that another layer's maps are wanted. */
  constructor(onLayer: () => void) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(curveStyles);
    document.adoptedStyleSheets.push(sheet);
    this.#layer.addEventListener("change", () => {
      this.#drawMaps();
      onLayer();
    });
    for (const select of [this.#head, this.#map]) select.addEventListener("change", () => this.#drawMaps());
    new ResizeObserver(() => this.#frames.ask()).observe(this.#results);
  }

  get layer(): number {
    return Number(this.#layer.value);
  }

  /** Nothing to be seen yet of a training of so many steps. */
  begin(steps: number): void {
    this.#history = [];
    this.#steps = steps;
    this.#isOver = false;
    this.#begun = performance.now();
    this.#before = this.#now = undefined;
    this.#facts.clear();
    for (const place of [this.#figures, this.#curve, this.#samples, this.#maps]) place.replaceChildren();
    this.#lambda.hidden = true;
    this.#results.hidden = true;
  }

  /** The time of the first step begins now. */
  starts(): void {
    this.#begun = performance.now();
  }

  /** A step was made. */
  step(history: readonly TrainStep[]): void {
    this.#history = history;
    this.#results.hidden = false;
    this.#frames.ask();
  }

  /** No step follows; drawn at once, for frames of a page that is not seen do not come. */
  end(): void {
    this.#isOver = true;
    this.#frames.ask();
    this.#frames.flush();
  }

  /** How the model went on with the prompt after so many steps. */
  sample(step: number, prompt: string, text: string): void {
    const when = step === 0 ? "before the first step" : `after step ${step}`;
    const line = element("li");
    const said = element("p", "", { class: "message-text" });
    said.append(element("span", prompt, { class: "given" }), text);
    line.append(element("p", when, { class: "who" }), said);
    this.#samples.append(line);
    if (this.#samples.children.length > SAMPLES) this.#samples.children[1]?.remove();
    this.#results.hidden = false;
  }

  /** What there was before the first step. */
  before(before: Before): void {
    this.#before = before;
    const heads = before.maps[0]?.diff.shape[1] ?? 0;
    this.#fill(this.#layer, before.maps.length, Math.floor(before.maps.length / 2));
    this.#fill(this.#head, heads, 0);
    this.#drawMaps();
  }

  /** A layer's maps after so many steps. */
  now(layer: number, step: number, maps: AttentionMaps): void {
    this.#now = { layer, step, maps };
    this.#drawMaps();
  }

  /** As many choices; what was chosen before stays. */
  #fill(select: HTMLSelectElement, count: number, first: number): void {
    if (select.options.length === count) return;
    select.replaceChildren(...Array.from({ length: count }, (_, i) => new Option(String(i + 1), String(i))));
    select.value = String(first);
  }

  #fact(name: string, value: string): void {
    let known = this.#facts.get(name);
    if (!known) {
      const pair = element("div");
      known = element("dd");
      pair.append(element("dt", name), known);
      this.#figures.append(pair);
      this.#facts.set(name, known);
    }
    known.textContent = value;
  }

  #drawSteps(): void {
    const last = this.#history.at(-1);
    if (!last) return;
    const measured = this.#history.flatMap(({ evalLoss }) => evalLoss ?? []).at(-1);
    const left = (((performance.now() - this.#begun) / 1000) * (this.#steps - last.step)) / last.step;
    this.#fact("step", `${last.step} of ${this.#steps}`);
    this.#fact("loss", last.loss.toFixed(3));
    const [was, is] = [this.#before?.loss, measured].map((loss) => loss?.toFixed(3) ?? "–");
    this.#fact("not trained on", was === "–" ? "–" : `${was} → ${is}`);
    this.#fact("tokens/s", last.tokensPerSecond.toFixed(0));
    this.#fact("time left", this.#isOver ? "–" : timeOf(left));
    drawLoss(this.#curve, this.#history, this.#results.clientWidth);
    this.#drawLambda(last);
  }

  #drawLambda({ lambda, step }: TrainStep): void {
    const row = (name: string, cells: readonly string[], kind: "th" | "td"): HTMLTableRowElement => {
      const made = element("tr");
      const scope = { scope: "col" };
      made.append(element("th", name, { scope: kind === "th" ? "col" : "row" }));
      made.append(...cells.map((cell) => (kind === "th" ? element("th", cell, scope) : element("td", cell))));
      return made;
    };
    this.#lambda.hidden = false;
    this.#lambda.tHead?.replaceChildren(
      row(
        "layer",
        lambda.map((_, i) => String(i + 1)),
        "th",
      ),
    );
    this.#lambda.tBodies[0]?.replaceChildren(
      row("before the first step", this.#before?.lambda.map(lambdaOf) ?? [], "td"),
      row(`after step ${step}`, lambda.map(lambdaOf), "td"),
    );
  }

  #drawMaps(): void {
    const before = this.#before;
    const maps = before?.maps[this.layer];
    if (!before || !maps) return;
    const now = this.#now?.layer === this.layer ? this.#now : undefined;
    const head = Number(this.#head.value);
    const kind = this.#map.value as "diff" | "map1" | "map2";
    const tokens = before.tokens;
    const both = [maps, ...(now ? [now.maps] : [])];
    // One scale for both, or they could not be compared.
    const max = Math.max(...both.flatMap((of) => tokens.map((_, query) => attentionRow(of, { head, query }).max)));
    const drawn = (of: AttentionMaps, when: string): HTMLElement => {
      const made = element("figure");
      const name = `${kind === "diff" ? "difference" : kind.replace("map", "map ")}, layer ${this.layer + 1}, head ${head + 1}, ${when}`;
      made.append(element("figcaption", when));
      const cell = Math.max(4, Math.min(22, 300 / tokens.length));
      const map = of[kind] as Tensor;
      made.insertAdjacentHTML("beforeend", drawMap(map, { head, tokens, cell, max, signed: kind === "diff", styled: false }));
      made.querySelector("svg")?.setAttribute("aria-label", name);
      made.querySelector("title")?.replaceChildren(name);
      return made;
    };
    const figures = [drawn(maps, "before the first step")];
    if (now && now.step > 0) figures.push(drawn(now.maps, `after step ${now.step}`));
    this.#maps.replaceChildren(...figures);
    this.#results.hidden = false;
  }
}
