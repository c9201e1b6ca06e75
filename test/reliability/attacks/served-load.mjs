// The server of `diffattn serve` under load: random requests of twelve callers at once, streamed
// and not, a third of which hang up somewhere on the way. Every answer that is waited for comes and
// is what the package writes alone; no place stays taken; memory stays flat.

import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { startServer } from "../../serve/started.mjs";
import { models, within } from "../lib/package.mjs";
import { Random } from "../lib/random.mjs";

const path = (name) => fileURLToPath(new URL(`../../../${name}`, import.meta.url));
const MODEL = path("examples/model");

const CALLERS = 12;
/** New tokens of a text. */
const LENGTH = 48;
const PATIENCE_MS = 60_000;
/** What was reserved at first is not growth: the first part of the time, a minute of ten. */
const WARM_UP = 0.1;

const BEGINNINGS = [
  "Returns the number of",
  "Once",
  "The capacity of a vector is the amount of space allocated for any future elements that will be added onto the vector.",
  "Returns the number of elements in the vector, also referred to as its length. # Examples",
];

/** Texts to ask for, with what the package writes. */
async function expectations() {
  const model = await models.LanguageModel.load(MODEL);
  const cases = [];
  for (const beginning of BEGINNINGS)
    for (const end of ["", " let", " # Panics", " and so on"])
      for (const temperature of [0, 0.8]) {
        const prompt = beginning + end;
        const texts = [];
        for await (const { text } of model.generate(prompt, { maxNewTokens: LENGTH, temperature, seed: 3 })) texts.push(text);
        cases.push({ prompt, temperature, seed: 3, texts });
      }
  model.dispose();
  return cases;
}

/** One request; "" where its answer is right or was given up, else what is wrong. */
async function ask(address, cases, random) {
  const { prompt, temperature, seed, texts } = random.pick(cases);
  const stream = random.oneIn(2);
  const body = JSON.stringify({ prompt, temperature, seed, max_tokens: random.integer(1, LENGTH), stream });
  const { max_tokens: length } = JSON.parse(body);
  const stop = new AbortController();
  const gives = random.oneIn(3);
  if (gives) setTimeout(() => stop.abort(), random.integer(0, 150));
  try {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${address}/v1/completions`, { method: "POST", headers, body, signal: stop.signal });
    const said = await response.text();
    if (response.status !== 200) return `status ${response.status}: ${said.slice(0, 100)}`;
    const answers = stream ? said.split("\n\n").filter((event) => event.startsWith("data: {")) : [`data: ${said}`];
    if (stream && !said.endsWith("data: [DONE]\n\n")) return "a stream without its end";
    const text = answers.map((event) => JSON.parse(event.slice(6)).choices[0].text).join("");
    const whole = texts.join("");
    // (What was held back comes with the last token: a text of fewer is a beginning of the whole.)
    const isRight = whole.startsWith(text) && text.length >= texts.slice(0, length).join("").length;
    return isRight ? "" : `${JSON.stringify(prompt.slice(-20))}: ${JSON.stringify(text.slice(0, 80))}`;
  } catch (error) {
    return gives && stop.signal.aborted ? "" : `no answer: ${error.message}`;
  }
}

export default {
  title: "load on the server",
  properties: {
    "answers that are wrong or missing": { limit: 0 },
    "places that stay taken": { limit: 0 },
    "growth of memory after the warm-up beyond 2 %, MiB": { limit: 0 },
  },
  // Seconds.
  counts: { short: 20, full: 600 },
  minutes: { short: 3, full: 14 },

  async run({ count, seed, isFull, trace, miss }) {
    // In a short time what a heap grows to first is not reached.
    const slack = isFull ? 0 : 32 * 2 ** 20;
    const cases = await expectations();
    const { child: server, address } = await startServer(MODEL, ["--parallel", "8", "--prefix-memory", "32"]);
    const metric = async (name) => {
      const said = await (await fetch(`${address}/metrics`)).text();
      return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(said)?.[1]);
    };
    // Every text once, whole: what is kept of beginnings is there however slow the machine is.
    const headers = { "content-type": "application/json" };
    for (const { prompt, temperature, seed } of cases) {
      const body = JSON.stringify({ prompt, temperature, seed, max_tokens: LENGTH });
      await (await fetch(`${address}/v1/completions`, { method: "POST", headers, body })).text();
    }
    let wrong = 0;
    let asked = 0;
    const begin = Date.now();
    const isOver = () => Date.now() - begin > count * 1000;
    const caller = async () => {
      while (!isOver()) {
        const index = asked++;
        trace(index, "a request");
        const found = await within(PATIENCE_MS, ask(address, cases, new Random(seed, index)), "a request").catch((error) => error.message);
        if (found === "") continue;
        wrong++;
        miss(index, found, "answers");
      }
    };
    // What the process has now goes up and down: the least of a stretch is what stays.
    let [before, after] = [Infinity, Infinity];
    const watch = async () => {
      while (!isOver()) {
        const part = (Date.now() - begin) / (count * 1000);
        const now = await metric("process_resident_memory_bytes");
        if (part > WARM_UP && part < 0.4) before = Math.min(before, now);
        if (part > 0.7) after = Math.min(after, now);
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    };
    await Promise.all([watch(), ...Array.from({ length: CALLERS }, caller)]);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { running, waiting } = await (await fetch(`${address}/health`)).json();
    server.kill("SIGTERM");
    await once(server, "close");
    return {
      "answers that are wrong or missing": wrong,
      "places that stay taken": running + waiting,
      "growth of memory after the warm-up beyond 2 %, MiB": Math.max(0, Math.ceil((after - before * 1.02 - slack) / 2 ** 20)),
      note: `${asked} requests, ${((after / before - 1) * 100).toFixed(1)} % more memory`,
    };
  },
};
