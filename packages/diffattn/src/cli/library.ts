// How the commands reach the library: by its public entries, loaded when a command needs them.

import type * as operators from "../types.js";
import type * as models from "../models/types.js";
import type * as training from "../training/types.js";
import type * as viz from "../viz/index.js";
import { renderTemplate } from "../models/chat-template.js";
import { explained, type Kind } from "./about.js";
import { bytes } from "./format.js";
import { tokenizerOf } from "./tokenizer.js";
import type { Bar, Terminal } from "./terminal.js";

// The package imports itself by name, so that what runs here is what a program gets. A variable, or
// the types of built files would be wanted before they are built.
const entry = (name: string): Promise<unknown> => import(`diffattn${name}`);

export const loadOperators = (): Promise<typeof operators> => entry("") as Promise<typeof operators>;
export const loadModels = (): Promise<typeof models> => entry("/models") as Promise<typeof models>;
export const loadTraining = (): Promise<typeof training> => entry("/training") as Promise<typeof training>;
export const loadViz = (): Promise<typeof viz> => entry("/viz") as Promise<typeof viz>;

/** What every command that computes may be told. */
export interface BackendOptions {
  backend?: "native" | "wasm";
  isa?: operators.Isa;
  threads?: number;
}

/** Starts the backend that was asked for. */
export async function start({ backend, isa, threads }: BackendOptions): Promise<operators.Info> {
  return (await loadOperators()).init({ backend, isa, threads });
}

/**
 * Does something with a checkpoint, with a bar. What fails says what the checkpoint is, where it is
 * none that is `wanted`.
 */
export async function opening<T>(
  terminal: Terminal,
  source: string,
  wanted: Kind | undefined,
  body: (reading: { signal: AbortSignal; onProgress: Bar["update"] }) => Promise<T>,
): Promise<T> {
  const bar = terminal.bar(wanted === undefined ? "reading" : "loading", bytes);
  try {
    return await body({ signal: terminal.signal, onProgress: bar.update });
  } catch (error) {
    bar.stop();
    throw await explained(source, error, wanted, async () => (await loadModels()).inspectCheckpoint(source, { signal: terminal.signal }));
  } finally {
    bar.stop();
  }
}

/** Looks at a checkpoint; `tensors`: at every one. */
export const inspected = (terminal: Terminal, source: string, tensors = false): Promise<models.Inspection> =>
  opening(terminal, source, undefined, async ({ signal }) => (await loadModels()).inspectCheckpoint(source, { signal, tensors }));

/** Loads a model. What is odd about its checkpoint is told once the bar is gone. */
async function loaded<T>(
  terminal: Terminal,
  source: string,
  wanted: Kind,
  body: (reading: { signal: AbortSignal; onProgress: Bar["update"]; onNotice: (text: string) => void }) => Promise<T>,
): Promise<T> {
  const notices: string[] = [];
  const onNotice = (text: string): void => void notices.push(text);
  const model = await opening(terminal, source, wanted, (reading) => body({ ...reading, onNotice }));
  for (const notice of notices) terminal.complain(`note: ${notice}`);
  return model;
}

/** Loads a language model. */
export const loadLanguageModel = (terminal: Terminal, source: string): Promise<models.LanguageModel> =>
  loaded(terminal, source, "text", async (reading) =>
    (await loadModels()).LanguageModel.load(source, { ...reading, tokenizer: tokenizerOf, chatTemplate: renderTemplate }),
  );

/** Loads a vision transformer. */
export const loadViT = (terminal: Terminal, source: string): Promise<models.DiffViT> =>
  loaded(terminal, source, "picture", async (reading) => (await loadModels()).DiffViT.load(source, reading));
