// The tab that writes: continues a prompt, and hands the finished text to attention.ts.

import type { LanguageModel } from "diffattn/models";
import type { Attention } from "./attention.js";
import { byId, numberOf, numbersOf, reasonOf } from "./dom.js";
import { perFrame } from "./frames.js";
import { layerMaps } from "./layer-maps.js";
import type { Loader } from "./loader.js";
import { Speed } from "./speed.js";
import type { Voice } from "./voice.js";

/**
 * The first prompt: an answer planted among other sentences, its question at the end. The typical
 * one of examples/planted-answers.mjs.
 */
const PLANTED = {
  text: "# Notes\n\nCalling this method on a closed channel has no effect. The closure is called for each entry of the map. This is useful for types which do not implement the trait. The compiler checks that all borrows are valid. The default timeout of the socket is 30 seconds. Memory is freed when the last reference goes away. See the module documentation for more information.\n\nThe default timeout of the socket is",
  answer: "The default timeout of the socket is 30 seconds.",
  question: "The default timeout of the socket is",
};

export class WriteTab {
  readonly #prompt = byId("prompt", HTMLTextAreaElement);
  readonly #write = byId("write", HTMLButtonElement);
  readonly #stop = byId("stop", HTMLButtonElement);
  readonly #speed = byId("speed", HTMLElement);
  readonly #text = byId("text", HTMLElement);
  readonly #fields = {
    maxNewTokens: byId("tokens", HTMLInputElement),
    temperature: byId("temperature", HTMLInputElement),
    topK: byId("top-k", HTMLInputElement),
    topP: byId("top-p", HTMLInputElement),
    repetitionPenalty: byId("penalty", HTMLInputElement),
    seed: byId("seed", HTMLInputElement),
  };
  /** The text that is being written. */
  #writing: AbortController | undefined;

  constructor(
    readonly loader: Loader,
    readonly attention: Attention,
    readonly voice: Voice,
  ) {
    const form = byId("form", HTMLFormElement);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#begin();
    });
    this.#stop.addEventListener("click", () => this.stop());
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.#prompt.value = PLANTED.text;
  }

  stop(): void {
    this.#writing?.abort();
  }

  /** Writes on what somebody gave. */
  write(prompt: string): void {
    this.#prompt.value = prompt;
    void this.#begin();
  }

  /** Nothing is left of a text: another model is in use. */
  clear(): void {
    this.stop();
    this.attention.clear();
    this.#speed.textContent = "";
  }

  async #begin(): Promise<void> {
    // A second text ends the first.
    this.stop();
    const mine = (this.#writing = new AbortController());
    this.voice.complain("");
    this.attention.clear();
    this.#stop.disabled = false;
    this.#text.setAttribute("aria-busy", "true");
    this.voice.say("Writing.");
    try {
      await this.#run((await this.loader.ready()).model, mine.signal);
    } catch (error) {
      if (this.#writing === mine && !mine.signal.aborted) this.voice.complain(reasonOf(error));
    } finally {
      if (this.#writing === mine) {
        this.#writing = undefined;
        this.#text.removeAttribute("aria-busy");
        // Focus must not vanish with the button's use.
        if (document.activeElement === this.#stop) this.#write.focus();
        this.#stop.disabled = true;
      }
    }
  }

  /** Room for new tokens behind so many. */
  #room(model: LanguageModel, count: number): number {
    const most = Number(model.config["max_position_embeddings"] ?? Infinity);
    if (count === 0) throw new Error("prompt: expected some text, got none");
    if (most - count < 1) throw new Error(`prompt: expected fewer tokens than ${most}, got ${count}`);
    return Math.min(numberOf(this.#fields.maxNewTokens) ?? 120, most - count);
  }

  async #run(model: LanguageModel, signal: AbortSignal): Promise<void> {
    const { list } = this.attention;
    const prompted = this.#prompt.value;
    const ids = model.encode(prompted);
    const ofPrompt = ids.length;
    const options = { ...numbersOf(this.#fields), maxNewTokens: this.#room(model, ofPrompt), signal };
    const speed = new Speed();
    let shown = 0;
    const frames = perFrame(() => {
      for (; shown < ids.length; shown += 1) list.append(model.decode([ids[shown] ?? 0]), shown < ofPrompt);
      this.#speed.textContent = speed.sentence();
    });
    frames.ask();
    frames.flush();
    let finish: string | null = null;
    try {
      // 0 stands for all.
      for await (const token of model.generate(ids.slice(), { ...options, topK: options.topK || undefined })) {
        ids.push(token.id);
        speed.token();
        frames.ask();
        finish = token.finish;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
      finish = "stopped";
    }
    // Another text or model took its place.
    if (this.#writing?.signal !== signal) {
      frames.drop();
      return;
    }
    frames.flush();
    this.#speed.textContent = speed.sentence(finish);
    this.voice.say(`${this.#speed.textContent}. ${model.decode(ids.slice(ofPrompt))}`);
    const planted = prompted.includes(PLANTED.answer) ? PLANTED : undefined;
    await this.attention.show({ tokens: list.texts, ofPrompt, planted, ...layerMaps(model, ids) });
  }
}
