// How spread what the heads of a plain Llama attend to is, over a text: its maps, stretch by
// stretch, of which Rust takes the entropy (request 78).

import { encode } from "../encode.js";
import { fail } from "../errors.js";
import { run } from "./backend.js";
import { idsOfText, type TextOrIds } from "./compare.js";
import { LanguageModel, mapsOfLayers } from "./language-model.js";
import { jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

/** Tokens of a stretch: a map has as many rows, and is quadratic in them. */
const STRETCH = 256;
/** Elements of maps that are held at once. */
const MAPS = 2 ** 25;

/** Mean entropy of the rows of each head's map, in nats, layer by layer. */
export async function entropyOf(source: types.CheckpointSource, given: TextOrIds, options: types.LoadOptions): Promise<number[][]> {
  if (given.text == null && given.ids == null)
    fail("OPTION", "text", 'a text, or ids, with heads "entropy", over which it is measured', "none");
  using model = await LanguageModel.load(source, options);
  if (model.family !== "llama") fail("FILE", "source", 'a plain Llama (model_type "llama")', model.family);
  const { data, shape } = idsOfText(model as unknown as types.LanguageModel, given);
  const [B, L] = shape;
  const [layers, heads] = [Number(model.config["num_hidden_layers"]), Number(model.config["num_attention_heads"])];
  const sums = Array.from({ length: layers }, () => new Array<number>(heads).fill(0));
  for (let at = 0; at < L; at += STRETCH) {
    const length = Math.min(STRETCH, L - at);
    const rows = Array.from({ length: B }, (_, b) => data.subarray(b * L + at, b * L + at + length));
    const ids = { data: Int32Array.from(rows.flatMap((row) => Array.from(row))), shape: [B, length] };
    // (Of a layer two maps are held: the one that there is, and what is left of it.)
    const most = Math.max(1, Math.floor(MAPS / (2 * B * heads * length * length)));
    for (let first = 0; first < layers; first += most) {
      const some = Array.from({ length: Math.min(most, layers - first) }, (_, i) => first + i);
      for (const [i, { diff }] of (await mapsOfLayers(model, ids, some, options.signal)).entries()) {
        const [output] = await run(encode(requests.mapEntropy, { map: diff }), { signal: options.signal });
        (jsonOf(output) as number[]).forEach((sum, head) => {
          const row = sums[first + i];
          if (row) row[head] = (row[head] ?? 0) + sum / (B * L);
        });
      }
    }
  }
  return sums;
}
