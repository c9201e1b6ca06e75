// How the commands reach the library: by its public entries, loaded when a command needs them.

import type * as operators from "../types.js";
import type * as models from "../models/types.js";
import type * as viz from "../viz/index.js";
import { bytes } from "./format.js";
import { tokenizerOf } from "./tokenizer.js";
import type { Terminal } from "./terminal.js";

// The package imports itself by name, so that what runs here is what a program gets. A variable, or the types of built files would be
// wanted before they are built.
const entry = (name: string): Promise<unknown> => import(`diffattn${name}`);

export const loadOperators = (): Promise<typeof operators> => entry("") as Promise<typeof operators>;
export const loadModels = (): Promise<typeof models> => entry("/models") as Promise<typeof models>;
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

/** Loads a language model, with a bar. */
export async function loadLlama(terminal: Terminal, source: string): Promise<models.DiffLlama> {
  const { DiffLlama } = await loadModels();
  const bar = terminal.bar("loading", bytes);
  try {
    const tokenizer = await tokenizerOf(source, terminal.signal);
    return await DiffLlama.load(source, { signal: terminal.signal, onProgress: bar.update, ...(tokenizer && { tokenizer }) });
  } finally {
    bar.stop();
  }
}

/** Loads a vision transformer, with a bar. */
export async function loadViT(terminal: Terminal, source: string): Promise<models.DiffViT> {
  const { DiffViT } = await loadModels();
  const bar = terminal.bar("loading", bytes);
  try {
    return await DiffViT.load(source, { signal: terminal.signal, onProgress: bar.update });
  } finally {
    bar.stop();
  }
}
