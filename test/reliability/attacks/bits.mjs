// The same calls over random numbers of threads, in both forms, beside other rows of a batch, and
// on every instruction set and backend: bits may differ between what fuses and what does not, and
// nowhere else.

import { createHash } from "node:crypto";
import { operators } from "../lib/calls.mjs";
import { api } from "../lib/package.mjs";
import { Random } from "../lib/random.mjs";
import { bits } from "../lib/suite.mjs";

const UNFUSED = ["scalar", "simd128"];

/** What is to be had here. */
async function places() {
  const found = [];
  for (const [backend, isas] of [
    ["native", ["scalar", "avx2", "avx512", "neon"]],
    ["wasm", ["simd128", "relaxed-simd", "relaxed-simd+threads"]],
  ])
    for (const isa of isas) {
      try {
        await api.init({ backend, isa });
        found.push({ backend, isa });
      } catch (error) {
        if (error.code !== "UNAVAILABLE") throw error;
      }
    }
  return found;
}

/**
 * A second batch entry of other values behind the first: what is given, or undefined where the call
 * is no plain one.
 */
function beside(random, args) {
  const [q, k, v, options] = args;
  if (q.shape[0] !== 1 || options.cuSeqlensQ) return undefined;
  const doubled = ({ data, shape }) => {
    const both = new Float32Array(2 * data.length);
    both.set(data);
    both.set(random.floats(data.length), data.length);
    return { data: both, shape: [2, ...shape.slice(1)] };
  };
  const { lambda, keyLengths } = options;
  const wide = {
    ...options,
    ...(lambda?.shape?.[0] === 1 && lambda.shape.length === 3 && { lambda }),
    ...(keyLengths && { keyLengths: [...keyLengths, 1] }),
  };
  return [doubled(q), doubled(k), doubled(v), wide];
}

export default {
  title: "the same calls over threads, batches, forms and backends",
  properties: { "differing bits": { limit: 0 } },
  counts: { short: 25, full: 250 },
  minutes: { short: 2, full: 6 },

  async run({ count, seed, trace, miss }) {
    /** By call and by whether it fuses. */
    const expected = new Map();
    let differing = 0;
    const found = await places();
    for (const { backend, isa } of found) {
      await api.init({ backend, isa });
      for (let index = 0; index < count; index++) {
        const random = new Random(seed, index);
        const name = random.oneIn(3) ? random.pick(Object.keys(operators)) : "diffAttention";
        const { args } = operators[name].make(random);
        trace(index, `${name} on ${isa}`);
        const options = args.at(-1);
        // Of its own seed, so that every place has other threads for the same call.
        const how = new Random(seed + found.findIndex((place) => place.isa === isa) + 1, index);
        for (const deterministic of /^diffAttention/.test(name) ? [false, true] : [undefined]) {
          const given = [...args.slice(0, -1), deterministic === undefined ? options : { ...options, deterministic }];
          const results = [];
          for (const isAsync of [false, true]) {
            if (backend === "native") api.setThreads(how.integer(1, 4));
            const result = isAsync ? await api[name](...given) : api[`${name}Sync`](...given);
            results.push(result.diff ?? result);
          }
          const wide = name === "diffAttention" ? beside(how, given) : undefined;
          if (wide) {
            const { data, dtype } = api.diffAttentionSync(...wide);
            results.push({ data: data.subarray(0, data.length / 2), dtype });
          }
          // Norms and differences never fuse: one set of bits.
          const fuses = /^diffAttention/.test(name) && !deterministic && !UNFUSED.includes(isa);
          const key = `${index} ${fuses}`;
          for (const result of results) {
            const hash = createHash("sha256").update(bits(result)).digest("hex");
            const before = expected.get(key) ?? { hash, isa };
            expected.set(key, before);
            if (before.hash === hash) continue;
            differing++;
            miss(index, `${name} on ${isa}${deterministic ? ", deterministic" : ""}: other bits than on ${before.isa}`);
          }
        }
      }
    }
    return { "differing bits": differing };
  },
};
