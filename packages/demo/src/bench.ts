// The bench tab: starts bench-worker.ts and writes down what it says. Measures nothing itself.

import { type BenchMessage, SINGLE } from "./bench-messages.js";
import { byId, element } from "./dom.js";

const start = byId("bench-start", HTMLButtonElement);
const stop = byId("bench-stop", HTMLButtonElement);
const state = byId("bench-state", HTMLElement);
const about = byId("bench-about", HTMLElement);
const table = byId("bench-table", HTMLTableElement);

/**
 * Milliseconds of silence after which a worker on all threads is taken to hang: in Firefox a worker
 * that starts workers sometimes does (packages/diffattn/src/worker.ts). Longer than any step on a
 * phone; one that was only slow is measured on one thread, too.
 */
const PATIENCE = 20_000;

const time = (seconds: number): string => `${(seconds * 1000).toPrecision(3)} ms`;

function timeCell(seconds: number, slowest: number, kind: string, small: string): HTMLTableCellElement {
  const cell = element("td", time(seconds));
  const bar = element("span", "", { class: `bar ${kind}`, "aria-hidden": "true" });
  bar.style.width = `${(seconds / slowest) * 9}rem`;
  cell.append(bar, element("span", small, { class: "small" }));
  return cell;
}

export function startBench(complain: (text: string) => void): void {
  let worker: Worker | undefined;
  let watch: ReturnType<typeof setTimeout> | undefined;
  const rows = new Map<string, HTMLTableRowElement>();

  const stopWorker = (): void => {
    clearTimeout(watch);
    worker?.terminate();
    worker = undefined;
  };

  const end = (what: string): void => {
    stopWorker();
    state.textContent = what;
    if (document.activeElement === stop) start.focus();
    start.disabled = false;
    stop.disabled = true;
  };

  const hear = (message: BenchMessage): void => {
    if ("error" in message) {
      end("");
      complain(`The bench ended: ${message.error}`);
    } else if ("state" in message) state.textContent = message.state;
    else if ("about" in message) about.textContent = message.about;
    else if ("done" in message) end("Done.");
    else {
      const { id, name, ours, peer, call, form, values, difference, agrees } = message;
      const row = rows.get(id) ?? element("tr");
      if (!rows.has(id)) table.tBodies[0]?.append(row);
      rows.set(id, row);
      const slowest = Math.max(ours, peer);
      row.replaceChildren(
        element("th", name, { scope: "row" }),
        timeCell(ours, slowest, "", call),
        timeCell(peer, slowest, "peer", form),
        element("td", `${(peer / ours).toPrecision(2)} × as long`),
        element("td", `${difference.toExponential(1)} in ${values} values: ${agrees ? "they agree" : "THEY DIFFER"}`),
      );
      row.dataset["agrees"] = String(agrees);
    }
  };

  /**
   * Starts a worker of that name. One on all threads that falls silent gives way to one on one
   * thread.
   */
  const run = (name: string): void => {
    const heard = (message: BenchMessage): void => {
      clearTimeout(watch);
      if (name !== SINGLE) watch = setTimeout(again, PATIENCE);
      hear(message);
    };
    const again = (): void => {
      stopWorker();
      run(SINGLE);
    };
    worker = new Worker(new URL("bench-worker.js", document.baseURI), { type: "module", name });
    worker.onmessage = ({ data }: MessageEvent<BenchMessage>) => heard(data);
    worker.onerror = (event) => heard({ error: event.message || "its worker did not start" });
    if (name !== SINGLE) watch = setTimeout(again, PATIENCE);
  };

  start.addEventListener("click", () => {
    complain("");
    rows.clear();
    table.tBodies[0]?.replaceChildren();
    table.hidden = false;
    about.textContent = "";
    state.textContent = "Loading onnxruntime-web…";
    start.disabled = true;
    stop.disabled = false;
    run("");
  });
  stop.addEventListener("click", () => end("Stopped."));
}
