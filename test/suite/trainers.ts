// What the tests of trainers share: their steps, what of them is the same wherever they are made, and
// folders for what they write.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type * as types from "../../packages/diffattn/src/training/types.js";

/** Makes folders, which are removed behind the tests of a file. */
export function foldersOf(what: string): () => string {
  const made: string[] = [];
  afterAll(() => made.forEach((folder) => rmSync(folder, { recursive: true, force: true })));
  return () => {
    const folder = mkdtempSync(join(tmpdir(), `diffattn-${what}-`));
    made.push(folder);
    return folder;
  };
}

export async function steps(trainer: types.Trainer<unknown>, count = Infinity): Promise<types.TrainStep[]> {
  const made: types.TrainStep[] = [];
  while (made.length < count) {
    const step = await trainer.advance();
    if (!step) break;
    made.push(step);
  }
  return made;
}

/** What of steps is the same wherever they are made. */
export const told = (made: readonly types.TrainStep[]): object[] =>
  made.map(({ step, loss, lr, gradNorm, tokens, lambda }) => ({ step, loss, lr, gradNorm, tokens, lambda }));

export const bytesIn = (out: string, name: string): string => readFileSync(join(out, name)).toString("base64");
