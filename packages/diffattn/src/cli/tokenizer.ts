// The tokenizer of a checkpoint's folder. A program installs @huggingface/tokenizers itself; it is
// part of the command line, so that `npx diffattn` needs nothing else.

import { accessOf } from "../models/access.js";
import { folderOf, readOptionalText } from "../models/folder.js";
import { isPrivate } from "../models/node-addresses.js";
import { files } from "../models/node-files.js";
import { type ModelsPlatform, useModelsPlatform } from "../models/platform.js";
import { readTokenizer } from "../models/tokenizer.js";
import type { Tokenizer } from "../models/types.js";

// Files alone: models are run by the library, of which this is not a part.
const platform: Omit<ModelsPlatform, "wasm"> = { files, web: { isPrivate } };
useModelsPlatform(platform as ModelsPlatform);

/**
 * The bytes of both files; undefined where there is no tokenizer, or what is there cannot be read.
 */
async function read(source: string, signal: AbortSignal): Promise<[json: Uint8Array, config: Uint8Array | undefined] | undefined> {
  try {
    const folder = await folderOf(source, accessOf({}));
    const json = await readOptionalText(folder, "tokenizer.json", { signal });
    return json && [json, await readOptionalText(folder, "tokenizer_config.json", { signal })];
  } catch {
    return undefined;
  }
}

/** undefined for what has no tokenizer that can be read: the library says what that means. */
export async function tokenizerOf(source: string, signal: AbortSignal): Promise<Tokenizer | undefined> {
  const found = await read(source, signal);
  return found && readTokenizer(...found).catch(() => undefined);
}
