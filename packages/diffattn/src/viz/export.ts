// Pictures as bitmaps, maps as JSON.

import type { AttentionMaps, Tensor } from "../types.js";
import { attentionNoise, type AttentionNoise } from "./noise.js";
import { checkNoise, checkTokens, optionsOf, PART, positive, refuse, wrong } from "./options.js";
import { part, type PartOptions, termsOf } from "./part.js";

/** Options of {@link svgToPng}. */
export interface PngOptions {
  /** Bitmap pixels per pixel of the picture; 2 by default. */
  scale?: number | undefined;
}

/**
 * A picture at an address, once it can be drawn. (By its events: what is to be drawn as lines is
 * decoded when it is drawn, and Safari's `decode` refuses it.)
 */
async function loaded(address: string): Promise<HTMLImageElement> {
  const image = new Image();
  const isRead = await new Promise<boolean>((resolve) => {
    image.onload = () => resolve(true);
    image.onerror = () => resolve(false);
    image.src = address;
  });
  return isRead ? image : refuse("OPTION", "svg", "a picture that can be read", "another text");
}

/** Largest side and area of a canvas that every browser gives (Safari's area is the smallest). */
const LARGEST_SIDE = 16_384;
const LARGEST_AREA = 1 << 24;

/**
 * A picture of this module as a PNG file. A picture larger than a canvas may be comes out at a
 * smaller scale.
 *
 * Node: no (there is no canvas: it rejects) / browser: on pages. A Content-Security-Policy must
 * allow `img-src blob:`.
 * @param svg A picture with its styles and a `theme` of its own: "light" or "dark".
 * @throws {DiffAttnError} (as a rejection) UNAVAILABLE where there is no document or canvas; OPTION
 *   for what cannot be read as a picture.
 */
export async function svgToPng(svg: string, options: PngOptions = {}): Promise<Blob> {
  const scale = positive("scale", optionsOf(options, ["scale"]).scale ?? 2);
  if (typeof (svg as unknown) !== "string") wrong("svg", "a picture of this module, as text", svg);
  if (typeof document === "undefined") refuse("UNAVAILABLE", "svgToPng", "a page with a document", "none");
  const address = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  try {
    const image = await loaded(address);
    const { naturalWidth: width, naturalHeight: height } = image;
    const factor = Math.min(scale, LARGEST_SIDE / Math.max(width, height), Math.sqrt(LARGEST_AREA / (width * height)));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.floor(width * factor));
    canvas.height = Math.max(1, Math.floor(height * factor));
    const context = canvas.getContext("2d");
    if (!context) return refuse("UNAVAILABLE", "svgToPng", "a canvas", "none");
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const png = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
    return png ?? refuse("UNAVAILABLE", "svgToPng", "a PNG file", "none");
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Options of {@link mapsToJson}. */
export interface JsonOptions extends PartOptions {
  /** The text of every key token, one per column of the whole map. */
  tokens?: readonly string[] | undefined;
  /** What else the document says: the layer, the text, the model. */
  about?: Readonly<Record<string, unknown>> | undefined;
  /**
   * What the document says of noise; by default {@link attentionNoise} of these rows, with its
   * defaults.
   */
  noise?: AttentionNoise | undefined;
}

/** What {@link mapsToJson} gives; `JSON.stringify` takes it as it is. */
export interface MapsDocument {
  readonly about: Readonly<Record<string, unknown>>;
  readonly batch: number;
  readonly head: number;
  /** Half-open ranges. */
  readonly rows: readonly [number, number];
  readonly columns: readonly [number, number];
  /** Of the columns; null where they were not given. */
  readonly tokens: readonly string[] | null;
  /** Each term's map, a list per query; the first is the signal. NaN and infinities are null. */
  readonly maps: readonly (readonly (readonly (number | null)[])[])[];
  readonly diff: readonly (readonly (number | null)[])[];
  /** As given, or {@link attentionNoise} of these rows, with its defaults. */
  readonly noise: AttentionNoise;
}

/** As few figures as give the float32 value again. */
function shortest(value: number): number | null {
  if (!Number.isFinite(value)) return null;
  for (let figures = 6; figures < 9; figures += 1) {
    const short = Number(value.toPrecision(figures));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

/**
 * One head's maps, their tokens and their noise as a plain object. Numbers have as many figures as
 * give the same float32 again.
 *
 * Node: yes / browser: yes, no DOM needed.
 * @throws {DiffAttnError} OPTION for an option that is none, or does not fit the maps; SHAPE and
 *   DTYPE for what are no maps. (It is a
 * `RangeError` too.)
 */
export function mapsToJson(maps: AttentionMaps, options: JsonOptions = {}): MapsDocument {
  const given = optionsOf(options, [...PART, "tokens", "about", "noise"]);
  const { tokens, batch = 0, head = 0, about = {}, noise } = given;
  if (noise !== undefined) checkNoise(noise);
  if (typeof (about as unknown) !== "object" || (about as unknown) === null) wrong("about", "an object", about);
  const terms = termsOf(maps);
  checkTokens("tokens", tokens, maps.diff.shape[3] ?? 0, "key");
  const { top, bottom, left, right } = part(maps.diff, given);
  const lists = (map: Tensor): (number | null)[][] => {
    const { value } = part(map, given);
    return Array.from({ length: bottom - top }, (_, i) =>
      Array.from({ length: right - left }, (_, k) => shortest(value(top + i, left + k))),
    );
  };
  return {
    about,
    batch,
    head,
    rows: [top, bottom],
    columns: [left, right],
    tokens: tokens?.slice(left, right) ?? null,
    maps: terms.map(lists),
    diff: lists(maps.diff),
    noise: noise ?? attentionNoise(maps, { batch, head, rows: [top, bottom] }),
  };
}
