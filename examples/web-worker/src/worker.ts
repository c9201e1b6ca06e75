// The worker: loads the model, writes texts and sends them piece by piece. What a program does beside it with each token (drawing maps,
// looking things up) belongs here, too. Knows no page.
import { DiffLlama } from "diffattn/models";
import type { FromWorker, ToWorker } from "./messages.ts";

const say = (message: FromWorker) => self.postMessage(message);
const reason = (error: unknown) => (error instanceof Error ? error.message : String(error));

let model: Promise<DiffLlama> | undefined;
const running = new Map<number, AbortController>();

async function load(source: string): Promise<void> {
  model = DiffLlama.load(source, { onProgress: ({ done, total }) => say({ type: "progress", done, total }) });
  try {
    await model;
    say({ type: "ready" });
  } catch (error) {
    say({ type: "failed", message: reason(error) });
  }
}

async function write({ id, prompt, maxNewTokens }: Extract<ToWorker, { type: "write" }>): Promise<void> {
  const stop = new AbortController();
  running.set(id, stop);
  let error: string | null = null;
  try {
    if (!model) throw new Error("write: expected a load before it");
    for await (const { text } of (await model).generate(prompt, { maxNewTokens, signal: stop.signal })) say({ type: "text", id, text });
  } catch (thrown) {
    if (!stop.signal.aborted) error = reason(thrown);
  }
  running.delete(id);
  say({ type: "end", id, error });
}

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "load") void load(data.source);
  else if (data.type === "write") void write(data);
  else running.get(data.id)?.abort();
};
