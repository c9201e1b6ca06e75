// diffattn classify: what pictures show.

import { readFile } from "node:fs/promises";
import type { Classification } from "../models/types.js";
import { fileFailure } from "./failure.js";
import { columns } from "./format.js";
import { decodeImage } from "./images.js";
import { type BackendOptions, loadViT, start } from "./library.js";
import type { Terminal } from "./terminal.js";

export interface ClassifyOptions extends BackendOptions {
  top: number;
  json?: boolean;
}

/** A file's bytes; "-" is standard input. */
export async function bytesOf(terminal: Terminal, path: string): Promise<Buffer> {
  if (path === "-") return terminal.input("the picture");
  try {
    return await readFile(path);
  } catch (error) {
    throw fileFailure(path, error);
  }
}

const line = ({ index, label, probability }: Classification): string[] => [probability.toFixed(4), String(index), label ?? ""];

export async function classify(terminal: Terminal, source: string, paths: readonly string[], options: ClassifyOptions): Promise<void> {
  await start(options);
  using model = await loadViT(terminal, source);
  for (const path of paths) {
    const image = decodeImage(path, await bytesOf(terminal, path));
    const classes = await model.classify(image, { top: options.top, signal: terminal.signal });
    if (options.json) await terminal.json({ file: path, classes });
    else {
      if (paths.length > 1) await terminal.line(path);
      for (const text of columns(classes.map(line), [0, 1])) await terminal.line(paths.length > 1 ? `  ${text}` : text);
    }
  }
}
