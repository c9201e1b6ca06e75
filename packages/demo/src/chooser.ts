// Which model is in use, above the tabs: the choice, an address, files (chosen or dropped), the
// switch of an adapter, and what is said of a load. Loads by loader.ts.

import { info } from "diffattn";
import { type ListedModel, type Wanted, wantedAt, wantedFiles, wantedOf } from "./catalogue.js";
import { byId, reasonOf } from "./dom.js";
import { perFrame } from "./frames.js";
import { type InUse, Loader } from "./loader.js";
import type { Voice } from "./voice.js";

/** Choices that are no model of the list. */
const ADDRESS = "address";
const FILES = "files";

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const millions = (count: number): string =>
  count < 1e9 ? `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} million` : `${(count / 1e9).toFixed(2)} billion`;

/** What is known of a model, in a line. */
function figuresOf({ model, wanted, bytes }: InUse): string {
  const size = `${millions(model.parameters)} parameters in ${model.dtype}, about ${megabytes(bytes)} of memory`;
  return `In use: ${wanted.title} (${model.family}), ${size}.${wanted.about === "" ? "" : ` ${wanted.about}`}`;
}

export class Chooser {
  readonly loader: Loader;
  readonly #choice = byId("choice", HTMLSelectElement);
  readonly #state = byId("model-state", HTMLElement);
  readonly #bar = byId("model-progress", HTMLProgressElement);
  readonly #about = byId("model-about", HTMLElement);
  readonly #addressForm = byId("address-form", HTMLFormElement);
  readonly #address = byId("address", HTMLInputElement);
  readonly #filesRow = byId("files-row", HTMLElement);
  readonly #files = byId("files", HTMLInputElement);
  readonly #switch = byId("adapter-switch", HTMLFieldSetElement);
  readonly #adapterOn = byId("adapter-on", HTMLInputElement);
  readonly #adapterOff = byId("adapter-off", HTMLInputElement);
  readonly #adapterAbout = byId("adapter-about", HTMLElement);
  #listed: readonly ListedModel[] = [];

  /** `onModel`: told of every model that comes into use. */
  constructor(
    readonly voice: Voice,
    onModel: (inUse: InUse, isFirst: boolean) => void,
  ) {
    const part = { done: 0, total: 0 };
    const bar = perFrame(() => {
      if (part.total > 0) this.#bar.value = part.done / part.total;
    });
    const idle = (): void => {
      bar.drop();
      this.#bar.hidden = true;
    };
    this.loader = new Loader({
      begins: ({ title }) => {
        this.voice.complain("");
        this.#bar.removeAttribute("value");
        this.#bar.hidden = false;
        this.#state.textContent = `Loading ${title}…`;
      },
      progress: (done, total) => {
        Object.assign(part, { done, total });
        bar.ask();
      },
      ends: (inUse, isFirst) => {
        performance.mark("model");
        idle();
        this.#state.textContent = "Ready.";
        this.#about.textContent = figuresOf(inUse);
        showBuild();
        onModel(inUse, isFirst);
      },
      fails: ({ title }, error) => {
        idle();
        this.#state.textContent = this.#about.textContent === "" ? "" : "The model before is still in use.";
        this.voice.complain(`${title} did not load: ${reasonOf(error)}`);
      },
    });
    this.#listen();
  }

  /** Shows what there is, and begins with the one of that name, or with the first. */
  begin(listed: readonly ListedModel[], name: string | null): void {
    this.#listed = listed;
    this.#choice.prepend(...listed.map(({ name, title }) => new Option(title, name)));
    const first = listed.find((model) => model.name === name) ?? listed[0];
    if (!first) return void (this.#state.textContent = "");
    this.#choice.value = first.name;
    this.#choose();
  }

  /** The model of the list that is chosen. */
  get #chosen(): ListedModel | undefined {
    return this.#listed.find(({ name }) => name === this.#choice.value);
  }

  #listen(): void {
    this.#choice.addEventListener("change", () => this.#choose());
    for (const radio of [this.#adapterOn, this.#adapterOff]) radio.addEventListener("change", () => this.#loadChosen());
    this.#addressForm.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#load(() => wantedAt(this.#address.value));
    });
    this.#files.addEventListener("change", () => this.#load(() => wantedFiles(Array.from(this.#files.files ?? []))));
    // A page that does nothing of its own with what is dropped is left for it.
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      const files = Array.from(event.dataTransfer?.files ?? []);
      if (files.length === 0) return;
      this.#choice.value = FILES;
      this.#show();
      this.#load(() => wantedFiles(files));
    });
  }

  /** What belongs to the choice. */
  #show(): void {
    const adapter = this.#chosen?.adapter;
    this.#addressForm.hidden = this.#choice.value !== ADDRESS;
    this.#filesRow.hidden = this.#choice.value !== FILES;
    this.#switch.hidden = !adapter;
    this.#adapterAbout.textContent = adapter?.about ?? "";
  }

  #choose(): void {
    // A model begins as it is.
    this.#adapterOff.checked = true;
    this.#show();
    this.#loadChosen();
  }

  #loadChosen(): void {
    const chosen = this.#chosen;
    if (chosen) this.#load(() => wantedOf(chosen, this.#adapterOn.checked));
  }

  #load(wanted: () => Wanted): void {
    try {
      this.loader.load(wanted());
    } catch (error) {
      this.voice.complain(reasonOf(error));
    }
  }
}

/** Which build runs. */
function showBuild(): void {
  const build = byId("build", HTMLOutputElement);
  const { backend, isa, threads, notes } = info();
  build.textContent = `${backend === "wasm" ? "WebAssembly" : backend}, ${isa}, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
  build.title = notes.join("; ");
}
