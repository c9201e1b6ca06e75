// Images as the requests take them: 8-bit pixels. What a page shows is drawn to get at its pixels.
// Resizes nothing.

import { arrayType, bytesOf, has, show, tagOf } from "../check.js";
import { fail } from "../errors.js";
import type { Raw } from "./atoms.js";
import type { ImageLike, ImageSource } from "./types.js";

type Drawable = Exclude<ImageSource, ImageLike>;

const isDrawable = (x: unknown): x is Drawable => /^(ImageBitmap|HTMLCanvasElement|OffscreenCanvas|HTMLImageElement)$/.test(tagOf(x));

type Context = OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D;

/** Something to draw on. */
function contextOf(width: number, height: number): Context | null {
  const options = { willReadFrequently: true };
  if (typeof OffscreenCanvas === "function") return new OffscreenCanvas(width, height).getContext("2d", options);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d", options) as Context | null;
}

/** What a page shows, as pixels. */
function drawn(name: string, image: Drawable): ImageData {
  const natural = image as Partial<HTMLImageElement>;
  const [width, height] = [natural.naturalWidth ?? image.width, natural.naturalHeight ?? image.height];
  if (!(width > 0 && height > 0)) return fail("OPTION", name, "an image that is loaded and has a size", `one of ${width} × ${height}`);
  const context = contextOf(width, height);
  if (!context) return fail("UNAVAILABLE", name, "a 2D canvas to draw it on", "none");
  try {
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  } catch (cause) {
    // For instance one of another origin.
    return fail("OPTION", name, "an image whose pixels may be read", cause instanceof Error ? cause.message : "a refusal", cause);
  }
}

/** Whether it is one image, not a list of them or pixels as a tensor. */
export const isImage = (x: unknown): x is ImageSource => isDrawable(x) || (has(x, "data") && has(x, "width") && has(x, "height"));

/** An image: its bytes and their shape. */
export function imageOf(name: string, image: unknown): Raw<Uint8Array> {
  if (!isImage(image)) fail("DTYPE", name, "an image { data, width, height }, or what a page shows", show(image));
  const { data, width, height } = isDrawable(image) ? drawn(name, image) : image;
  if (!/^Uint8/.test(arrayType(data) ?? "")) fail("DTYPE", name, "data in a Uint8Array or a Uint8ClampedArray", show(data));
  for (const [side, count] of Object.entries({ width, height })) {
    if (!Number.isInteger(count) || count < 1) fail("SHAPE", `${name}.${side}`, "an integer of 1 or more", show(count));
  }
  const bytes = bytesOf(name, data);
  const channels = bytes.byteLength / (width * height);
  if (channels !== 3 && channels !== 4) {
    fail("SHAPE", name, `${width} × ${height} × 3 bytes (RGB) or × 4 (RGBA)`, `${bytes.byteLength} bytes`);
  }
  return { data: bytes, shape: [height, width, channels] };
}
