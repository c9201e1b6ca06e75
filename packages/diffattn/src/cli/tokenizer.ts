// The tokenizer of a checkpoint. A program installs @huggingface/tokenizers itself; it is part of
// the command line, so that `npx diffattn` needs nothing else.

import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readTokenizer } from "../models/tokenizer.js";
import type { Tokenizer, TokenizerFiles } from "../models/types.js";
import { fileFailure } from "./failure.js";

/** That of a folder, or of a tokenizer.json with what is beside it. */
export async function tokenizerAt(path: string): Promise<Tokenizer> {
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() === true;
  const file = isFolder ? join(path, "tokenizer.json") : path;
  const json = await readFile(file).catch((error: unknown) => {
    throw fileFailure(file, error);
  });
  const config = await readFile(join(isFolder ? path : dirname(path), "tokenizer_config.json")).catch(() => undefined);
  return readTokenizer(new Uint8Array(json), config && new Uint8Array(config));
}

/** undefined for what cannot be read: the library says what that means. */
export const tokenizerOf = ({ json, config }: TokenizerFiles): Promise<Tokenizer | undefined> =>
  readTokenizer(json, config).catch(() => undefined);
