// Our operators in a page, through the package's public door, and the limits of the page's engine.
import * as api from "/packages/diffattn/dist/browser.js";
import { answering, runtime } from "./page-answers.js";
import { handlers } from "./public-door.mjs";
import { rateOf } from "./wasm-limits.mjs";

/** Workers that run multiply-adds, one for each thread, with the build they were made for. */
let pool = { isa: undefined, workers: [] };

const told = (worker, message) =>
  new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message || "the worker of the limits does not start"));
    worker.postMessage(message);
  });

async function limit({ what, isa, threads = 1 }) {
  if (what !== "fma") throw new Error("bandwidths are measured in Node");
  if (pool.isa !== isa) {
    for (const worker of pool.workers) worker.terminate();
    pool = { isa, workers: [] };
  }
  while (pool.workers.length < threads) {
    const worker = new Worker(new URL("page-limits-worker.js", import.meta.url), { type: "module" });
    pool.workers.push(worker);
    await told(worker, { isa });
  }
  return { perSecond: rateOf(await Promise.all(pool.workers.slice(0, threads).map((worker) => told(worker, "run")))) };
}

answering(
  handlers(api, {
    about: () => ({ runtime: runtime() }),
    start: (isa, threads) => ({ isa, threads }),
    limit,
    isWasm: true,
  }),
);
