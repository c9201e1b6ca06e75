// The page: loads the model, writes, and hands finished texts to attention.ts. `?prompt=…` in the
// address writes at once.

import { info, type Info } from "diffattn";
import { DiffLlama } from "diffattn/models";
import { Attention } from "./attention.js";
import { startBench } from "./bench.js";
import { byId, numberOf, reasonOf } from "./dom.js";
import { startTabs } from "./tabs.js";
import { TokenList } from "./tokens.js";

performance.mark("script");
const form = byId("form", HTMLFormElement);
const prompt = byId("prompt", HTMLTextAreaElement);
const write = byId("write", HTMLButtonElement);
const stop = byId("stop", HTMLButtonElement);
const speed = byId("speed", HTMLElement);
const text = byId("text", HTMLElement);
const build = byId("build", HTMLOutputElement);
const errorPlace = byId("error", HTMLElement);
const said = byId("said", HTMLElement);
const fields = {
  maxNewTokens: byId("tokens", HTMLInputElement),
  temperature: byId("temperature", HTMLInputElement),
  topK: byId("top-k", HTMLInputElement),
  topP: byId("top-p", HTMLInputElement),
  repetitionPenalty: byId("penalty", HTMLInputElement),
  seed: byId("seed", HTMLInputElement),
};

/**
 * The first prompt: an answer planted among other sentences, its question at the end. The typical
 * one of examples/planted-answers.mjs.
 */
const PLANTED = {
  text: "# Notes\n\nCalling this method on a closed channel has no effect. The closure is called for each entry of the map. This is useful for types which do not implement the trait. The compiler checks that all borrows are valid. The default timeout of the socket is 30 seconds. Memory is freed when the last reference goes away. See the module documentation for more information.\n\nThe default timeout of the socket is",
  answer: "The default timeout of the socket is 30 seconds.",
  question: "The default timeout of the socket is",
};

function complain(what: string): void {
  errorPlace.textContent = what;
  errorPlace.hidden = what === "";
}

/**
 * For screen readers, when something is finished; what changes with every token would drown all
 * else.
 */
const say = (what: string): void => void (said.textContent = what);

const list = new TokenList(text, (index, byKeyboard) => attention.choose(index, byKeyboard));
const attention = new Attention(list, say, complain);

function showBuild({ backend, isa, threads, notes }: Info): void {
  build.textContent = `${backend === "wasm" ? "WebAssembly" : backend}, ${isa}, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
  build.title = notes.join("; ");
}

/** The text that is being written. */
let writing: AbortController | undefined;

/** The model's files by name: nothing is asked for that is not there. */
const files = Object.fromEntries(
  ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"].map((name) => [
    name,
    new URL(`model/${name}`, document.baseURI),
  ]),
);
const loading = DiffLlama.load(files, {
  onProgress: ({ done, total }) => {
    if (total > 0 && done < total && !writing) speed.textContent = `The model is loading: ${Math.round((done / total) * 100)} %`;
  },
});
loading.then(
  () => {
    performance.mark("model");
    showBuild(info());
    if (!writing) speed.textContent = "Ready.";
  },
  (error: unknown) => {
    speed.textContent = "";
    complain(`The model did not load: ${reasonOf(error)}`);
  },
);

/** The first time that a token is seen: what a visitor waits for. */
function markFirst(): void {
  if (performance.getEntriesByName("first-token").length === 0) performance.mark("first-token");
}

async function run(signal: AbortSignal): Promise<void> {
  const options = Object.fromEntries(Object.entries(fields).map(([name, input]) => [name, numberOf(input)]));
  const model = await loading;
  const prompted = prompt.value;
  const ids = model.encode(prompted);
  if (ids.length === 0) throw new Error("prompt: expected some text, got none");
  const room = Number(model.config["max_position_embeddings"]) - ids.length;
  if (room < 1) throw new Error(`prompt: expected fewer tokens than ${Number(model.config["max_position_embeddings"])}, got ${ids.length}`);
  const ofPrompt = ids.length;
  const show = (id: number, isPrompt = false): void => list.append(model.decode([id]), isPrompt);
  for (const id of ids) show(id, true);

  const begun = performance.now();
  let first = 0;
  let last = begun;
  let finish: string | null = null;
  const rate = (): number => ((ids.length - ofPrompt - 1) * 1000) / Math.max(1e-3, last - begun - first);
  const status = (): string => {
    const count = ids.length - ofPrompt;
    if (count === 0) return "";
    return `${count} ${count === 1 ? "token" : "tokens"}${count > 1 ? `, ${rate().toFixed(0)} per second` : ""}, the first after ${first.toFixed(0)} ms`;
  };
  try {
    const maxNewTokens = Math.min(options["maxNewTokens"] ?? 120, room);
    // 0 stands for all.
    for await (const token of model.generate(ids.slice(), { ...options, topK: options["topK"] || undefined, maxNewTokens, signal })) {
      last = performance.now();
      if (ids.length === ofPrompt) first = last - begun;
      ids.push(token.id);
      show(token.id);
      markFirst();
      speed.textContent = status();
      finish = token.finish;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    finish = "stopped";
  }
  const ending = { stop: "; the text has ended", stopped: "; stopped" }[finish ?? ""] ?? "";
  speed.textContent = `${status()}${ending}`;
  say(`${speed.textContent}. ${model.decode(ids.slice(ofPrompt))}`);
  const kept = new Map<number, ReturnType<typeof model.maps>>();
  const maps = (layer: number): ReturnType<typeof model.maps> => {
    const known = kept.get(layer) ?? model.maps(ids, layer);
    kept.set(layer, known);
    return known;
  };
  await attention.show({
    tokens: list.texts,
    ofPrompt,
    planted: prompted.includes(PLANTED.answer) ? PLANTED : undefined,
    layers: Number(model.config["num_hidden_layers"]),
    maps,
    // Not kept: all layers at once would be large.
    mapsUpTo: (count, layer) => model.maps(ids.slice(0, count), layer),
  });
}

async function begin(): Promise<void> {
  // A second text ends the first.
  writing?.abort();
  const mine = (writing = new AbortController());
  complain("");
  list.clear();
  attention.clear();
  stop.disabled = false;
  text.setAttribute("aria-busy", "true");
  say("Writing.");
  try {
    await run(mine.signal);
  } catch (error) {
    if (writing === mine) complain(reasonOf(error));
  } finally {
    if (writing === mine) {
      writing = undefined;
      text.removeAttribute("aria-busy");
      // Focus must not vanish with the button's use.
      if (document.activeElement === stop) write.focus();
      stop.disabled = true;
    }
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void begin();
});
stop.addEventListener("click", () => writing?.abort());
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") writing?.abort();
});

startTabs();
startBench(complain);
const asked = new URLSearchParams(location.search).get("prompt");
prompt.value = asked ?? PLANTED.text;
if (asked) form.requestSubmit();
