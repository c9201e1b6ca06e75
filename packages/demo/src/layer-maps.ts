// The attention maps of a finished text's layers, as its views ask for them: the layers that were
// looked at last are kept.

import type { AttentionMaps } from "diffattn";
import type { LanguageModel } from "diffattn/models";

/** Layers that are kept: of 512 tokens and nine heads the three maps of one take 28 MB. */
const KEPT = 4;

/** What gives a layer's maps, and those of the first tokens alone. */
export interface LayerMaps {
  readonly layers: number;
  readonly maps: (layer: number) => Promise<AttentionMaps>;
  /** Not kept: all layers at once would be large. */
  readonly mapsUpTo: (count: number, layer: number) => Promise<AttentionMaps>;
}

export function layerMaps(model: LanguageModel, ids: readonly number[]): LayerMaps {
  const kept = new Map<number, Promise<AttentionMaps>>();
  const maps = (layer: number): Promise<AttentionMaps> => {
    const known = kept.get(layer) ?? model.maps(ids, layer);
    // The one that was asked for last is the last to go.
    kept.delete(layer);
    kept.set(layer, known);
    const [oldest] = kept.keys();
    if (kept.size > KEPT && oldest !== undefined) kept.delete(oldest);
    // One that failed may come the next time.
    known.catch(() => kept.delete(layer));
    return known;
  };
  return {
    layers: Number(model.config["num_hidden_layers"]),
    maps,
    mapsUpTo: (count, layer) => model.maps(ids.slice(0, count), layer),
  };
}
