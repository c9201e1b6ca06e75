// The subject in a page: answers requests that page.mjs hands over, through the package's public
// door and with the limits of the page's engine. `answer(request)` is global.
import * as api from "/packages/diffattn/dist/browser.js";
import { sentence } from "./measuring.mjs";
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

const answers = handlers(api, {
  about: () => ({ runtime: /Chrome\/[\d.]+/.exec(navigator.userAgent)?.[0] ?? navigator.userAgent }),
  start: (isa, threads) => ({ isa, threads }),
  limit,
  isWasm: true,
});

globalThis.answer = async (request) => {
  try {
    return (await answers[request.do](request)) ?? {};
  } catch (error) {
    return { error: sentence(error) };
  }
};
