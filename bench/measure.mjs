// Measures a group of plan.mjs: loads its entrants, lets them run in turn, checks their answers.
// Whatever fails becomes the entrant's `error`, one sentence; nothing here ends the benchmark.
import { seconds } from "../scripts/tools.mjs";
import { cases, checked, expectedOf, work } from "./cases.mjs";
import { placeOf } from "./model-files.mjs";
import { median, relativeError, TOLERANCE } from "./statistics.mjs";
import { Subject } from "./subject.mjs";

/**
 * In short runs only the best counts: a peer's variant that takes so many times as long as its
 * fastest one on as many threads runs once.
 */
const SLOW = 1.3;
/** And so does every variant of a peer that takes so many times as long as the best peer. */
const FAR = 4;

/**
 * Seconds of calls, one right after the other, before one that is measured awake. (With one call
 * before it, and a message between the two, two threads took 1.05 to 1.2 times as long as in a loop:
 * of 5 ms the system took one to give the second one a core.)
 */
const AWAKE = 0.1;

const decode = (base64) => {
  const bytes = Buffer.from(base64, "base64");
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
};

export class Bench {
  #subjects;
  #reference;
  #limits;
  #say;
  #processes = new Map();
  #expected = new Map();
  /** What each subject said of itself; its name → reply to `info`. */
  info = new Map();

  /**
   * @param subjects name → { command, kind?, missing } (`missing` is a sentence where it cannot
   *   run)
   * @param reference the command of the float64 subject
   * @param limits { budget: seconds for a group's runs, fewest, most: rounds, patience: seconds for
   *   one reply, onlyBest: drop slow peers }
   */
  constructor(subjects, reference, limits, say) {
    this.#subjects = subjects;
    this.#reference = new Subject(reference);
    this.#limits = limits;
    this.#say = say;
  }

  /** The process of a subject number `slot`, started where there is none. */
  async #process(name, slot) {
    const key = `${name} ${slot}`;
    const running = this.#processes.get(key);
    if (running && !running.isOver) return running;
    const { command, missing } = this.#subjects.get(name);
    if (missing) throw new Error(missing);
    const started = new Subject(command);
    this.#processes.set(key, started);
    if (!this.info.has(name)) this.info.set(name, await started.ask({ do: "info" }, this.#limits.patience));
    return started;
  }

  /** What a subject says of itself. */
  async about(name) {
    await this.#process(name, "0");
    return this.info.get(name);
  }

  async #endOthers(names) {
    for (const [key, process] of this.#processes) {
      if (names.has(key.split(" ")[0])) continue;
      this.#processes.delete(key);
      await process.end();
    }
  }

  async end() {
    await this.#endOthers(new Set());
    await this.#reference.end();
  }

  /** The entrants, with an entry for each variant of each peer that is meant. */
  async #expand(entrants) {
    const all = [];
    for (const entrant of entrants) {
      if (!entrant.peers) {
        all.push(entrant);
        continue;
      }
      const { peers: kind, only, case: id, of, threads = 1 } = entrant;
      for (const [name, subject] of this.#subjects) {
        if (subject.kind !== kind || (only && !only.includes(name))) continue;
        const one = { kind: "run", peer: kind, subject: name, case: id, threads, of };
        const named = (as) => (threads > 1 ? `${as}, ${threads} threads` : as);
        try {
          const process = await this.#process(name, "0");
          const { variants } = await process.ask({ do: "variants", case: cases.get(id) }, this.#limits.patience);
          all.push(...variants.map((variant) => ({ ...one, as: named(`${name} ${variant}`), variant })));
        } catch (error) {
          all.push({ ...one, as: named(name), error: error.message });
        }
      }
    }
    return all;
  }

  /** Measures a group: its entrants with `seconds`, `rate`, `answerError`, `error`, `note`. */
  async measure({ id, entrants: planned }) {
    await this.#endOthers(new Set(planned.map(({ subject }) => subject).filter(Boolean)));
    const entrants = (await this.#expand(planned)).map((entrant) => ({ ...entrant, samples: [] }));
    const slots = new Map();
    for (const entrant of entrants) {
      if (entrant.error) continue;
      const key = slotOf(entrant, slots);
      await this.#attempt(entrant, async () => {
        entrant.process = await this.#process(entrant.subject, key);
        await this.#ready(entrant);
      });
    }
    await this.#rounds(id, entrants);
    for (const entrant of entrants) if (entrant.kind === "run") await this.#attempt(entrant, () => this.#check(entrant));
    return entrants.map((entrant) => summary(entrant));
  }

  async #attempt(entrant, body) {
    if (entrant.error) return;
    try {
      await body();
    } catch (error) {
      entrant.error = error.message;
      this.#say(`  ${entrant.as}: ${error.message}`);
    }
  }

  async #ready(entrant) {
    const { kind, case: id, variant, threads, isa, process } = entrant;
    const { patience } = this.#limits;
    const on = { threads, ...(isa && { isa }) };
    if (kind === "run") {
      const start = Date.now();
      const test = cases.get(id);
      // Only ours makes files that are missing, and comes first.
      const place = test.model && placeOf(test);
      await process.ask({ do: "load", case: test, variant, ...(place && { place }), ...on }, patience);
      this.#say(`  ${entrant.as}: loaded in ${seconds(start)}`);
    } else if (kind === "scratch") {
      this.#say(`  ${entrant.as}: one call`);
      entrant.bytes = (await process.ask({ do: "scratch", case: cases.get(id), ...on }, patience)).bytes;
      await process.end();
    }
  }

  /**
   * Entrants run in turn until there are enough runs, an odd count of them, and the time is spent.
   */
  async #rounds(id, entrants) {
    const { budget, fewest, most } = this.#limits;
    const running = entrants.filter(({ kind, error }) => !error && kind !== "scratch");
    const start = Date.now();
    const spent = () => (Date.now() - start) / 1000;
    let round = 0;
    while (running.some(({ error }) => !error) && round < most && (round < fewest || round % 2 === 0 || spent() < budget)) {
      for (const entrant of running) if (!entrant.isLeftOut) await this.#attempt(entrant, () => this.#once(entrant));
      if (round === 0 && this.#limits.onlyBest) leaveOutSlow(running);
      round++;
    }
    if (round > 0) this.#say(`  ${id}: ${round} rounds in ${spent().toFixed(0)} s`);
  }

  async #once(entrant) {
    const { kind, what, isa, threads, bytes, isAwake, process, samples } = entrant;
    const { patience } = this.#limits;
    const limit = { do: "limit", what, threads, ...(isa && { isa }), ...(bytes && { bytes }) };
    const request = kind === "run" ? { do: "run", ...(isAwake && { after: AWAKE }) } : limit;
    // (A limit is a loop of some 50 ms: one before it is enough.)
    if (isAwake && kind !== "run") await process.ask(request, patience);
    const { seconds, perSecond } = await process.ask(request, patience);
    samples.push(kind === "run" ? seconds : perSecond);
  }

  async #check(entrant) {
    const { patience } = this.#limits;
    const test = cases.get(entrant.case);
    for (const part of checked(test)) await this.#checkPart(entrant, test, part, patience);
  }

  /** Compares one result with float64; of several each in units of its own largest value. */
  async #checkPart(entrant, test, part, patience) {
    const key = [test.id, part.of].join(" ");
    if (expectedOf(test)) this.#expected.set(key, expectedOf(test));
    if (!this.#expected.has(key)) {
      await this.#reference.ask({ do: "load", case: test }, patience);
      for (const one of checked(test))
        this.#expected.set([test.id, one.of].join(" "), decode((await this.#reference.ask({ do: "answer", ...one }, patience)).values));
    }
    const values = decode((await entrant.process.ask({ do: "answer", ...part }, patience)).values);
    const expected = this.#expected.get(key);
    const error = relativeError(values, expected);
    // (A NaN stays.)
    entrant.answerError = Math.max(entrant.answerError ?? 0, error);
    if (test.greedy) {
      const first = values.findIndex((id, i) => id !== expected[i]);
      if (first >= 0) throw new Error(`a wrong answer: token ${first} is ${values[first]}, ${expected[first]} is expected`);
    } else if (!(error <= TOLERANCE)) {
      const what = part.of ? `the error of ${part.of}` : "its error";
      throw new Error(`a wrong answer: ${what} is ${error.toExponential(1)} of the largest value, ${TOLERANCE} is allowed`);
    }
  }
}

/**
 * Which of its subject's processes an entrant has: one of its own, but limits take turns with the
 * first one.
 */
function slotOf({ kind, subject, case: id, peer, threads }, counts) {
  if (kind === "limit") return "0";
  // Memory is counted in a process that did nothing before.
  if (kind === "scratch") return `scratch ${id}`;
  // Some libraries keep the thread count that a process began with.
  const start = peer && threads > 1 ? `threads ${threads}, ` : "";
  const slot = counts.get(subject + start) ?? 0;
  counts.set(subject + start, slot + 1);
  return `${start}${slot}`;
}

/** Leaves out the peers' variants that the first round shows to be slow. */
function leaveOutSlow(entrants) {
  const peers = entrants.filter(({ peer, samples }) => peer && samples.length > 0);
  for (const entrant of peers) {
    const [seconds] = entrant.samples;
    const rivals = peers.filter(({ peer, threads }) => peer === entrant.peer && threads === entrant.threads);
    const fastest = (some) => Math.min(...some.map(({ samples }) => samples[0]));
    const isSlow = seconds > SLOW * fastest(rivals.filter(({ subject }) => subject === entrant.subject));
    const isFar = seconds > FAR * fastest(rivals);
    entrant.isLeftOut = isSlow || isFar;
    if (entrant.isLeftOut) entrant.note = isFar ? "one run: far from the best peer" : "one run: slower than its best variant";
  }
}

/** What is told of an entrant: without its process. */
function summary({ samples, ...entrant }) {
  delete entrant.process;
  delete entrant.isLeftOut;
  if (samples.length === 0) return { ...entrant, runs: entrant.kind === "scratch" && entrant.bytes !== undefined ? 1 : 0 };
  const middle = median(samples);
  const spread = { median: middle, min: Math.min(...samples), max: Math.max(...samples) };
  if (entrant.kind === "limit") return { ...entrant, runs: samples.length, rate: middle, rates: spread };
  const { amount, unit } = work(cases.get(entrant.case));
  return { ...entrant, runs: samples.length, seconds: spread, rate: amount / middle, unit };
}
