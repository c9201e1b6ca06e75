// A worker thread that is busy with the package until someone ends it: calls in both forms,
// objects, a model that writes.

import { parentPort, workerData } from "node:worker_threads";
import { layerOptions, operators } from "./calls.mjs";
import { filesOf, letters, LLAMA } from "./models.mjs";
import { api, models } from "./package.mjs";
import { Random } from "./random.mjs";

const { seed, index, backend } = workerData;
const random = new Random(seed, index);
await api.init({ backend });

const busy = {
  /** Long calls in the worker's own thread. */
  sync: () => {
    const [q, v] = [random.tensor(1, 4, 256, 32), random.tensor(1, 2, 256, 32)];
    for (;;) api.diffAttentionSync(q, q, v, { lambda: 0.4 });
  },
  /** Many short calls at once, of all operators. */
  async: async () => {
    for (;;) {
      const calls = Array.from({ length: 8 }, () => {
        const name = random.pick(Object.keys(operators));
        return api[name](...operators[name].make(random).args);
      });
      await Promise.all(calls);
    }
  },
  /** Objects that come and go, some forgotten. */
  objects: async () => {
    for (;;) {
      const layer = new api.MultiheadDiffAttn(layerOptions(random));
      const cache = new api.KvCache({ groups: 2, headDim: 4, valueDim: 8 });
      const tensor = api.createTensor([1, 64, 16]);
      await layer.forward(tensor, { cache });
      if (random.oneIn(2)) layer.dispose();
    }
  },
  /** A model in the middle of a text. */
  model: async () => {
    const model = await models.DiffLlama.load(filesOf(LLAMA), { tokenizer: letters });
    for (;;) for await (const token of model.generate([1, 2, 3], { maxNewTokens: 50, stopIds: [] })) void token;
  },
};
parentPort.postMessage("busy");
await busy[["sync", "async", "objects", "model"][index % 4]]();
