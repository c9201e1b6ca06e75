// diffattn bench: how fast this machine is, in a minute or less, with every answer checked. What it
// says is for users; the project's own benchmark, beside other libraries, is another program
// (bench/ of the repository).

import type * as operators from "../types.js";
import type { LanguageModel } from "../models/types.js";
import { Failure } from "./failure.js";
import { columns, counted, duration, median } from "./format.js";
import { type BackendOptions, loadLanguageModel, loadOperators, start } from "./library.js";
import { attentionRow, normalised, relativeError } from "./reference.js";
import type { Terminal } from "./terminal.js";

export interface BenchOptions extends BackendOptions {
  seconds: number;
  json?: boolean;
}

/**
 * The largest error that is taken, in units of the largest value: correct float32 stays under half
 * of it.
 */
const TOLERANCE = 2e-5;
const FEWEST = 3;

interface Case {
  name: string;
  /**
   * One call on plain arrays, into memory that is there: new memory takes longer than a norm.
   * Resolves to what `error` looks at.
   */
  call(): Promise<Float32Array>;
  /** The largest relative error of a result, over rows from the first to the last. */
  error(result: Float32Array): number;
  /** FLOPs or bytes of one call. */
  work: number;
  unit: "GFLOP/s" | "GB/s";
  end?(): void;
}

interface Result {
  name: string;
  seconds: number;
  rate: number;
  unit: string;
  runs: number;
  error: number;
}

/** Numbers in [−1, 1) that look random and are the same every time. */
function numbers(length: number, seed: number): Float32Array {
  let state = seed >>> 0 || 1;
  return Float32Array.from({ length }, () => {
    // xorshift32 (Marsaglia 2003)
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 8) / 0x800000 - 1;
  });
}

const floats = ({ data }: operators.Tensor<operators.TensorData>): Float32Array => data as Float32Array;

/** (query, key) pairs that a causal mask leaves. */
const pairs = (queries: number, length: number): number => queries * length - (queries * (queries - 1)) / 2;

function attentionCase({ diffAttention }: typeof operators, length: number): Case {
  const about = { heads: 8, length, queries: length, width: 64, lambda: 0.35 };
  const { heads, width, lambda } = about;
  const [q, k, v] = [1, 2, 3].map((seed) => numbers(2 * heads * length * width, seed)) as [Float32Array, Float32Array, Float32Array];
  const shape = [1, 2 * heads, length, width];
  const tensors = [
    { data: q, shape },
    { data: k, shape },
    { data: v, shape: [1, heads, length, 2 * width] },
  ] as const;
  const out = new Float32Array(heads * length * 2 * width);
  return {
    name: `attention, ${length} tokens, 8 heads of 64, causal`,
    call: async () => floats(await diffAttention(...tensors, { lambda, isCausal: true, out })),
    error: (result) =>
      Math.max(
        ...[0, 3, heads - 1].flatMap((head) =>
          [0, length >> 1, length - 1].map((row) => {
            const at = (head * length + row) * 2 * width;
            return relativeError(result.subarray(at, at + 2 * width), attentionRow(about, { q, k, v }, head, row));
          }),
        ),
      ),
    work: 2 * pairs(length, length) * heads * 4 * width,
    unit: "GFLOP/s",
  };
}

function decodeCase({ diffAttention, KvCache }: typeof operators, length: number): Case {
  const about = { heads: 8, length, queries: 1, width: 64, lambda: 0.35 };
  const { heads, width, lambda } = about;
  const q = numbers(2 * heads * width, 1);
  const [k, v] = [2, 3].map((seed) => numbers(2 * heads * length * width, seed)) as [Float32Array, Float32Array];
  const cache = new KvCache({ groups: heads, headDim: width, valueDim: 2 * width, capacity: length });
  cache.append({ data: k, shape: [1, 2 * heads, length, width] }, { data: v, shape: [1, heads, length, 2 * width] });
  return {
    name: `one more token after ${length - 1}, 8 heads of 64`,
    call: async () => floats(await diffAttention({ data: q, shape: [1, 2 * heads, 1, width] }, cache, null, { lambda, isCausal: true })),
    error: (result) =>
      Math.max(
        ...Array.from({ length: heads }, (_, head) =>
          relativeError(result.subarray(head * 2 * width, (head + 1) * 2 * width), attentionRow(about, { q, k, v }, head, 0)),
        ),
      ),
    work: 4 * (k.length + v.length),
    unit: "GB/s",
    end: () => cache.dispose(),
  };
}

/** Groups of `length` values each are normalised apart. */
function normCase(name: string, x: Float32Array, length: number, centred: boolean, call: () => Promise<Float32Array>): Case {
  const groups = x.length / length;
  return {
    name,
    call,
    error: (result) =>
      Math.max(
        ...[0, groups >> 1, groups - 1].map((group) => {
          const part = (of: Float32Array): Float32Array => of.subarray(group * length, (group + 1) * length);
          return relativeError(part(result), normalised(part(x), 1e-5, centred));
        }),
      ),
    work: 8 * x.length,
    unit: "GB/s",
  };
}

function casesOf(library: typeof operators): (() => Case)[] {
  return [
    () => attentionCase(library, 512),
    () => attentionCase(library, 2048),
    () => decodeCase(library, 4096),
    () => {
      const x = numbers(4 * 256 * 64 * 64, 4);
      const out = new Float32Array(x.length);
      const tensor = { data: x, shape: [4, 256, 64, 64] };
      return normCase("group norm, 4 × 256 × 64 × 64, 32 groups", x, (256 / 32) * 64 * 64, true, async () =>
        floats(await library.groupNorm(tensor, { numGroups: 32, eps: 1e-5, out })),
      );
    },
    () => {
      const x = numbers(65536 * 128, 5);
      const out = new Float32Array(x.length);
      const tensor = { data: x, shape: [65536, 128] };
      return normCase("RMS norm, 65536 × 128", x, 128, false, async () => floats(await library.rmsNorm(tensor, { eps: 1e-5, out })));
    },
  ];
}

/** Median of runs for as long as was asked; the first, which warms up, does not count. */
async function timed(terminal: Terminal, seconds: number, body: () => Promise<unknown>): Promise<{ seconds: number; runs: number }> {
  await body();
  const times: number[] = [];
  const end = performance.now() + seconds * 1000;
  while (times.length < FEWEST || performance.now() < end) {
    terminal.signal.throwIfAborted();
    const start = performance.now();
    await body();
    times.push((performance.now() - start) / 1000);
  }
  return { seconds: median(times), runs: times.length };
}

/** Prompts of a model are these many tokens; so many are generated. */
const PREFILL = 512;
const GENERATED = 64;

/** The model's speed, and whether what it generates is what it says of the whole text. */
async function modelCases(terminal: Terminal, model: LanguageModel, seconds: number): Promise<Result[]> {
  const { signal } = terminal;
  const vocabulary = Number(model.config.vocab_size);
  const longest = Number(model.config.max_position_embeddings ?? Infinity);
  const length = Math.min(PREFILL, longest);
  const ids = Int32Array.from(numbers(length, 6), (x) => Math.min(vocabulary - 1, Math.floor(((x + 1) / 2) * vocabulary)));
  const prompt = [...ids.subarray(0, 16)];

  const prefill = await timed(terminal, seconds, () => model.forward(ids, { logits: "last", signal }));
  let generated: number[] = [];
  const rates: number[] = [];
  const decode = await timed(terminal, seconds, async () => {
    generated = [];
    let first = 0;
    for await (const { id } of model.generate(prompt, { maxNewTokens: GENERATED, stopIds: [], signal })) {
      if (generated.length === 0) first = performance.now();
      generated.push(id);
    }
    rates.push((performance.now() - first) / 1000 / (generated.length - 1));
  });

  // Token after token and all at once give the same bits, so each generated id is the highest logit
  // before it.
  const text = [...prompt, ...generated];
  const { data } = await model.forward(text, { signal });
  const wrong = generated.filter((id, i) => {
    const row = data.subarray((prompt.length - 1 + i) * vocabulary, (prompt.length + i) * vocabulary) as Float32Array;
    return row.some((logit) => logit > (row[id] ?? NaN)) || Number.isNaN(row[id] ?? NaN);
  }).length;
  const perToken = median(rates.slice(1));
  return [
    {
      name: `prompt of ${length} tokens`,
      seconds: prefill.seconds,
      rate: length / prefill.seconds,
      unit: "tokens/s",
      runs: prefill.runs,
      error: wrong,
    },
    { name: "each token after a prompt of 16", seconds: perToken, rate: 1 / perToken, unit: "tokens/s", runs: decode.runs, error: wrong },
  ];
}

export async function bench(terminal: Terminal, source: string | undefined, options: BenchOptions): Promise<void> {
  const library = await loadOperators();
  const info = await start(options);
  const makers = casesOf(library);
  const bar = terminal.bar("measuring");
  const results: Result[] = [];
  try {
    for (const [done, make] of makers.entries()) {
      bar.update({ done, total: makers.length });
      const one = make();
      try {
        const { seconds, runs } = await timed(terminal, options.seconds, () => one.call());
        results.push({ name: one.name, seconds, rate: one.work / seconds / 1e9, unit: one.unit, runs, error: one.error(await one.call()) });
      } finally {
        one.end?.();
      }
    }
  } finally {
    bar.stop();
  }
  if (source !== undefined) {
    using model = await loadLanguageModel(terminal, source);
    results.push(...(await modelCases(terminal, model, options.seconds)));
  }

  if (options.json) await terminal.json({ info, results }, 2);
  else {
    await terminal.line(`${info.backend} ${info.isa}, ${counted(info.threads, "thread")}, version ${info.version}`);
    const rows = results.map(({ name, seconds, rate, unit, error }) => [
      name,
      duration(seconds),
      rate.toPrecision(3),
      unit,
      unit === "tokens/s" ? (error === 0 ? "right" : `${error} WRONG`) : `error ${error.toExponential(0)}`,
    ]);
    for (const line of columns(rows, [1, 2])) await terminal.line(line);
  }
  const wrong = results.filter(({ unit, error }) => (unit === "tokens/s" ? error !== 0 : !(error <= TOLERANCE)));
  if (wrong.length > 0) throw new Failure(`wrong answers: ${wrong.map(({ name }) => name).join("; ")}`);
}
