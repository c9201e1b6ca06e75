// diffattn maps: what the heads of a layer attend to, as a page, a picture or numbers.

import { basename, extname } from "node:path";
import type { AttentionMaps, Tensor } from "../types.js";
import { bytesOf } from "./classify.js";
import { drawCells, extent } from "./cells.js";
import { Failure, UsageError } from "./failure.js";
import { counted } from "./format.js";
import { promptOf } from "./generate.js";
import { decodeImage } from "./images.js";
import { type BackendOptions, inspected, loadLanguageModel, loadViT, loadViz, start } from "./library.js";
import { checkOutput, checkpointFiles, writeOutput } from "./output.js";
import { pageOf } from "./page.js";
import { plain } from "./plain.js";
import type { Terminal } from "./terminal.js";

export const FORMATS = ["html", "svg", "png", "json"] as const;
export type Format = (typeof FORMATS)[number];

export interface MapsOptions extends BackendOptions {
  layer: number;
  head?: number;
  format?: Format;
  output?: string;
  cell: number;
  force?: boolean;
}

/** Pixels that a picture may have, so that a long text is a sentence and not gigabytes. */
const MOST_PIXELS = 1e8;

const HEADINGS = ["first map", "second map", "difference: first − λ · second"];

/** The format asked for, else the one that the file's name says, else a page. */
export function formatOf({ format, output }: Pick<MapsOptions, "format" | "output">): Format {
  if (format) return format;
  if (output === undefined) return "html";
  const extension = extname(output).slice(1).toLowerCase();
  const known = FORMATS.find((name) => name === extension) ?? (extension === "htm" ? "html" : undefined);
  if (!known) throw new UsageError(`${output}: expected a name that ends with .html, .svg, .png or .json, or --format`);
  return known;
}

/**
 * Names of a vision transformer's tokens: what comes before the square of patches, then the
 * patches, by row and column from 1.
 */
export function patchNames(tokens: number): string[] {
  const side = Math.floor(Math.sqrt(tokens));
  return Array.from({ length: tokens }, (_, i) => {
    const patch = i - (tokens - side * side);
    return patch < 0 ? `register ${i + 1}` : `${Math.floor(patch / side) + 1},${(patch % side) + 1}`;
  });
}

/**
 * A map's values as nested lists: heads, queries, keys; each number as short as its float32 allows.
 */
function nested({ data, shape }: Tensor, heads: readonly number[]): number[][][] {
  const [, , rows = 0, columns = 0] = shape;
  const value = (i: number): number => Number((data[i] ?? 0).toPrecision(9));
  return heads.map((head) =>
    Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, column) => value((head * rows + row) * columns + column))),
  );
}

interface Drawn {
  maps: AttentionMaps;
  tokens: string[];
  ids?: number[];
  subject: string;
}

const oneHead = (count: number): UsageError => new UsageError(`an SVG file shows one head: choose --head 0 to ${count - 1}`);

/** What the model attends to in its input: a text, or a picture file. */
async function mapsOf(
  terminal: Terminal,
  source: string,
  words: readonly string[],
  layer: number,
  architecture: string | null,
): Promise<Drawn> {
  if (architecture === "diff_vit") {
    const [path = "-", ...more] = words;
    if (more.length > 0) throw new UsageError("maps: expected one picture");
    using model = await loadViT(terminal, source);
    const maps = await model.maps(decodeImage(path, await bytesOf(terminal, path)), layer, { signal: terminal.signal });
    return { maps, tokens: patchNames(maps.diff.shape[2] ?? 0), subject: path };
  }
  const text = await promptOf(terminal, words);
  using model = await loadLanguageModel(terminal, source);
  const ids = model.encode(text);
  if (ids.length === 0) throw new Failure("the text: expected one token or more, got none");
  const maps = await model.maps(ids, layer, { signal: terminal.signal });
  return { maps, tokens: ids.map((id) => model.decode([id])), ids, subject: text };
}

export async function maps(terminal: Terminal, source: string, words: readonly string[], options: MapsOptions): Promise<void> {
  const { layer, head, output, cell, force } = options;
  const format = formatOf(options);
  if (format === "png" && output === undefined && terminal.isInteractive)
    throw new UsageError("a PNG file is nothing for a terminal: give --output, or send it to a file");
  const { architecture, layers: differential, plainLayers, convertedLayers } = await inspected(terminal, source);
  const layers = [...differential, ...plainLayers, ...convertedLayers];
  if (layer >= layers.length) throw new Failure(`--layer: expected a layer below ${layers.length}, got ${layer}`);
  const said = layers[layer]?.["numHeads"];
  if (format === "svg" && head === undefined && typeof said === "number" && said > 1) throw oneHead(said);
  // Before the model is read. A picture's path is among the words.
  if (output !== undefined) await checkOutput(output, { force, inputs: [...(await checkpointFiles(source)), ...words] });
  await start(options);
  const { maps, tokens, ids, subject } = await mapsOf(terminal, source, words, layer, architecture);
  const [, count = 0, length = 0] = maps.diff.shape;
  if (head !== undefined && head >= count) throw new Failure(`--head: expected a head below ${count}, got ${head}`);
  const heads = head === undefined ? Array.from({ length: count }, (_, i) => i) : [head];
  const all = [maps.map1, maps.map2, maps.diff].filter((map) => map !== undefined);
  const name = basename(source.replace(/[/\\]+$/, "")) || source;

  const { width, height } = extent(heads.length, all.length, length, length, cell);
  if (format !== "json" && width * height > MOST_PIXELS)
    throw new Failure(
      `the picture: expected at most ${MOST_PIXELS / 1e6} million pixels, got ${width} × ${height}; choose --head or a smaller --cell`,
    );

  const { drawMap, drawMaps } = await loadViz();
  const drawn = (head: number): { title: string; svg: string } => {
    const title = `Layer ${layer}, head ${head}`;
    // (A head of one map is that map.)
    if (all.length === 1) return { title, svg: drawMap(maps.diff, { head, tokens, title, cell }) };
    return { title, svg: drawMaps(maps, { head, tokens, title, headings: HEADINGS, cell }) };
  };
  const made: Record<Format, () => string | Buffer> = {
    html: () =>
      pageOf({
        title: `${name}: attention maps of layer ${layer}`,
        subject,
        remarks: [`${counted(tokens.length, "token")}, ${counted(heads.length, "head")}. Queries downwards, keys to the right.`],
        pictures: heads.map(drawn),
      }),
    svg: () => {
      const [only, ...more] = heads;
      if (only === undefined || more.length > 0) throw oneHead(count);
      return drawn(only).svg;
    },
    png: () => drawCells(all, heads, cell),
    json: () => {
      const values = { map1: maps.map1, map2: maps.map2, diff: maps.diff };
      const numbers = Object.entries(values).flatMap(([key, map]) => (map ? [[key, nested(map, heads)] as const] : []));
      return plain(`${JSON.stringify({ layer, heads, tokens, ...(ids && { ids }), ...Object.fromEntries(numbers) })}\n`);
    },
  };
  const result = made[format]();
  if (output === undefined) return terminal.content(result);
  await writeOutput(output, result, force);
  terminal.note(`written: ${output}`);
}
