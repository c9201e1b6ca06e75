// Measures this library and onnxruntime-web in turns on the same inputs and compares their answers;
// tells the page what it finds. Cases, inputs and models are those of bench/; the timing is its
// protocol's.

import * as api from "diffattn";
import type * as Ort from "onnxruntime-web";
import { sentence, timed } from "../../../bench/subjects/measuring.mjs";
import { handlers } from "../../../bench/subjects/public-door.mjs";
import { type BenchMessage, SINGLE } from "./bench-messages.js";
import { benchCases, type Case, type Form, formsOf, indexIn } from "./bench-subjects.js";

const tell = (message: BenchMessage): void => postMessage(message);

/** Calls of each, in turns. */
const ROUNDS = 7;
/** Values of an answer that are compared at most. */
const COMPARED = 65_536;
/** Largest difference, of the largest value, that two float32 computations of a case may have. */
const TOLERANCE = 1e-4;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

/** A case in words. */
function nameOf(test: Case): string {
  const shape = (test.x ?? test.q ?? []).join(" × ");
  if (test.op === "attention") return `causal attention, ${test.q?.[2] ?? 0} tokens, ${test.out[1] ?? 0} heads`;
  return `${test.op === "group_norm" ? "group norm" : "RMS norm"}, ${shape}`;
}

/** What onnxruntime-web does with a case in one form. */
interface Peer {
  form: string;
  run: () => Promise<number>;
  answer: (at: readonly number[]) => number[];
  release: () => Promise<void>;
}

async function load(ort: typeof Ort, test: Case, form: string, graph: Form): Promise<Peer> {
  const response = await fetch(new URL(`graphs/${test.id}.${form}.onnx`, import.meta.url));
  if (!response.ok) throw new Error(`${test.id}.${form}.onnx: the status ${response.status}`);
  const model = new Uint8Array(await response.arrayBuffer());
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all", executionMode: "sequential" } as const;
  const session = await ort.InferenceSession.create(model, options);
  const given = Object.entries(graph.inputs(test));
  const inputs = Object.fromEntries(given.map(([name, { data, dims }]) => [name, new ort.Tensor("float32", data, dims)]));
  let y: Float32Array | undefined;
  const once = async (): Promise<void> => void (y = (await session.run(inputs))["y"]?.data as Float32Array | undefined);
  // Twice: its memory still grows in the second.
  await once();
  await once();
  return {
    form,
    run: () => timed(once),
    answer: (at) => at.map((i) => y?.[indexIn(graph, test, i)] ?? NaN),
    release: () => session.release(),
  };
}

/** The fastest form; what it cannot run is left out. */
async function fastest(ort: typeof Ort, test: Case): Promise<Peer> {
  let best: { peer: Peer; seconds: number } | undefined;
  const reasons: string[] = [];
  for (const [form, graph] of Object.entries(formsOf(test))) {
    tell({ state: `${nameOf(test)}: onnxruntime-web, ${form}…` });
    try {
      const peer = await load(ort, test, form, graph);
      const seconds = Math.min(await peer.run(), await peer.run());
      const slower = best && best.seconds <= seconds ? peer : best?.peer;
      if (slower !== peer) best = { peer, seconds };
      await slower?.release();
    } catch (error) {
      reasons.push(`${form}: ${sentence(error)}`);
    }
  }
  if (!best) throw new Error(`onnxruntime-web has no form for ${test.id}: ${reasons.join("; ")}`);
  return best.peer;
}

/**
 * Our own two forms: at once on one thread, or elsewhere on all of them, for which inputs and
 * results are copied.
 */
async function fastestCall(test: Case, threads: number) {
  // What runs stays: a case needs no new worker and no new threads.
  const running = { ...api, dispose: () => undefined, init: () => Promise.resolve(api.info()) };
  const ours = handlers(running, {
    about: () => ({}),
    start: (_isa: unknown, count: number) => ({ threads: count }),
    limit: () => undefined,
    isWasm: true,
  });
  const calls = threads > 1 ? (["sync", "async"] as const) : (["sync"] as const);
  let best: { call: (typeof calls)[number]; seconds: number } | undefined;
  for (const call of calls) {
    tell({ state: `${nameOf(test)}: diffattn, ${call}…` });
    await ours.load({ case: test, variant: call, threads });
    const seconds = Math.min((await ours.run()).seconds, (await ours.run()).seconds);
    if (!best || seconds < best.seconds) best = { call, seconds };
  }
  const call = best?.call ?? "sync";
  // The last of them is loaded.
  if (call !== calls.at(-1)) await ours.load({ case: test, variant: call, threads });
  return { ours, call: call === "sync" ? "sync call, 1 thread" : "async call" };
}

/** The values of an answer of the protocol: float32, base64. */
function valuesOf(base64: string): Float32Array {
  return new Float32Array(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
}

async function measure(ort: typeof Ort, test: Case, threads: number): Promise<void> {
  const name = nameOf(test);
  const { ours, call } = await fastestCall(test, threads);
  const peer = await fastest(ort, test);

  const count = test.out.reduce((a, b) => a * b, 1);
  // An odd step visits every row and channel sooner or later.
  const step = Math.ceil(count / COMPARED) | 1;
  const at = Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
  tell({ state: `${name}: in turns…` });
  const times = { ours: [] as number[], peer: [] as number[] };
  let compared: { difference: number; agrees: boolean } | undefined;
  for (let round = 0; round < ROUNDS; round += 1) {
    times.ours.push((await ours.run()).seconds);
    times.peer.push(await peer.run());
    compared ??= compare(valuesOf(ours.answer({ at }).values), peer.answer(at));
    const medians = { ours: median(times.ours), peer: median(times.peer) };
    tell({ id: test.id, name, ...medians, call, form: peer.form, values: at.length, ...compared });
  }
  await peer.release();
}

/** NaN on either side is a difference without end. */
function compare(a: Float32Array, b: readonly number[]): { difference: number; agrees: boolean } {
  let difference = 0;
  let largest = 0;
  for (const [i, value] of a.entries()) {
    const apart = Math.abs(value - (b[i] ?? NaN));
    difference = Number.isNaN(apart) ? Infinity : Math.max(difference, apart);
    largest = Math.max(largest, Math.abs(value));
  }
  return { difference, agrees: a.length === b.length && difference <= TOLERANCE * largest };
}

/** Starts this library: on all threads, or on one, for which this worker starts no other. */
async function start(single: boolean): Promise<api.Info> {
  if (!single) return api.init();
  api.setThreads(1);
  return api.info();
}

async function runAll(): Promise<void> {
  const address = new URL("onnxruntime/ort.wasm.min.mjs", import.meta.url).href;
  const ort = (await import(/* @vite-ignore */ address)) as typeof Ort;
  const { threads, isa } = await start(self.name === SINGLE);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = new URL("onnxruntime/", import.meta.url).href;
  tell({
    about: `${threads === 1 ? "1 thread" : `${threads} threads`}. diffattn ${api.info().version}: ${isa}. onnxruntime-web ${ort.env.versions.web ?? ""}: WebAssembly. The small text names the form, of each library the fastest here. Medians of ${ROUNDS} calls.`,
  });
  for (const test of benchCases) await measure(ort, test, threads);
  tell({ done: true });
}

runAll().catch((error: unknown) => tell({ error: sentence(error) }));
