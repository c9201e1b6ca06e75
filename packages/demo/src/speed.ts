// How fast a text comes: counts its tokens, and says so. Reads the clock, and nothing else.

/** Why a text ended, as its figures say it. */
const ENDINGS: Readonly<Record<string, string>> = { stop: "; the text has ended", stopped: "; stopped" };

/** The first time that a token is seen: what a visitor waits for. */
function markFirst(): void {
  if (performance.getEntriesByName("first-token").length === 0) performance.mark("first-token");
}

export class Speed {
  readonly #begun = performance.now();
  #first = 0;
  #last = this.#begun;
  #count = 0;

  /** Another token came. */
  token(): void {
    this.#last = performance.now();
    if (this.#count === 0) this.#first = this.#last - this.#begun;
    this.#count += 1;
    markFirst();
  }

  /** `finish`: why it ended, once it has. */
  sentence(finish: string | null = null): string {
    const ending = ENDINGS[finish ?? ""] ?? "";
    if (this.#count === 0) return ending.replace(/^; /, "");
    const rate = ((this.#count - 1) * 1000) / Math.max(1e-3, this.#last - this.#begun - this.#first);
    const rated = this.#count > 1 ? `, ${rate.toFixed(rate < 10 ? 1 : 0)} per second` : "";
    return `${this.#count} ${this.#count === 1 ? "token" : "tokens"}${rated}, the first after ${this.#first.toFixed(0)} ms${ending}`;
  }
}
