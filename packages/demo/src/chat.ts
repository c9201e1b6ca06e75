// The tab that chats: a conversation with a model that has a chat template, its answers as they
// come, and what the tokens of an answer look at. What was computed of a conversation is kept in a
// cache, and only what is new is computed.

import type { ChatMessage, LanguageModel, ModelCache } from "diffattn/models";
import { Message } from "./answer.js";
import type { Attention } from "./attention.js";
import { byId, numbersOf, reasonOf } from "./dom.js";
import { perFrame } from "./frames.js";
import { layerMaps } from "./layer-maps.js";
import type { Loader } from "./loader.js";
import { Speed } from "./speed.js";
import type { Voice } from "./voice.js";

/** Tokens of a conversation whose maps are shown: a layer's grow with their square. */
const MOST_LOOKED_AT = 512;
/** Pixels from its end within which a conversation follows what is written. */
const NEAR_END = 40;

/** An answer's tokens, its prompt's before them. */
interface Answered {
  readonly model: LanguageModel;
  readonly ids: readonly number[];
  readonly ofPrompt: number;
}

/** How much of a prompt is what a cache has: tokens that both begin with. */
function inCommon(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((id, i) => id !== b[i]);
  return at < 0 ? a.length : at;
}

export class ChatTab {
  readonly #messages = byId("messages", HTMLOListElement);
  readonly #message = byId("message", HTMLTextAreaElement);
  readonly #system = byId("system", HTMLTextAreaElement);
  readonly #send = byId("send", HTMLButtonElement);
  readonly #stop = byId("chat-stop", HTMLButtonElement);
  readonly #anew = byId("chat-new", HTMLButtonElement);
  readonly #speed = byId("chat-speed", HTMLElement);
  readonly #looked = byId("looked", HTMLElement);
  readonly #lookedAbout = byId("looked-about", HTMLElement);
  readonly #fields = {
    maxNewTokens: byId("chat-tokens", HTMLInputElement),
    temperature: byId("chat-temperature", HTMLInputElement),
    topP: byId("chat-top-p", HTMLInputElement),
    repetitionPenalty: byId("chat-penalty", HTMLInputElement),
    seed: byId("chat-seed", HTMLInputElement),
  };
  #said: ChatMessage[] = [];
  /** What was computed, and of which ids. */
  #cache: ModelCache | undefined;
  #cached: readonly number[] = [];
  /** The answer that is being written. */
  #answering: AbortController | undefined;

  constructor(
    readonly loader: Loader,
    readonly attention: Attention,
    readonly voice: Voice,
  ) {
    const form = byId("chat-form", HTMLFormElement);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#begin();
    });
    this.#stop.addEventListener("click", () => this.stop());
    this.#anew.addEventListener("click", () => {
      this.clear();
      this.voice.say("A new conversation.");
      this.#message.focus();
    });
    this.#message.addEventListener("keydown", (event) => {
      // (What an input method composes ends with Enter, too.)
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
  }

  stop(): void {
    this.#answering?.abort();
  }

  /** Sends what somebody gave. */
  send(message: string): void {
    this.#message.value = message;
    void this.#begin();
  }

  /** Another model is in use: what was asked last can be asked again. */
  changeModel(): void {
    const asked = this.#said.filter(({ role }) => role === "user").at(-1)?.content;
    if (this.#message.value === "" && typeof asked === "string") this.#message.value = asked;
    this.clear();
  }

  /** A new conversation. */
  clear(): void {
    this.stop();
    this.#answering = undefined;
    this.#said = [];
    this.#forget();
    this.#messages.replaceChildren();
    this.#messages.hidden = true;
    this.#speed.textContent = "";
    this.#idle();
    this.#anew.disabled = true;
    this.#close();
  }

  /** Gives the cache back. */
  #forget(): void {
    this.#cache?.dispose();
    this.#cache = undefined;
    this.#cached = [];
  }

  #idle(): void {
    this.#messages.removeAttribute("aria-busy");
    // Focus must not vanish with the button's use.
    if (document.activeElement === this.#stop) this.#message.focus();
    this.#stop.disabled = true;
    this.#send.disabled = false;
  }

  /** Shows a message; the conversation follows what is written unless it was scrolled away. */
  #show(role: Message["role"]): Message {
    const list = this.#messages;
    let isFollowed = true;
    list.onscroll = () => (isFollowed = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END);
    const message = new Message(role, () => {
      if (isFollowed) list.scrollTop = list.scrollHeight;
    });
    list.append(message.element);
    list.hidden = false;
    return message;
  }

  async #begin(): Promise<void> {
    if (this.#answering) return;
    this.voice.complain("");
    const asked = this.#message.value;
    if (asked.trim() === "") {
      this.voice.complain("message: expected some text, got none");
      return;
    }
    const mine = (this.#answering = new AbortController());
    this.#stop.disabled = false;
    this.#send.disabled = true;
    this.#anew.disabled = false;
    this.#messages.setAttribute("aria-busy", "true");
    this.#close();
    this.#message.value = "";
    const user = this.#show("user");
    user.append(asked);
    const answer = this.#show("assistant");
    this.voice.say("Answering.");
    try {
      const { model } = await this.loader.ready();
      await this.#answer(model, asked, answer, mine.signal);
    } catch (error) {
      if (this.#answering === mine) {
        // What was not answered can be sent again.
        for (const message of [user, answer]) message.element.remove();
        this.#messages.hidden = this.#messages.children.length === 0;
        if (this.#message.value === "") this.#message.value = asked;
        this.voice.complain(reasonOf(error));
      }
    } finally {
      if (this.#answering === mine) {
        this.#answering = undefined;
        this.#idle();
      }
    }
  }

  /** A conversation as ids, and the options of an answer to it. */
  async #prompt(model: LanguageModel, messages: readonly ChatMessage[]) {
    const ids = model.encode(await model.applyChatTemplate(messages), { addSpecialTokens: false });
    const most = Number(model.config["max_position_embeddings"] ?? Infinity);
    const room = most - ids.length;
    if (room < 1) throw new Error(`message: expected a conversation of fewer tokens than ${most}, got ${ids.length}: begin a new one`);
    const given = numbersOf(this.#fields);
    return { ids, options: { ...given, maxNewTokens: Math.min(given.maxNewTokens ?? 512, room) } };
  }

  async #answer(model: LanguageModel, asked: string, answer: Message, signal: AbortSignal): Promise<void> {
    if (model.chatTemplate === undefined) throw new Error("model: expected one with a chat template, got one that only continues texts");
    const system = this.#system.value.trim();
    const said = [...this.#said, { role: "user", content: asked }];
    const messages = [...(system === "" ? [] : [{ role: "system", content: system }]), ...said];
    const { ids, options } = await this.#prompt(model, messages);
    this.#cache ??= await model.createCache();
    const ofPrompt = ids.length;
    const reused = Math.min(inCommon(ids, this.#cached), this.#cache.length, ofPrompt - 1);
    const speed = new Speed();
    const frames = perFrame(() => void (this.#speed.textContent = speed.sentence()));
    let finish: string | null = null;
    // (Also of what fails: then it is empty or holds the beginning.)
    this.#cached = ids;
    try {
      for await (const token of model.chat(messages, { ...options, cache: this.#cache, signal })) {
        ids.push(token.id);
        answer.append(token.text);
        speed.token();
        frames.ask();
        finish = token.finish;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
      finish = "stopped";
    } finally {
      frames.drop();
    }
    // A new conversation, or another model, took its place.
    if (this.#answering?.signal !== signal) return;
    this.#said = [...said, { role: "assistant", content: answer.text }];
    const known = reused > 0 ? `; ${reused} of ${ofPrompt} tokens before it were known` : "";
    const figures = `${speed.sentence(finish)}${known}`;
    answer.end(figures, ids.length > ofPrompt ? () => void this.#look({ model, ids, ofPrompt }) : undefined);
    this.#speed.textContent = `${ids.length} of ${String(model.config["max_position_embeddings"])} tokens`;
    this.voice.say(`${figures}. ${answer.text}`);
  }

  #close(): void {
    this.attention.clear();
    this.#looked.hidden = this.#lookedAbout.hidden = true;
  }

  /** Shows the tokens of an answer and of what was before it, and what they look at. */
  async #look({ model, ids, ofPrompt }: Answered): Promise<void> {
    this.#close();
    const { list } = this.attention;
    const first = Math.max(0, ids.length - MOST_LOOKED_AT);
    const shown = ids.slice(first);
    for (const [at, id] of shown.entries()) list.append(model.decode([id], { skipSpecialTokens: false }), first + at < ofPrompt);
    this.#looked.hidden = false;
    this.#lookedAbout.hidden = first === 0;
    this.#lookedAbout.textContent = `The last ${shown.length} of ${ids.length} tokens, as if the conversation began there: maps grow with the square of its length.`;
    byId("chat-text-heading", HTMLElement).focus();
    await this.attention.show({
      tokens: list.texts,
      ofPrompt: Math.max(0, ofPrompt - first),
      planted: undefined,
      ...layerMaps(model, shown),
    });
  }
}
