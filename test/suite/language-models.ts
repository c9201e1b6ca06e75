// What the suites of language models share: the small checkpoints, and what such a model gives beside
// what its fixture expects.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { refused } from "./backends.js";
import { within } from "./compare.js";
import { float64, type readFixture, stored } from "./safetensors.js";

export const path = (name: string): string => fileURLToPath(new URL(`../../test/models/${name}`, import.meta.url));
export const file = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(path(name)));

/** A checkpoint with other entries in its configuration. */
export const changed = (entries: object, of: string): Record<string, Uint8Array<ArrayBuffer>> => {
  const config = JSON.parse(new TextDecoder().decode(file(`${of}/config.json`))) as object;
  return {
    "config.json": new TextEncoder().encode(JSON.stringify({ ...config, ...entries })),
    "model.safetensors": file(`${of}/model.safetensors`),
  };
};

/** The code and the sentence of what must be refused. */
export const sentence = async (body: () => unknown): Promise<string> => {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
};

/** The ids that a model writes. */
export async function writtenIds(
  model: modelTypes.LanguageModel,
  prompt: readonly number[],
  options: modelTypes.GenerateOptions,
): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of model.generate([...prompt], options)) ids.push(id);
  return ids;
}

/** Logits and all hidden states within 5e-6 of their spread. */
export function nearFixture(y: modelTypes.ModelOutput, expected: ReturnType<typeof readFixture>, times = 1): void {
  const near = (actual: Float32Array, want: Float64Array): void => {
    const spread = Math.max(...want) - Math.min(...want);
    within(actual, want, () => 5e-6 * times * spread);
  };
  near(y.data, float64(stored(expected, "expected.logits")));
  const states = y.hiddenStates;
  expect(states).toBeDefined();
  if (!states) return;
  const count = states.shape[0] ?? 0;
  const size = states.data.length / count;
  for (let at = 0; at < count; at++)
    near(states.data.subarray(at * size, (at + 1) * size), float64(stored(expected, `expected.hidden_${at}`)));
}
