// Lines that a person types, or that come from a pipe, one asked for after the other. Knows no
// command.

import { createInterface, type Interface } from "node:readline";
import { Writable } from "node:stream";

/** What a question comes to: a line, the end of input, or Ctrl-C. */
export type Line = string | typeof END | typeof INTERRUPTED;
export const END = Symbol("end");
export const INTERRUPTED = Symbol("interrupted");

export class Dialogue {
  readonly #lines: Interface;
  readonly #isTerminal: boolean;
  /** Lines that came before they were asked for. */
  readonly #early: Line[] = [];
  #waiting: ((line: Line) => void) | undefined;
  #ended = false;
  #isMuted = true;

  /**
   * `output` shows what is typed, where both are terminals. `onInterrupt`: Ctrl-C while nothing is
   * asked.
   */
  constructor(
    input: NodeJS.ReadableStream & { isTTY?: boolean },
    output: NodeJS.WritableStream & { isTTY?: boolean },
    onInterrupt: () => void,
  ) {
    this.#isTerminal = input.isTTY === true && output.isTTY === true;
    // (What is typed while an answer is written would stand in it.)
    const shown = new Writable({
      write: (piece: Buffer, _encoding, done) => {
        if (this.#isMuted) done();
        else output.write(piece, () => done());
      },
    });
    this.#lines = createInterface({ input, output: shown, terminal: this.#isTerminal, historySize: 1000, crlfDelay: Infinity });
    this.#lines.on("line", (line) => this.#give(line));
    this.#lines.on("close", () => {
      this.#ended = true;
      if (this.#waiting) this.#give(END);
    });
    this.#lines.on("SIGINT", () => {
      if (!this.#waiting) {
        onInterrupt();
        return;
      }
      // What was typed goes.
      this.#lines.write(null, { ctrl: true, name: "e" });
      this.#lines.write(null, { ctrl: true, name: "u" });
      output.write("\n");
      this.#give(INTERRUPTED);
    });
  }

  #give(line: Line): void {
    // (Of a pipe several come at once.)
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) waiting(line);
    else this.#early.push(line);
  }

  /** The next line, after a prompt for a person. */
  async next(prompt: string): Promise<Line> {
    const early = this.#early.shift();
    if (early !== undefined) return early;
    if (this.#ended) return END;
    const line = new Promise<Line>((resolve) => (this.#waiting = resolve));
    if (this.#isTerminal) {
      this.#isMuted = false;
      this.#lines.setPrompt(prompt);
      this.#lines.prompt(true);
    }
    const given = await line;
    this.#isMuted = true;
    return given;
  }

  close(): void {
    this.#lines.close();
  }
}
