// The page's other training: a DIFF ViT learns to read digits from nothing, and is measured on
// pictures that it never saw. Start and stop, figures, a curve, and what it reads in some of them.
// What is computed is diffattn/training's, in a worker.

import { Trainer, type TrainStep } from "diffattn/training";
import { digitsOf, heldOut, options } from "../../../examples/digits/data.mjs";
import { byId, element, reasonOf } from "./dom.js";
import { perFrame } from "./frames.js";
import { drawLoss, leaveCore } from "./train-common.js";
import type { Voice } from "./voice.js";

/** Steps between two measurements. */
const MEASURED = 100;
/** Steps between two drawings of the curve: each takes a while of a core. */
const DRAWN = 20;
/** Held-out pictures that are shown. */
const SHOWN = 20;
/** Pixels of a picture to a side, and of one of them on the screen. */
const [SIDE, ZOOM] = [8, 4];

type Digits = ReturnType<typeof digitsOf>;
type DigitsTrainer = Awaited<ReturnType<typeof trainerOf>>;

const trainerOf = (data: Digits, signal: AbortSignal) => Trainer.create({ ...options, data, evalEvery: MEASURED, signal });

async function digitsAt(address: URL, signal: AbortSignal): Promise<Digits> {
  const response = await fetch(address, { signal });
  if (!response.ok) throw new Error(`digits.bin: expected the pictures, got the status ${response.status}`);
  return digitsOf(new Uint8Array(await response.arrayBuffer()));
}

/** The pixels of a picture. */
const pixelsOf = ({ images }: Digits, index: number): Float32Array<ArrayBuffer> =>
  images.data.slice(index * SIDE * SIDE, (index + 1) * SIDE * SIDE);

/** A picture, ink on paper. */
function drawn(pixels: Float32Array, label: string): HTMLCanvasElement {
  const canvas = element("canvas", "", { width: String(SIDE), height: String(SIDE), role: "img", "aria-label": label });
  canvas.style.width = canvas.style.height = `${SIDE * ZOOM}px`;
  const context = canvas.getContext("2d");
  const image = context?.createImageData(SIDE, SIDE);
  if (!context || !image) return canvas;
  pixels.forEach((value, pixel) => {
    const paper = Math.round(255 * (0.5 - value / 2));
    image.data.set([paper, paper, paper, 255], 4 * pixel);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

export class DigitsTraining {
  readonly #start = byId("digits-start", HTMLButtonElement);
  readonly #stop = byId("digits-stop", HTMLButtonElement);
  readonly #state = byId("digits-state", HTMLElement);
  readonly #curve = byId("digits-curve", HTMLElement);
  readonly #pictures = byId("digits-pictures", HTMLElement);
  readonly #frames = perFrame(() => this.#draw());
  #history: readonly TrainStep[] = [];
  #training: AbortController | undefined;

  constructor(readonly voice: Voice) {
    this.#start.addEventListener("click", () => {
      if (!this.#training) void this.#begin();
    });
    this.#stop.addEventListener("click", () => this.#training?.abort());
    this.#start.disabled = false;
  }

  async #begin(): Promise<void> {
    const { signal } = (this.#training = new AbortController());
    this.voice.complain("");
    this.#start.disabled = true;
    this.#stop.disabled = false;
    this.#history = [];
    for (const place of [this.#curve, this.#pictures]) place.replaceChildren();
    this.#state.textContent = "Training begins.";
    try {
      leaveCore();
      const data = await digitsAt(new URL("digits.bin", document.baseURI), signal);
      using trainer = await trainerOf(data, signal);
      await this.#train(trainer, data);
    } catch (error) {
      this.#state.textContent = signal.aborted ? "Stopped." : "";
      if (!signal.aborted) this.voice.complain(reasonOf(error));
    } finally {
      this.#training = undefined;
      this.#start.disabled = false;
      if (document.activeElement === this.#stop) this.#start.focus();
      this.#stop.disabled = true;
    }
  }

  async #train(trainer: DigitsTrainer, data: Digits): Promise<void> {
    const begun = performance.now();
    const seconds = (): string => `${((performance.now() - begun) / 1000).toFixed(0)} s`;
    for await (const { step, evalAccuracy, diverged } of trainer) {
      this.#history = trainer.history;
      if (step % DRAWN === 0) this.#frames.ask();
      if (diverged) throw new Error(`the loss is no number after ${step - 1} steps`);
      if (evalAccuracy === undefined) continue;
      const right = `${(100 * evalAccuracy).toFixed(1)} %`;
      const isLast = step === trainer.steps;
      this.#state.textContent = isLast
        ? `Done after ${step} steps, ${seconds()}: ${right} of ${trainer.evalWindows} pictures that it never saw are right.`
        : `Step ${step} of ${trainer.steps}, ${seconds()}: ${right} right.`;
      if (isLast) this.voice.say(this.#state.textContent);
    }
    this.#frames.flush();
    await this.#read(trainer, data);
  }

  /** What it reads in some of the pictures that it never saw. */
  async #read(trainer: DigitsTrainer, data: Digits): Promise<void> {
    const model = await trainer.model();
    for (const index of heldOut.slice(0, SHOWN)) {
      const pixels = pixelsOf(data, index);
      const [best] = await model.classify({ data: pixels, shape: [1, 1, SIDE, SIDE] }, { top: 1 });
      const figure = element("figure");
      const is = data.labels[index];
      const said = best?.index === is ? String(is) : `${best?.index}, not ${is}`;
      figure.append(drawn(pixels, `a ${is}`), element("figcaption", said));
      this.#pictures.append(figure);
    }
  }

  #draw(): void {
    if (this.#history.length === 0) return;
    drawLoss(this.#curve, this.#history, this.#state.parentElement?.clientWidth ?? 0);
  }
}
