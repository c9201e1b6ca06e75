// A model that knows nothing yet, as the files of a checkpoint: its configuration, random weights
// (requests 163, 164), and the tokenizer of another. Trains nothing.

import { checkOptions, has, isAbsent, show, tagOf } from "../check.js";
import { encode } from "../encode.js";
import { fail } from "../errors.js";
import { accessOf } from "../models/access.js";
import { COMPANIONS } from "../models/companions.js";
import { folderOf, readOptionalText } from "../models/folder.js";
import { bufferOf, jsonOf } from "../models/outputs.js";
import { saveSafetensors } from "../models/safetensors.js";
import { run } from "./backend.js";
import * as requests from "./requests.generated.js";
import { wholeIn } from "./dataset.js";
import type * as types from "./types.js";

const OPTIONS = ["config", "seed", "tokenizer"];

/** Whether a model is none that lies anywhere. */
export const isFresh = (model: unknown): model is types.FreshModel =>
  tagOf(model) === "Object" && has(model, "config") && tagOf(model.config) === "Object";

/** Its files, by their names. */
export async function freshFiles(
  model: types.FreshModel,
  signal: AbortSignal | null | undefined,
): Promise<Record<string, Uint8Array<ArrayBuffer>>> {
  const given = checkOptions("model", model, OPTIONS);
  const seed = wholeIn("model.seed", given.seed, 0, 0);
  let config: string;
  try {
    config = JSON.stringify(given.config, null, 2);
  } catch (cause) {
    return fail("OPTION", "model.config", "what JSON can hold", show(given.config), cause);
  }
  const [told] = await run(encode(requests.freshTensors, { config }), { signal });
  const tensors: Record<string, { data: Float32Array; shape: readonly number[] }> = {};
  for (const { name, shape } of jsonOf(told) as { name: string; shape: number[] }[]) {
    const [values] = await run(encode(requests.freshTensor, { config, seed, name }), { signal });
    tensors[name] = { data: new Float32Array(bufferOf(values)), shape };
  }
  const weights = await saveSafetensors(tensors, { metadata: { format: "pt" } });
  const files: Record<string, Uint8Array<ArrayBuffer>> = {
    "config.json": new TextEncoder().encode(`${config}\n`),
    "model.safetensors": weights ?? new Uint8Array(),
  };
  if (isAbsent(given.tokenizer)) return files;
  const folder = await folderOf(given.tokenizer, accessOf({ signal: signal ?? undefined }), "model.tokenizer");
  for (const name of COMPANIONS) {
    const bytes = await readOptionalText(folder, name, { signal: signal ?? undefined });
    if (bytes) files[name] = bytes;
  }
  return files;
}
