// The tokenizer of a checkpoint's folder, by @huggingface/tokenizers. A program installs that package itself; the command line brings it,
// so that `npx diffattn` needs nothing else.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import type { Tokenizer } from "../models/types.js";
import { Failure, sentence } from "./failure.js";

/** A file's text; undefined where there is none. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return undefined;
  }
}

/** undefined for what is no folder here, or has no tokenizer: the library says what that means. */
export async function tokenizerOf(folder: string): Promise<Tokenizer | undefined> {
  const path = join(folder, "tokenizer.json");
  const text = await textOf(path);
  if (text === undefined) return undefined;
  try {
    const config: unknown = JSON.parse((await textOf(join(folder, "tokenizer_config.json"))) ?? "{}");
    const tokenizer = new HuggingFace(JSON.parse(text) as object, config as object);
    return {
      encode: (text) => tokenizer.encode(text).ids,
      decode: (ids) => tokenizer.decode(Array.from(ids), { skip_special_tokens: true }),
    };
  } catch (error) {
    throw new Failure(`${path}: expected a tokenizer, got one that cannot be used: ${sentence(error)}`, { cause: error });
  }
}
