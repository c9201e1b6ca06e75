// Attention maps as a PNG file: cells in the colours of diffattn/viz on white, a row of maps for
// each head, without words. Encoding is pngjs's.

import { PNG } from "pngjs";
import type { Tensor } from "../types.js";
import { STEPS, step } from "../viz/svg.js";

/** Pixels around and between maps. */
const GAP = 8;
const FRAME = 1;
const GREY = [139, 148, 158] as const;
const PLUS = [7, 87, 181] as const;
const MINUS = [194, 65, 12] as const;

type Colour = readonly [number, number, number];

/** A hue as `diffattn/viz` has it: as opaque as its step says, on white. */
function colourOf(value: number, max: number): Colour {
  const opacity = step(value, max) / STEPS;
  const [r, g, b] = value < 0 ? MINUS : PLUS;
  const mixed = (channel: number): number => Math.round(255 + (channel - 255) * opacity);
  return [mixed(r), mixed(g), mixed(b)];
}

/** Pixels of a picture of `heads` × `maps` maps of `rows` × `columns` cells. */
export function extent(heads: number, maps: number, rows: number, columns: number, cell: number): { width: number; height: number } {
  const along = (many: number, cells: number): number => GAP + many * (cells * cell + 2 * FRAME + GAP);
  return { width: along(maps, columns), height: along(heads, rows) };
}

/**
 * Draws heads of maps `[1, H, rows, columns]`; each head's maps share one scale, from 0 to their
 * largest magnitude.
 *
 * @param cell Pixels of a cell's side.
 */
export function drawCells(maps: readonly Tensor[], heads: readonly number[], cell: number): Buffer {
  const [, , rows = 0, columns = 0] = maps[0]?.shape ?? [];
  const { width, height } = extent(heads.length, maps.length, rows, columns, cell);
  const png = new PNG({ width, height, colorType: 2 });
  png.data.fill(255);

  const fill = (left: number, top: number, w: number, h: number, [r, g, b]: Colour): void => {
    for (let y = top; y < top + h; y += 1)
      for (let at = 4 * (y * width + left), end = at + 4 * w; at < end; at += 4) {
        png.data[at] = r;
        png.data[at + 1] = g;
        png.data[at + 2] = b;
      }
  };

  heads.forEach((head, down) => {
    const start = head * rows * columns;
    let max = 0;
    for (const { data } of maps) for (let i = start; i < start + rows * columns; i += 1) max = Math.max(max, Math.abs(data[i] ?? 0));
    maps.forEach(({ data }, across) => {
      const left = GAP + across * (columns * cell + 2 * FRAME + GAP);
      const top = GAP + down * (rows * cell + 2 * FRAME + GAP);
      fill(left, top, columns * cell + 2 * FRAME, rows * cell + 2 * FRAME, GREY);
      for (let row = 0; row < rows; row += 1)
        for (let column = 0; column < columns; column += 1)
          fill(
            left + FRAME + column * cell,
            top + FRAME + row * cell,
            cell,
            cell,
            colourOf(data[start + row * columns + column] ?? 0, max || 1),
          );
    });
  });
  return PNG.sync.write(png, { colorType: 2 });
}
