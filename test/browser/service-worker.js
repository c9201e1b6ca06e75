// A Service Worker that no tool bundled: the package's own modules. Computes what a page sends, and
// says what ran.
import "/dist/in-thread.js";
import { diffAttention, diffAttentionSync, init } from "/dist/browser.js";
import { DiffLlama } from "/dist/models.js";

self.oninstall = () => self.skipWaiting();
self.onactivate = (event) => event.waitUntil(self.clients.claim());

async function answer({ inputs, options, model }) {
  const y = await diffAttention(...inputs, options);
  const info = await init();
  const { data } = diffAttentionSync(...inputs, options);
  const llama = await DiffLlama.load(model, { tokenizer: null });
  return { info, y: y.data, sync: data, logits: (await llama.forward([1, 2, 3])).data };
}

self.onmessage = (event) => {
  const [port] = event.ports;
  const told = answer(event.data).catch((error) => ({ error: String(error?.message ?? error) }));
  event.waitUntil(told.then((outcome) => port.postMessage(outcome)));
};
