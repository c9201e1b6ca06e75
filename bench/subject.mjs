// A subject's process: starts it, asks it one request at a time, ends it. What goes wrong becomes
// one sentence.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** Settings of ours that a user's environment must not bring in. */
const OURS = ["DIFFATTN_BACKEND", "DIFFATTN_ISA", "DIFFATTN_NUM_THREADS"];

/** Milliseconds in which what a process wrote before its end is read. */
const LAST_WORDS = 100;
/** Milliseconds that a process has to end by itself. */
const GRACE = 5000;

export class Subject {
  #child;
  #waiting;
  #ended;
  #lastWords = "";

  constructor([program, ...args]) {
    const env = { ...process.env };
    for (const name of OURS) delete env[name];
    this.#child = spawn(program, args, { env, stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stderr.setEncoding("utf8").on("data", (text) => (this.#lastWords = (this.#lastWords + text).slice(-2000)));
    // A process that ended does not read; its end says why.
    this.#child.stdin.on("error", () => {});
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#settle(line));
    this.#child.on("error", (error) => this.#over(error.message));
    // Not "close": processes that it started may hold its output open for longer. Its last words
    // get a moment to arrive.
    this.#child.on("exit", (code, signal) => {
      setTimeout(() => this.#over(signal ? `it was ended by ${signal}` : `it ended with code ${code}`), LAST_WORDS);
    });
  }

  get isOver() {
    return this.#ended !== undefined;
  }

  /**
   * The reply to a request. Its error, the process's end and a reply that takes longer than
   * `seconds` reject.
   */
  async ask(request, seconds) {
    if (this.#ended) throw new Error(this.#ended);
    const reply = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#over(`no reply to "${request.do}" in ${seconds} s`);
        this.#child.kill("SIGKILL");
      }, seconds * 1000);
      this.#waiting = { resolve, reject, timer };
      this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    });
    if (reply.error) throw new Error(reply.error);
    return reply;
  }

  #settle(line) {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    clearTimeout(waiting?.timer);
    try {
      waiting?.resolve(JSON.parse(line));
    } catch {
      waiting?.reject(new Error(`it replied ${line.slice(0, 100)}`));
    }
  }

  #over(why) {
    const said = this.#lastWords.trim().split("\n").at(-1).slice(0, 200);
    this.#ended ??= said ? `${why}; it said: ${said}` : why;
    clearTimeout(this.#waiting?.timer);
    this.#waiting?.reject(new Error(this.#ended));
    this.#waiting = undefined;
  }

  /** Ends the process and waits for it. */
  async end() {
    const { exitCode, signalCode, pid, stdin, stdout, stderr } = this.#child;
    if (exitCode === null && signalCode === null && pid !== undefined) {
      const exited = new Promise((resolve) => this.#child.once("exit", resolve));
      stdin.end();
      const timer = setTimeout(() => this.#child.kill("SIGKILL"), GRACE);
      await exited;
      clearTimeout(timer);
    }
    stdout.destroy();
    stderr.destroy();
  }
}
