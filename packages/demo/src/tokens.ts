// The text as a list of tokens, one of them chosen: by pointing, or with the arrow keys (one stop
// of the Tab key). Knows no model.

import { element } from "./dom.js";

/** What a token shows: line ends and the like get a sign. */
export const seen = (text: string): string =>
  text === "" ? "∅" : text.trim() === "" ? text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") : text;

export class TokenList {
  #tokens: HTMLElement[] = [];
  #chosen = -1;

  /** `choose` is told whether it was by keyboard. */
  constructor(
    readonly list: HTMLElement,
    readonly choose: (index: number, byKeyboard: boolean) => void,
  ) {
    const pointed = (event: Event): void => {
      const index = this.#tokens.indexOf((event.target as Element).closest<HTMLElement>(".token") ?? list);
      if (index >= 0 && index !== this.#chosen) choose(index, false);
    };
    list.addEventListener("pointerover", pointed);
    list.addEventListener("click", pointed);
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => {
      const index = this.#tokens.indexOf(event.target as HTMLElement);
      if (index >= 0 && index !== this.#chosen) choose(index, true);
    });
  }

  get texts(): string[] {
    return this.#tokens.map((token) => token.dataset["text"] ?? "");
  }

  clear(): void {
    this.list.replaceChildren();
    this.#tokens = [];
    this.#chosen = -1;
  }

  append(text: string, ofPrompt: boolean): void {
    const token = element("span", "", { class: ofPrompt ? "token prompt" : "token", role: "option", "aria-selected": "false" });
    token.dataset["text"] = text;
    token.tabIndex = this.#tokens.length === 0 ? 0 : -1;
    if (text.trim() === "")
      token.setAttribute("aria-label", text.includes("\n") ? "line end" : text === "" ? "part of a character" : "space");
    // A line's end needs something to point at.
    for (const piece of text.split(/(\n)/)) {
      if (piece === "\n") token.append(element("span", "↵", { class: "sign", "aria-hidden": "true" }));
      token.append(piece);
    }
    this.#tokens.push(token);
    this.list.append(token);
  }

  /** Marks the chosen token, -1 for none. */
  mark(index: number): void {
    const old = this.#tokens[this.#chosen] ?? this.#tokens[0];
    old?.setAttribute("aria-selected", "false");
    if (old) old.tabIndex = -1;
    this.#chosen = index;
    const chosen = this.#tokens[index];
    chosen?.setAttribute("aria-selected", "true");
    const stop = chosen ?? this.#tokens[0];
    if (stop) stop.tabIndex = 0;
  }

  /**
   * Marks what is asked and what answers it; ranges are half-open. Without them nothing is marked.
   */
  markSpans(spans?: { readonly answer: readonly number[]; readonly rows: readonly [number, number] }): void {
    this.#tokens.forEach((token, i) => {
      token.classList.toggle("answer", spans?.answer.includes(i) ?? false);
      token.classList.toggle("question", spans !== undefined && i >= spans.rows[0] && i < spans.rows[1]);
    });
  }

  /**
   * Colours tokens from the first on by weights with signs; full colour is `max`. Those beyond the
   * weights lose theirs.
   */
  colour(weights: readonly number[], max: number): void {
    this.#tokens.forEach((token, i) => {
      const weight = weights[i] ?? 0;
      // Colour follows the root of the value, as in the drawings.
      const strength = Math.round(Math.sqrt(Math.min(1, Math.abs(weight) / max)) * 20) / 20;
      token.classList.toggle("plus", weight > 0 && strength > 0);
      token.classList.toggle("minus", weight < 0 && strength > 0);
      token.style.setProperty("--weight", String(strength));
    });
  }

  #key(event: KeyboardEvent): void {
    const index = this.#tokens.indexOf(document.activeElement as HTMLElement);
    if (index < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const last = this.#tokens.length - 1;
    const moves: Readonly<Record<string, () => number>> = {
      ArrowLeft: () => index - 1,
      ArrowRight: () => index + 1,
      ArrowUp: () => this.#otherLine(index, -1),
      ArrowDown: () => this.#otherLine(index, 1),
      Home: () => 0,
      End: () => last,
    };
    const to = moves[event.key]?.();
    if (to === undefined) return;
    event.preventDefault();
    this.#tokens[Math.max(0, Math.min(last, to))]?.focus();
  }

  /** The nearest token of the line above or below. */
  #otherLine(index: number, direction: 1 | -1): number {
    const from = this.#tokens[index];
    if (!from) return index;
    let best = index;
    let line: number | undefined;
    for (let i = index + direction; i >= 0 && i < this.#tokens.length; i += direction) {
      const token = this.#tokens[i];
      if (!token || token.offsetTop === from.offsetTop) continue;
      line ??= token.offsetTop;
      if (token.offsetTop !== line) break;
      const distance = (of: HTMLElement | undefined): number => Math.abs((of?.offsetLeft ?? 0) - from.offsetLeft);
      if (best === index || distance(token) < distance(this.#tokens[best])) best = i;
    }
    return best;
  }
}
