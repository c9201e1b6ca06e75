// The tab that trains the page's small model on a visitor's text: the form, start and stop, files
// to keep. A script of its own, loaded once the tab opens: nothing else of the page needs what it
// brings. What is trained and drawn: train-run.ts, train-view.ts.

import { type ListedModel, wantedOf } from "./catalogue.js";
import { DigitsTraining } from "./digits.js";
import { byId, element, numberOf, reasonOf } from "./dom.js";
import { save } from "./save.js";
import { TrainRun, type Wishes } from "./train-run.js";
import { textsOf } from "./train-text.js";
import { TrainView } from "./train-view.js";
import type { Voice } from "./voice.js";

/** The model's name in the server's list. */
const SMALL = "small";
/** What a learning rate begins with: an adapter's first matrix is zeros, and wants more. */
const RATES: Readonly<Record<string, string>> = { all: "0.0003", adapter: "0.005" };

type Field = "steps" | "context" | "batch" | "rate" | "rank" | "every";

const count = (of: number, one: string): string => `${of} ${one}${of === 1 ? "" : "s"}`;
const millions = (of: number): string => (of < 1e5 ? String(of) : `${(of / 1e6).toFixed(1)} million`);

class TrainTab {
  readonly #form = byId("train-form", HTMLFormElement);
  readonly #start = byId("train-start", HTMLButtonElement);
  readonly #stop = byId("train-stop", HTMLButtonElement);
  readonly #state = byId("train-state", HTMLElement);
  readonly #text = byId("train-text", HTMLTextAreaElement);
  readonly #prompt = byId("train-prompt", HTMLInputElement);
  readonly #filesField = byId("train-files", HTMLInputElement);
  readonly #filesHint = byId("train-files-hint", HTMLElement);
  readonly #without = byId("train-without", HTMLButtonElement);
  readonly #what = byId("train-what", HTMLSelectElement);
  readonly #rankField = byId("train-rank-field", HTMLElement);
  readonly #saveHint = byId("train-save-hint", HTMLElement);
  readonly #save = byId("train-save", HTMLElement);
  readonly #fields: Readonly<Record<Field, HTMLInputElement>> = {
    steps: byId("train-steps", HTMLInputElement),
    context: byId("train-context", HTMLInputElement),
    batch: byId("train-batch", HTMLInputElement),
    rate: byId("train-rate", HTMLInputElement),
    rank: byId("train-rank", HTMLInputElement),
    every: byId("train-every", HTMLInputElement),
  };
  readonly #view = new TrainView(() => void this.#showMaps().catch((error: unknown) => this.voice.complain(reasonOf(error))));
  readonly #noFiles = this.#filesHint.textContent;
  #files: readonly File[] = [];
  /** The training that is seen: under way, ended or stopped. */
  #run: TrainRun | undefined;
  #training: AbortController | undefined;

  constructor(
    readonly model: Readonly<Record<string, URL>>,
    readonly voice: Voice,
  ) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#training) void this.#begin();
    });
    this.#stop.addEventListener("click", () => this.#training?.abort());
    this.#what.addEventListener("change", () => {
      this.#rankField.hidden = this.#what.value !== "adapter";
      const rate = this.#fields.rate;
      // (One that somebody typed stays.)
      if (Object.values(RATES).includes(rate.value)) rate.value = RATES[this.#what.value] ?? rate.value;
    });
    this.#listenToFiles();
    this.#start.disabled = false;
  }

  #listenToFiles(): void {
    const take = (files: readonly File[]): void => {
      this.#files = files;
      this.#without.hidden = files.length === 0;
      const size = files.reduce((sum, file) => sum + file.size, 0) / 1000;
      const names = files.map(({ name }) => name).join(", ");
      this.#filesHint.textContent =
        files.length === 0 ? this.#noFiles : `${count(files.length, "file")} (${size.toFixed(size < 10 ? 1 : 0)} KB): ${names}`;
    };
    this.#filesField.addEventListener("change", () => take(Array.from(this.#filesField.files ?? [])));
    this.#without.addEventListener("click", () => {
      this.#filesField.value = "";
      take([]);
      this.#filesField.focus();
    });
    const panel = byId("panel-train", HTMLElement);
    const drop = byId("train-drop", HTMLElement);
    const over = (isOver: boolean): boolean => drop.classList.toggle("over", isOver);
    panel.addEventListener("dragover", () => over(true));
    panel.addEventListener("dragleave", () => over(false));
    panel.addEventListener("drop", (event) => {
      over(false);
      const files = Array.from(event.dataTransfer?.files ?? []);
      if (files.length === 0) return;
      // Elsewhere on the page what is dropped is a model.
      event.preventDefault();
      event.stopPropagation();
      this.#filesField.value = "";
      take([...this.#files, ...files]);
    });
  }

  /** What the form says. */
  async #wishes(): Promise<Wishes> {
    const number = (name: Field, otherwise: number): number => numberOf(this.#fields[name]) ?? otherwise;
    const prompt = this.#prompt.value;
    if (prompt.trim() === "") throw new Error("prompt: expected some text, got none");
    return {
      texts: await textsOf(this.#text.value, this.#files),
      prompt,
      steps: number("steps", 40),
      context: number("context", 128),
      batch: number("batch", 4),
      rate: number("rate", 0.0003),
      rank: this.#what.value === "adapter" ? number("rank", 8) : undefined,
    };
  }

  async #begin(): Promise<void> {
    const mine = (this.#training = new AbortController());
    this.voice.complain("");
    this.#start.disabled = true;
    this.#stop.disabled = false;
    this.#save.replaceChildren();
    this.#saveHint.hidden = false;
    this.#run?.dispose();
    this.#run = undefined;
    try {
      const wishes = await this.#wishes();
      this.#view.begin(wishes.steps);
      this.#state.textContent = "Loading the model…";
      this.voice.say("Training begins.");
      this.#run = await TrainRun.begin(this.model, wishes, mine.signal);
      this.#state.textContent = `${millions(this.#run.moving)} values learn.`;
      await this.#train(this.#run, mine.signal);
    } catch (error) {
      this.#state.textContent = mine.signal.aborted ? "Stopped." : "";
      if (!mine.signal.aborted) this.voice.complain(reasonOf(error));
    } finally {
      this.#training = undefined;
      this.#start.disabled = false;
      // Focus must not vanish with the button's use.
      if (document.activeElement === this.#stop) this.#start.focus();
      this.#stop.disabled = true;
    }
  }

  async #train(run: TrainRun, signal: AbortSignal): Promise<void> {
    const every = numberOf(this.#fields.every) ?? 10;
    let shown = -1;
    const look = async (until?: AbortSignal): Promise<void> => {
      if (shown === run.step) return;
      const { step } = run;
      this.#view.sample(step, run.wishes.prompt, await run.sample(until));
      shown = step;
      await this.#showMaps();
    };
    let diverged = false;
    try {
      this.#view.before(await run.before(signal));
      await look(signal);
      this.#view.starts();
      for await (const step of run.steps()) {
        if (step.diverged) diverged = true;
        this.#view.step(run.history);
        if (step.step % every !== 0 || step.step === run.wishes.steps || diverged) continue;
        await look(signal);
        this.voice.say(`Step ${step.step} of ${run.wishes.steps}: the loss is ${step.loss.toFixed(2)}.`);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    this.#view.end();
    if (run.step > 0) await look();
    this.#end(run, signal.aborted, diverged);
  }

  #end(run: TrainRun, isStopped: boolean, diverged: boolean): void {
    const loss = run.history.flatMap((step) => (Number.isFinite(step.loss) ? step.loss : [])).at(-1);
    this.#state.textContent = `${isStopped ? "Stopped" : "Done"} after ${count(run.step, "step")}.`;
    this.voice.say(`${this.#state.textContent}${loss === undefined ? "" : ` The loss was ${loss.toFixed(2)}.`}`);
    if (diverged)
      this.voice.complain(`The loss is no number after ${count(run.step, "step")}, and nothing moved: try a smaller learning rate`);
    if (run.step === 0) return;
    this.#saveHint.hidden = true;
    this.#save.replaceChildren(
      ...run.names.map((name) => {
        const button = element("button", name, { type: "button" });
        button.addEventListener("click", () => void this.#give(run, name, button));
        return button;
      }),
    );
  }

  async #give(run: TrainRun, name: string, button: HTMLButtonElement): Promise<void> {
    button.setAttribute("aria-busy", "true");
    try {
      const type = name.endsWith(".json") ? "application/json" : "application/octet-stream";
      save(name, new Blob([await run.file(name)], { type }));
    } catch (error) {
      this.voice.complain(reasonOf(error));
    } finally {
      button.removeAttribute("aria-busy");
    }
  }

  /** The chosen layer's maps, as they are now. */
  async #showMaps(): Promise<void> {
    const run = this.#run;
    if (!run) return;
    const { layer } = this.#view;
    const { step, maps } = await run.maps(layer);
    if (this.#run === run) this.#view.now(layer, step, maps);
  }
}

/** The tab comes to life; `listed`: what models the page's server has. */
export function startTrain(listed: readonly ListedModel[], voice: Voice): void {
  const small = listed.find(({ name }) => name === SMALL);
  if (!small) throw new Error(`models.json: expected a model that is called ${SMALL}, which can be trained, got none`);
  new DigitsTraining(voice);
  new TrainTab(wantedOf(small, false).source as Record<string, URL>, voice);
}
