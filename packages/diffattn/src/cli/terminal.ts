// Where the commands read and write: results on standard output, everything else on standard error.
// Whatever a text holds, nothing that leaves here is obeyed by a terminal but the progress bar's
// own sequences. Knows no command.

import { SingleBar } from "cli-progress";
import { Dialogue } from "./dialogue.js";
import { UsageError } from "./failure.js";
import { oneLine, plain } from "./plain.js";

/** The streams of a process. */
export interface Streams {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly stdout: NodeJS.WritableStream & { readonly isTTY?: boolean };
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean };
}

/** A bar on a terminal, nothing elsewhere. */
export interface Bar {
  readonly update: (progress: { done: number; total: number }) => void;
  readonly stop: () => void;
}

const SILENT: Bar = { update: () => undefined, stop: () => undefined };

/** Milliseconds after which work is worth a bar. */
const PATIENCE = 300;

export class Terminal {
  readonly #streams: Streams;
  /** Also tells a pipe what a terminal is told. */
  isVerbose = false;
  /** Aborted by SIGINT. */
  readonly signal: AbortSignal;
  /** What SIGINT ends in the place of the command, where there is something: whether there was. */
  #interrupt: (() => boolean) | undefined;

  constructor(streams: Streams, signal: AbortSignal) {
    this.#streams = streams;
    this.signal = signal;
  }

  /** Whether standard output is read by a person. */
  get isInteractive(): boolean {
    return this.#streams.stdout.isTTY === true;
  }

  #write(part: string | Uint8Array): Promise<void> {
    if (part.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => this.#streams.stdout.write(part, (error) => (error ? reject(error) : resolve())));
  }

  /**
   * What was asked for itself, or a part of it: a text, a file. A pipe or a file gets it as it is,
   * a person what can be seen of it. Resolves when its reader took it, as all that write results
   * do.
   */
  content(part: string | Uint8Array): Promise<void> {
    if (!this.isInteractive) return this.#write(part);
    if (typeof part !== "string") throw new UsageError("bytes are nothing for a terminal: send them to a file");
    return this.#write(plain(part));
  }

  /** Text of our own, of as many lines as it has. */
  text(text: string): Promise<void> {
    return this.#write(plain(text));
  }

  /** A line of a result. */
  line(text = ""): Promise<void> {
    return this.#write(`${oneLine(text)}\n`);
  }

  /** A result as JSON: on one line, or indented by so many spaces. */
  json(value: unknown, indent?: number): Promise<void> {
    return this.text(`${JSON.stringify(value, null, indent)}\n`);
  }

  /** For who watches: on a terminal, or with --verbose. */
  note(text: string): void {
    if (this.#streams.stderr.isTTY || this.isVerbose) this.complain(text);
  }

  /** A line for everybody, on standard error. */
  complain(text: string): void {
    this.#streams.stderr.write(`${oneLine(text)}\n`);
  }

  /** A progress bar on standard error, where that is a terminal and the work takes its time. */
  bar(what: string, show: (amount: number) => string = String): Bar {
    // One that is dumb does not move its cursor.
    if (!this.#streams.stderr.isTTY || process.env["TERM"] === "dumb") return SILENT;
    const start = Date.now();
    let bar: SingleBar | undefined;
    return {
      update: ({ done, total }) => {
        if (!bar && Date.now() - start < PATIENCE) return;
        if (!bar) {
          bar = new SingleBar({
            stream: this.#streams.stderr,
            format: `${oneLine(what)} {bar} {percentage} % {shown}`,
            barCompleteChar: "█",
            barIncompleteChar: "░",
            clearOnComplete: true,
            gracefulExit: false,
          });
          bar.start(total, done, { shown: "" });
        }
        bar.setTotal(total);
        bar.update(done, { shown: `${show(done)} of ${show(total)}` });
      },
      stop: () => bar?.stop(),
    };
  }

  /** Whether a person types. */
  get isAsked(): boolean {
    return this.#streams.stdin.isTTY === true;
  }

  /** Whether something was ended by SIGINT that is not the command. */
  interrupted(): boolean {
    return this.#interrupt?.() ?? false;
  }

  /** Lines of standard input, asked for on standard error. `interrupt` is what Ctrl-C ends. */
  dialogue(interrupt: () => boolean): Dialogue {
    const { stdin, stderr } = this.#streams;
    this.#interrupt = interrupt;
    return new Dialogue(stdin, stderr, () => void interrupt());
  }

  /**
   * Resolves when both streams let go of what was written: of pipes not every system waits for it.
   */
  async flushed(): Promise<void> {
    const { stdout, stderr } = this.#streams;
    for (const stream of [stdout, stderr]) await new Promise<void>((resolve) => stream.write("", () => resolve()));
  }

  /** All of standard input; a person who types is told what is missing instead. */
  async input(what: string): Promise<Buffer> {
    if (this.#streams.stdin.isTTY) throw new UsageError(`${what} is missing: give it as an argument or on standard input`);
    const pieces: Buffer[] = [];
    for await (const piece of this.#streams.stdin) pieces.push(Buffer.from(piece as Buffer));
    return Buffer.concat(pieces);
  }
}
