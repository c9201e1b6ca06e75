// How soon the page's chat answers with SmolLM2 in four bits, in Chromium, and whether the page stays
// usable meanwhile: the first token since navigation, with the model in the browser's Cache Storage,
// and the longest task of the main thread while an answer comes. The page must be built (npm run
// build). Tests nothing; prints figures beside their targets, and fails where one is missed.
//
//   npm run check:page-chat [-- --runs N]
import { parseArgs } from "node:util";
import { serve } from "../../packages/demo/serve.mjs";
import { namedModel } from "../../scripts/start-model.mjs";
import { browsers } from "./launch.mjs";

const { values } = parseArgs({ options: { runs: { type: "string", default: "5" } } });
const QUESTION = "Explain in two sentences why the sky is blue.";
/** Milliseconds. */
const TARGETS = { first: 1500, task: 50 };

/** Runs before the page's own scripts: keeps when long tasks began and how long they took. */
function watch() {
  globalThis.tasks = [];
  new PerformanceObserver((list) => {
    for (const { startTime, duration } of list.getEntries()) globalThis.tasks.push({ startTime, duration });
  }).observe({ type: "longtask", buffered: true });
}

/** One visit: opens the page, which asks at once, and waits until the answer is there. */
async function visit(page, address) {
  await page.goto("about:blank");
  await page.goto(`${address}?chat=${encodeURIComponent(QUESTION)}`);
  for (;;) {
    const said = await page.evaluate(() => ({
      isOver: document.querySelector(".message.assistant .figures") !== null,
      error: document.getElementById("error").textContent,
    }));
    if (said.error !== "") throw new Error(said.error);
    if (said.isOver) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return page.evaluate(() => {
    const [{ startTime: first }] = performance.getEntriesByName("first-token");
    const marks = Object.fromEntries(["script", "model"].map((name) => [name, performance.getEntriesByName(name)[0].startTime]));
    // (Entries come when they are ripe: all of them are by now.)
    const writing = globalThis.tasks.filter(({ startTime, duration }) => startTime + duration > first).map(({ duration }) => duration);
    const said = document.querySelector(".message.assistant .figures").textContent;
    return { ...marks, first, task: Math.max(0, ...writing), isolated: crossOriginIsolated, said };
  });
}

/** Browsers tell of tasks from 50 ms on. */
const taskOf = (milliseconds) => (milliseconds === 0 ? "below 50 ms" : `${milliseconds.toFixed(0)} ms`);
const shown = (milliseconds) => milliseconds.toFixed(0).padStart(6);
const server = await serve({ port: 0, models: [await namedModel("smollm2")] });
const driver = await browsers.chromium(300_000);
const visits = [];
// (One page: each that its driver opens has a profile of its own, and a Cache Storage.)
const page = await driver.newPage();
await driver.before(page, watch);
try {
  console.log("visit   script   model   first token (milliseconds since navigation), longest task while it writes, the answer");
  for (let run = 0; run <= Number(values.runs); run += 1) {
    const figures = await visit(page, server.address);
    const { script, model, first, task, said } = figures;
    console.log(`${run === 0 ? "cold" : "warm"}  ${[script, model, first].map(shown).join("    ")}   ${taskOf(task)}   ${said}`);
    if (run > 0) visits.push(figures);
  }
} finally {
  await driver.close();
  await server.close();
}
const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
const first = median(visits.map((figures) => figures.first));
const task = Math.max(...visits.map((figures) => figures.task));
console.log(
  `S4: first token after ${(first / 1000).toFixed(2)} s from a warm cache (target ≤ ${TARGETS.first / 1000} s); longest task ${taskOf(task)} (target ≤ ${TARGETS.task} ms)`,
);
process.exitCode = first <= TARGETS.first && task <= TARGETS.task ? 0 : 1;
