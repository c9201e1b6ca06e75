// The tokenizer of a checkpoint's folder. A program installs @huggingface/tokenizers itself; it is part of the command line, so that
// `npx diffattn` needs nothing else.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readTokenizer } from "../models/tokenizer.js";
import type { Tokenizer } from "../models/types.js";

/** A file's bytes, from a folder or an address; undefined where there is none. */
async function bytesOf(folder: string, name: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
  try {
    if (!/^https?:/i.test(folder)) return await readFile(join(folder, name));
    const response = await fetch(new URL(name, folder), { signal });
    return response.ok ? new Uint8Array(await response.arrayBuffer()) : undefined;
  } catch {
    return undefined;
  }
}

/** undefined for what is no folder, or has no tokenizer that can be read: the library says what that means. */
export async function tokenizerOf(folder: string, signal: AbortSignal): Promise<Tokenizer | undefined> {
  const json = await bytesOf(folder, "tokenizer.json", signal);
  const config = json && (await bytesOf(folder, "tokenizer_config.json", signal));
  return json && readTokenizer(json, config).catch(() => undefined);
}
