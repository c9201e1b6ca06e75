// Loads from servers that lie about lengths, ranges and types, break off, send bombs and endless
// answers, or hang. Each load ends in an error about the file, or by its signal; where it gives a
// model all the same, that is the right one. In bounded time and memory.

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { lies } from "../lib/liar.mjs";
import { filesOf, letters, LLAMA } from "../lib/models.mjs";
import { api, models, notOurs } from "../lib/package.mjs";
import { bits } from "../lib/suite.mjs";

/** When the caller's signal ends a load that hangs. */
const PATIENCE_MS = 700;
/** Loads that do not hang end by themselves before this. */
const LONG_MS = 8000;
/**
 * What a service gives for addresses that strangers name: the limit of a file that comes whole,
 * weights too (4 GiB else).
 */
const MOST = 2 ** 26;
/** Four times that: a file may be there as pieces, as bytes and as text. */
const GROWTH = 256;

const FILES = ["config.json", "model.safetensors"];

const loads = {
  load: async (address, options) => {
    const model = await models.DiffLlama.load(address, { ...options, tokenizer: letters });
    try {
      return Buffer.from(bits(await model.forward([5, 6, 7])));
    } finally {
      model.dispose();
    }
  },
  openSafetensors: async (address, options) => {
    const file = await models.openSafetensors(`${address}model.safetensors`, options);
    try {
      return Buffer.from((await file.read(file.names[0], { signal: options.signal })).data);
    } finally {
      file.dispose();
    }
  },
  inspectCheckpoint: async (address, options) => Buffer.from(JSON.stringify(await models.inspectCheckpoint(address, options))),
};

export default {
  title: "servers that lie",
  properties: {
    "errors not ours, or neither FILE nor the signal's": { limit: 0 },
    "wrong values": { limit: 0 },
    "loads that did not end by themselves": { limit: 0 },
    "growth of memory, MiB": { limit: GROWTH },
  },
  counts: { short: 1, full: 3 },
  minutes: { short: 3, full: 10 },
  flags: ["--expose-gc"],

  async run({ count, trace, miss }) {
    await api.init({ backend: "native" });
    const server = fork(fileURLToPath(new URL("../lib/liar.mjs", import.meta.url)));
    const port = await new Promise((resolve) => server.once("message", resolve));
    let [foreign, wrong, endless, growth] = [0, 0, 0, 0];
    const truth = {};
    for (const name of Object.keys(loads)) truth[name] = await loads[name](`http://127.0.0.1:${port}/honest/`, {});
    // Where files come from is part of what an inspection may say; who the server is, is not.
    const local = await models.DiffLlama.load(filesOf(LLAMA), { tokenizer: letters });
    if (!truth.load.equals(Buffer.from(bits(await local.forward([5, 6, 7]))))) wrong++;
    local.dispose();

    for (let round = 0; round < count; round++) {
      for (const lie of Object.keys(lies)) {
        for (const which of round === 0 ? [undefined] : [...FILES, "tokenizer.json"]) {
          for (const name of Object.keys(loads)) {
            const what = `${name}, ${lie}${which ? ` in ${which}` : ""}`;
            trace(round, what);
            globalThis.gc();
            const before = process.memoryUsage().rss;
            let peak = before;
            const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 5);
            const hangs = lie.startsWith("hangs") || lie === "headers without end";
            const signal = AbortSignal.timeout(hangs ? PATIENCE_MS : LONG_MS);
            const start = performance.now();
            try {
              const path = encodeURIComponent(which ? `${lie}@${which}` : lie);
              const got = await loads[name](`http://127.0.0.1:${port}/${path}/`, { signal, maxFileBytes: MOST });
              if (!got.equals(truth[name]) && name !== "inspectCheckpoint" && lie !== "noise" && lie !== "another file each time") {
                wrong++;
                miss(what, "another model than the server has");
              }
            } catch (error) {
              const isRight = error.code === "FILE" || (error.code === "ABORTED" && hangs);
              if (error.code === "ABORTED" && !hangs) {
                endless++;
                miss(what, `only the signal ended it after ${(performance.now() - start).toFixed(0)} ms`, `late: ${lie}`);
              } else if (notOurs(error) || !isRight) {
                foreign++;
                miss(what, notOurs(error) ?? `${error.code}: ${error.message.slice(0, 160)}`);
              }
            }
            clearInterval(watch);
            peak = Math.max(peak, process.memoryUsage().rss);
            const grown = (peak - before) / 2 ** 20;
            growth = Math.max(growth, grown);
            if (grown > GROWTH) miss(what, `${grown.toFixed(0)} MiB more`);
          }
        }
      }
    }
    server.kill();
    return {
      "errors not ours, or neither FILE nor the signal's": foreign,
      "wrong values": wrong,
      "loads that did not end by themselves": endless,
      "growth of memory, MiB": Math.ceil(growth),
    };
  },
};
