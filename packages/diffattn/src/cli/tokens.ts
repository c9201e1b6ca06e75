// diffattn tokens: texts as a file of tokens.

import { readFile } from "node:fs/promises";
import { Failure, fileFailure } from "./failure.js";
import { count, counted } from "./format.js";
import { loadTraining } from "./library.js";
import { checkOutput, writeOutput } from "./output.js";
import type { Terminal } from "./terminal.js";
import { tokenizerAt } from "./tokenizer.js";

export interface TokensOptions {
  tokenizer: string;
  separator?: string;
  endId?: number;
  force?: boolean;
}

/** Several texts, in UTF-8; what is no text is named. */
export async function textsOf(files: readonly string[]): Promise<string[]> {
  const texts: string[] = [];
  for (const file of files) {
    const bytes = await readFile(file).catch((error: unknown) => {
      throw fileFailure(file, error);
    });
    try {
      texts.push(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch {
      throw new Failure(`${file}: expected a text in UTF-8, got other bytes`);
    }
  }
  return texts;
}

export async function tokens(terminal: Terminal, given: readonly string[], options: TokensOptions): Promise<void> {
  const { tokenizer, separator, endId, force } = options;
  const files = given.slice(0, -1);
  const output = given.at(-1) ?? "";
  await checkOutput(output, { force, inputs: files });
  const { createDataset } = await loadTraining();
  using dataset = await createDataset(
    { text: await textsOf(files) },
    {
      tokenizer: await tokenizerAt(tokenizer),
      signal: terminal.signal,
      ...(separator !== undefined && { separator }),
      ...(endId !== undefined && { endId }),
    },
  );
  await writeOutput(output, await dataset.bytes(), force);
  terminal.note(
    `${counted(dataset.tokens, "token")} of ${count(dataset.documents)} document${dataset.documents === 1 ? "" : "s"} in ${output}`,
  );
}
