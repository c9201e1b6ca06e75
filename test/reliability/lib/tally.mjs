// What the attacks by hostile calls count: each call must end at once, in a result or in an error
// of ours, and leave right values behind.

import { notOurs, within } from "./package.mjs";

/** The properties of such an attack; no call takes longer than `slow` seconds. */
export const properties = (slow) => ({
  "errors not ours": { limit: 0 },
  "wrong values": { limit: 0 },
  [`calls over ${slow} s`]: { limit: 0 },
});

/** Counts what goes wrong, and tells `miss` of it. */
export class Tally {
  #foreign = 0;
  #wrong = 0;
  #late = 0;
  #slow;
  #miss;

  constructor(slow, miss) {
    this.#slow = slow;
    this.#miss = miss;
    process.on("unhandledRejection", (error) => {
      this.#foreign++;
      miss("escaped", notOurs(error) ?? `a rejection of ours that nobody waits for: ${error.message}`);
    });
  }

  /**
   * Makes a call, which is given up after `patience` milliseconds. `gaveMuch`: whether it may have
   * taken its time.
   */
  async call(index, what, patience, run, gaveMuch = () => false) {
    const start = performance.now();
    try {
      await within(
        patience,
        Promise.resolve().then(() => run()),
        what,
      );
    } catch (error) {
      const why = notOurs(error);
      if (why) this.#foreign++;
      if (why) this.#miss(index, `${what}: ${why}`, why.slice(0, 40));
    }
    const took = performance.now() - start;
    if (took <= this.#slow * 1000 || gaveMuch()) return;
    this.#late++;
    this.#miss(index, `${what}: ${took.toFixed(0)} ms`);
  }

  /** A value that is not what it should be. */
  wrong(index, said) {
    this.#wrong++;
    this.#miss(index, said);
  }

  get figures() {
    return { "errors not ours": this.#foreign, "wrong values": this.#wrong, [`calls over ${this.#slow} s`]: this.#late };
  }
}
