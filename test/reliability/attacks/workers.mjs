// Worker threads that are terminated in the middle of calls. Each ends at once, the process
// outlives them all, and the next call gives its values.

import { Worker } from "node:worker_threads";
import { checkedCall } from "../lib/calls.mjs";
import { api, within } from "../lib/package.mjs";
import { Random } from "../lib/random.mjs";

export default {
  title: "workers that are terminated",
  properties: {
    "the longest end of a worker, ms": { limit: 1000 },
    "wrong values": { limit: 0 },
    "workers that failed before": { limit: 0 },
  },
  backends: ["native", "wasm"],
  counts: { short: 8, full: 300 },
  minutes: { short: 2, full: 10 },

  async run({ count, seed, backend, trace, miss }) {
    await api.init({ backend });
    let [longest, wrong, failed] = [0, 0, 0];
    for (let index = 0; index < count; index++) {
      const random = new Random(seed, index);
      trace(index, "a worker begins");
      const worker = new Worker(new URL("../lib/victim.mjs", import.meta.url), { workerData: { seed, index, backend } });
      const gone = new Promise((_, reject) => {
        worker.once("error", reject);
        worker.once("exit", (code) => reject(new Error(`exit ${code}`)));
      });
      gone.catch(() => {});
      try {
        await within(60_000, Promise.race([new Promise((resolve) => worker.once("message", resolve)), gone]), "a worker's start");
        await Promise.race([new Promise((resolve) => setTimeout(resolve, random.integer(0, 60))), gone]);
      } catch (error) {
        failed++;
        miss(index, `a worker failed: ${error.message}`);
      }
      trace(index, "a worker ends");
      const start = performance.now();
      try {
        await within(20_000, worker.terminate(), "terminate");
      } catch (error) {
        miss(index, error.message);
      }
      const took = performance.now() - start;
      longest = Math.max(longest, took);
      if (took > 1000) miss(index, `the end of a worker took ${took.toFixed(0)} ms`);
      const said = await within(20_000, checkedCall(random), "a call after a worker's end").catch((error) => error.message);
      if (said) wrong++;
      if (said) miss(index, said);
    }
    return { "the longest end of a worker, ms": Math.ceil(longest), "wrong values": wrong, "workers that failed before": failed };
  },
};
