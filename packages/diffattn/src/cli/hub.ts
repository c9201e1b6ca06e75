// Models of the Hugging Face Hub brought to this disk, for a command that wants a path.

import { bytes } from "./format.js";
import { isOfHub } from "./hub-source.js";
import { loadModels } from "./library.js";
import type { Terminal } from "./terminal.js";
import type { Download, DownloadOptions } from "../models/types.js";

/** Brings a model of the hub to this disk, with a bar. */
export async function fetched(
  terminal: Terminal,
  source: string,
  options: Omit<DownloadOptions, "signal" | "onProgress"> = {},
): Promise<Download> {
  const bar = terminal.bar("downloading", bytes);
  try {
    const { downloadCheckpoint } = await loadModels();
    return await downloadCheckpoint(source, { ...options, signal: terminal.signal, onProgress: bar.update });
  } finally {
    bar.stop();
  }
}

/** A source as it is; of a model of the hub where it lies, once it is here. */
export const localOf = async (terminal: Terminal, source: string): Promise<string> =>
  (await isOfHub(source)) ? (await fetched(terminal, source)).path : source;
