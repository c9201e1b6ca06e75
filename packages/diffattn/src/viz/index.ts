// The entry "diffattn/viz": attention maps as SVG text labelled with tokens, one token's row, the
// noise before and after the subtraction, PNG and JSON of them. Needs no DOM (but for PNG), no
// backend and no other package; computes nothing but colours and shares.

export { mapsToJson, svgToPng, type JsonOptions, type MapsDocument, type PngOptions } from "./export.js";
export { drawMap, drawMaps, type DrawMapsOptions, type DrawOptions } from "./maps.js";
export { attentionNoise, drawNoise, type AttentionNoise, type DrawNoiseOptions, type NoiseOptions } from "./noise.js";
export type { PartOptions } from "./part.js";
export { attentionRow, drawRow, type AttentionRow, type DrawRowOptions, type RowOptions } from "./row.js";
export { summarizeNoise, type NoiseSummary, type Spread } from "./summary.js";
export { stylesheet, type LookOptions } from "./svg.js";
