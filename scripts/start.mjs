// `npm start`: sets up, builds, lets the trained model of examples/model write on the native
// backend in this terminal, then serves the page (packages/demo) and prints its address. With a
// model it serves the page with that one first, then has a conversation in this terminal. Opens
// nothing by itself; Ctrl-C ends it.
//
//   npm start -- [--model smollm2|PATH|ORG/NAME] [--port N] [--no-isolation] [--once]      (--once: no page)
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { build } from "./build.mjs";
import { main, setup } from "./setup.mjs";
import { namedModel, talk } from "./start-model.mjs";
import { root } from "./tools.mjs";

const PROMPT = "Returns the number of";
const TOKENS = 120;

/** What was asked for; ends with a sentence when it makes no sense. */
function options() {
  try {
    const flags = {
      model: { type: "string" },
      port: { type: "string" },
      "no-isolation": { type: "boolean" },
      once: { type: "boolean" },
    };
    const { model, port, once = false, "no-isolation": plain = false } = parseArgs({ options: flags }).values;
    if (model === "") throw new Error("--model: expected smollm2, a path or a name on the hub, got none");
    if (port !== undefined && !(/^\d+$/.test(port) && Number(port) < 65_536)) throw new Error(`--port: expected 0 … 65535, got ${port}`);
    return { model, port: port === undefined ? undefined : Number(port), once, isolated: !plain };
  } catch (error) {
    console.error(error.message);
    process.exit(2);
  }
}

/** A module that is there only once it is built. */
const built = (path) => import(pathToFileURL(join(root, path)).href);

/** Text on native, token by token as it comes. */
async function write() {
  const { dispose, init } = await built("packages/diffattn/dist/node.js");
  const { DiffLlama } = await built("packages/diffattn/dist/models-node.js");
  const { backend, isa, threads } = await init({ backend: "native" });
  const model = await DiffLlama.load(join(root, "examples/model"));
  console.log(`\nexamples/model (7M parameters) on ${backend}, ${isa}, ${threads} ${threads === 1 ? "thread" : "threads"}:\n`);
  process.stdout.write(PROMPT);
  const begun = performance.now();
  let first;
  let count = 0;
  for await (const { text } of model.generate(PROMPT, {
    maxNewTokens: TOKENS,
    temperature: 0.7,
    topK: 40,
    repetitionPenalty: 1.1,
    seed: 1,
  })) {
    first ??= performance.now();
    count += 1;
    process.stdout.write(text);
  }
  const rate = ((count - 1) * 1000) / (performance.now() - first);
  console.log(`\n\n${count} tokens, ${rate.toFixed(0)} per second, the first after ${(first - begun).toFixed(0)} ms`);
  model.dispose();
  dispose();
}

async function servePage({ port, isolated }, models = []) {
  const { serve } = await built("packages/demo/serve.mjs");
  const { address, close } = await serve({ port, isolated, models });
  console.log(`\nthe same model in your browser: ${address}   (Ctrl-C ends)`);
  return () => {
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => void close().then(() => process.exit(0)));
  };
}

/** A model that was asked for: the page first, as a conversation has no end of its own. */
async function startModel({ model: name, once, ...how }) {
  const model = await namedModel(name);
  const endBySignal = once ? undefined : await servePage(how, [model]);
  await talk(model);
  if (!endBySignal) return;
  console.log("\nthe page is still served; Ctrl-C ends it");
  endBySignal();
}

const asked = options();
main(() => {
  setup();
  build();
});
try {
  if (asked.model !== undefined) {
    await startModel(asked);
  } else {
    await write();
    if (!asked.once) (await servePage(asked))();
  }
} catch (error) {
  console.error(`failed: ${error.message}`);
  process.exit(1);
}
