// What the server does under load: `diffattn serve` with SmolLM2 (its GGUF, as stored) beside
// llama.cpp with as many sequences in one context, in turn. Starts both, checks answers, prints
// three figures with their targets. Builds nothing.
//
//   node bench/served.mjs [--rounds 5] [--threads 2] [--json]
//
// S1: tokens per second of eight clients in all, by those of one; by llama.cpp's with eight
//     sequences. A client asks for 128 tokens after 16 of its own; the time is from the first
//     request to the last answer's end.
// S2: the time to the first token of a prompt of 64 tokens while seven others write, by that alone.
// S3: the time to the first token of a prompt of 1056 tokens whose first 1024 another had, by that
//     of one that nobody had.
import { parseArgs } from "node:util";
import { smollm2File } from "../scripts/smollm2-file.mjs";
import { startServer } from "../test/serve/started.mjs";
import { setupPeers } from "./peers/setup.mjs";
import { median } from "./statistics.mjs";
import { table } from "./tables.mjs";

const CLIENTS = 8;
const [PROMPT, NEW] = [16, 128];
const VOCABULARY = 49_152;
/** Ends of turns and of texts, which no text here may reach before its length. */
const ENDS = [0, 2];

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, threads: { type: "string", default: "2" }, json: { type: "boolean" } },
});
const [rounds, threads] = [Number(values.rounds), Number(values.threads)];

let state = 1;
/** Ids that no other prompt has, past those of special tokens. */
function ids(count) {
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return 1000 + ((state >>> 8) % (VOCABULARY - 2000));
  });
}

/** Ours: the built command line as a process. */
async function startOurs(model) {
  const { child, address } = await startServer(model, ["--parallel", String(CLIENTS), "--threads", String(threads)]);
  const headers = { "content-type": "application/json" };
  const logit_bias = Object.fromEntries(ENDS.map((id) => [id, -100]));
  /** Writes a text; its seconds to the first token and to the end, and what it is. */
  const write = async (prompt, tokens, signal) => {
    const body = { prompt, max_tokens: tokens, temperature: 0, stream: true, stream_options: { include_usage: true }, logit_bias };
    const begin = performance.now();
    const response = await fetch(`${address}/v1/completions`, { method: "POST", headers, body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    let first;
    let said = "";
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      first ??= performance.now();
      said += piece;
    }
    const events = said.split("\n\n").filter((event) => event.startsWith("data: {"));
    const objects = events.map((event) => JSON.parse(event.slice(6)));
    const text = objects.map(({ choices: [choice] }) => choice?.text ?? "").join("");
    const { completion_tokens: count, prompt_tokens_details: details } = objects.at(-1).usage;
    if (count !== tokens) throw new Error(`${count} tokens of ${tokens}`);
    return { text, first: (first - begin) / 1000, reused: details.cached_tokens };
  };
  return { write, close: () => child.kill() };
}

/** The peer: one context with as many sequences, each evaluated by itself, batched by the library. */
async function startPeer(modelPath) {
  const { getLlama } = await import("./peers/node_modules/node-llama-cpp/dist/index.js");
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: 0, logLevel: "error" });
  const model = await llama.loadModel({ modelPath });
  const options = { contextSize: 256, batchSize: 512, flashAttention: true, sequences: CLIENTS, threads };
  const context = await model.createContext(options);
  const sequences = Array.from({ length: CLIENTS }, () => context.getSequence());
  const bias = { temperature: 0, yieldEogToken: true };
  const write = async (at, prompt, tokens) => {
    const sequence = sequences[at];
    await sequence.clearHistory();
    let count = 0;
    for await (const id of sequence.evaluate(prompt, bias)) {
      if (typeof id === "number" && ++count === tokens) break;
    }
    if (count !== tokens) throw new Error(`${count} tokens of ${tokens}`);
  };
  return { write, close: () => llama.dispose() };
}

/** Tokens per second of some texts that are written at once. */
async function throughput(write, prompts) {
  const begin = performance.now();
  await Promise.all(prompts.map((prompt, at) => write(at, prompt, NEW)));
  return (prompts.length * NEW * 1000) / (performance.now() - begin);
}

/** S1: of one and of all, ours and the peer's in turn. */
async function together(ours, peer) {
  const speeds = { one: [], all: [], peerOne: [], peer: [] };
  const write = (_, prompt, tokens) => ours.write(prompt, tokens);
  for (let round = 0; round <= rounds; round++) {
    const prompts = Array.from({ length: CLIENTS }, () => ids(PROMPT));
    const made = {
      one: await throughput(write, [ids(PROMPT)]),
      all: await throughput(write, prompts),
      ...(peer && { peerOne: await throughput(peer.write, [ids(PROMPT)]), peer: await throughput(peer.write, prompts) }),
    };
    // What is written beside others is what is written alone.
    if (round === 0) await same(ours, prompts);
    else for (const [name, speed] of Object.entries(made)) speeds[name].push(speed);
  }
  return Object.fromEntries(Object.entries(speeds).map(([name, all]) => [name, all.length > 0 ? median(all) : undefined]));
}

async function same(ours, prompts) {
  const beside = await Promise.all(prompts.map((prompt) => ours.write(prompt, NEW)));
  for (const [at, prompt] of prompts.entries()) {
    const alone = await ours.write(prompt, NEW);
    if (alone.text !== beside[at].text) throw new Error(`text ${at} is another beside others`);
  }
}

/** S2. */
async function amongOthers(ours) {
  const [alone, beside] = [[], []];
  for (let round = 0; round < 3 * rounds; round++) {
    alone.push((await ours.write(ids(64), 1)).first);
    const stop = new AbortController();
    const others = Array.from({ length: CLIENTS - 1 }, () => ours.write(ids(PROMPT), 800, stop.signal).catch(() => {}));
    await new Promise((resolve) => setTimeout(resolve, 400 + 37 * (round % 5)));
    beside.push((await ours.write(ids(64), 1)).first);
    stop.abort();
    await Promise.all(others);
  }
  return { alone: median(alone), beside: median(beside) };
}

/** S3. */
async function afterAnother(ours) {
  const [fresh, shared] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const beginning = ids(1024);
    fresh.push((await ours.write([...beginning, ...ids(32)], 1)).first);
    const second = await ours.write([...beginning, ...ids(32)], 1);
    if (second.reused < 1000) throw new Error(`${second.reused} tokens were reused`);
    shared.push(second.first);
  }
  return { fresh: median(fresh), shared: median(shared) };
}

const model = await smollm2File();
const { javascript: missing } = setupPeers();
const peer = missing ? undefined : await startPeer(model);
const ours = await startOurs(model);
try {
  const speeds = await together(ours, peer);
  const first = await amongOthers(ours);
  const prefix = await afterAnother(ours);
  const rows = [
    ["S1", `${CLIENTS} clients ÷ one (${speeds.all.toFixed(0)}, ${speeds.one.toFixed(0)} tokens/s)`, speeds.all / speeds.one, "≥ 3"],
    peer
      ? [
          "S1",
          `${CLIENTS} clients ÷ llama.cpp's (${speeds.peer.toFixed(0)}; alone ${speeds.peerOne.toFixed(0)})`,
          speeds.all / speeds.peer,
          "≥ 3",
        ]
      : ["S1", `÷ llama.cpp: ${missing}`, NaN, "≥ 3"],
    [
      "S2",
      `first token beside 7 ÷ alone (${(first.beside * 1000).toFixed(0)}, ${(first.alone * 1000).toFixed(0)} ms)`,
      first.beside / first.alone,
      "≤ 4",
    ],
    [
      "S3",
      `shared prefix ÷ without (${(prefix.shared * 1000).toFixed(0)}, ${(prefix.fresh * 1000).toFixed(0)} ms)`,
      prefix.shared / prefix.fresh,
      "≤ 0.1",
    ],
  ];
  if (values.json) console.log(JSON.stringify({ speeds, first, prefix }));
  else {
    const columns = [["figure"], ["what"], ["ratio", "right"], ["target"]];
    const cells = rows.map(([id, what, ratio, target]) => [id, what, ratio.toFixed(2), target]);
    console.log(table(columns, cells).join("\n"));
  }
} finally {
  ours.close();
  await peer?.close();
}
