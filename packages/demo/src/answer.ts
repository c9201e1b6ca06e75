// One message of a conversation as the page shows it: who says it, its text as it comes, what can
// be done with it. What it holds is shown as text, never as markup.

import { element } from "./dom.js";
import { type Frames, perFrame } from "./frames.js";

const NAMES = { user: "You", assistant: "Model" } as const;

export class Message {
  readonly element: HTMLElement;
  readonly #text = document.createTextNode("");
  readonly #frames: Frames;
  #pending = "";

  /** `onGrown`: told after a frame in which it has grown. */
  constructor(
    readonly role: keyof typeof NAMES,
    readonly onGrown: () => void,
  ) {
    const said = element("div", "", { class: "message-text" });
    said.append(this.#text);
    this.element = element("li", "", { class: `message ${role}` });
    this.element.append(element("p", NAMES[role], { class: "who" }), said);
    this.#frames = perFrame(() => {
      this.#text.appendData(this.#pending);
      this.#pending = "";
      onGrown();
    });
  }

  get text(): string {
    return this.#text.data + this.#pending;
  }

  /** More of its text. */
  append(text: string): void {
    this.#pending += text;
    this.#frames.ask();
  }

  /** What is to be known of it, and what can be asked of it. */
  end(figures: string, look?: () => void): void {
    this.#frames.flush();
    const about = element("div", "", { class: "row" });
    if (look) {
      const button = element("button", "Look at its tokens", { type: "button", class: "look" });
      button.addEventListener("click", look);
      about.append(button);
    }
    about.append(element("p", figures, { class: "figures" }));
    this.element.append(about);
    this.onGrown();
  }
}
