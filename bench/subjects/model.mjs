// A subject: our models in Node, through the package's public door: decoding, prompts at once, and
// the memory of a loaded model.
//
//   node bench/subjects/model.mjs native|wasm
import { readFileSync } from "node:fs";
import * as api from "../../packages/diffattn/dist/node.js";
import { AudioCodec, DiffLlama, saveSafetensors } from "../../packages/diffattn/dist/models-node.js";
import { ensureModel, folderOf } from "../model-files.mjs";
import { serve } from "./protocol.mjs";
import { modelHandlers } from "./model-door.mjs";

const [, , backend] = process.argv;
const { version } = JSON.parse(readFileSync(new URL("../../packages/diffattn/package.json", import.meta.url), "utf8"));

/** Bytes of this process that lie in memory, after what can be freed was. */
function resident() {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

/**
 * What a loaded model takes beyond the library itself: this process's memory with it and without.
 */
async function scratch({ case: test, threads = 1, isa }) {
  await ensureModel(test, saveSafetensors);
  await api.init({ backend, isa, threads });
  // Threads, buffers and code that any call needs are there before.
  const q = { data: new Float32Array(1024), shape: [1, 2, 8, 64] };
  await api.diffAttention(q, q, { data: new Float32Array(1024), shape: [1, 1, 8, 128] }, { lambda: 0 });
  const before = resident();
  const model = await DiffLlama.load(folderOf(test), { tokenizer: null });
  for await (const { id } of model.generate(test.prompt, { maxNewTokens: test.tokens, stopIds: [] }))
    if (id !== test.greedy[0]) throw new Error(`a wrong answer: token ${id}, ${test.greedy[0]} is expected`);
  const bytes = resident() - before;
  model.dispose();
  return { bytes };
}

serve({
  ...modelHandlers({
    about: () => ({ name: `diffattn (models, ${backend})`, version, runtime: `Node ${process.versions.node}` }),
    async start({ case: test, threads, isa }) {
      await ensureModel(test, saveSafetensors);
      api.dispose();
      const running = await api.init({ backend, isa, threads });
      if (isa && running.isa !== isa) throw new Error(`${isa} was asked for, ${running.isa} runs`);
      if (test.op === "codec_decode") return AudioCodec.load(folderOf(test));
      return DiffLlama.load(folderOf(test), { tokenizer: null });
    },
  }),
  scratch,
});
