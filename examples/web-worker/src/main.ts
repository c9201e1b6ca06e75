// The page: starts the worker, asks it for texts and shows what comes. Knows nothing of models.
import type { FromWorker, ToWorker } from "./messages.ts";

function element<E extends Element>(selector: string): E {
  const found = document.querySelector<E>(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}
const form = element<HTMLFormElement>("form");
const stop = element<HTMLButtonElement>("#stop");
const status = element<HTMLElement>("#status");
const output = element<HTMLOutputElement>("output");

// Written out like this, so that the bundler sees the worker's file and carries it.
const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const say = (message: ToWorker) => worker.postMessage(message);

let current = 0;

worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
  if (data.type === "progress") status.textContent = `Loading: ${Math.round((100 * data.done) / data.total)} %`;
  else if (data.type === "ready") status.textContent = "Ready";
  else if (data.type === "failed") status.textContent = data.message;
  // A text that was replaced by another may still be on its way.
  else if (data.id !== current) return;
  else if (data.type === "text") output.textContent += data.text;
  else {
    status.textContent = data.error ?? "Ready";
    stop.disabled = true;
  }
};
worker.onerror = ({ message }) => (status.textContent = message || "the worker did not start");

form.onsubmit = (event) => {
  event.preventDefault();
  const fields = new FormData(form);
  say({ type: "stop", id: current });
  current += 1;
  output.textContent = "";
  status.textContent = "Writing";
  stop.disabled = false;
  say({ type: "write", id: current, prompt: String(fields.get("prompt")), maxNewTokens: Number(fields.get("tokens")) });
};
stop.onclick = () => say({ type: "stop", id: current });

// A worker takes addresses from where its script lies, so the page says where the model is.
say({ type: "load", source: new URL("model/", document.baseURI).href });
