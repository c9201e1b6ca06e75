// Picture files to 8-bit RGBA. Decoding is pngjs's and jpeg-js's.

import { decode as decodeJpeg } from "jpeg-js";
import { PNG } from "pngjs";
import type { ImageLike } from "../models/types.js";
import { Failure, sentence } from "./failure.js";

/** Memory that a JPEG may take while it is decoded, in megabytes. */
const JPEG_MEMORY = 1024;
/** Pixels that a PNG may have: its first bytes claim them, and memory is taken for the claim. */
const PNG_PIXELS = 1e8;

const startsWith = (bytes: Uint8Array, ...first: number[]): boolean => first.every((byte, i) => bytes[i] === byte);

/** What a PNG or JPEG file shows. Its first bytes say which it is, not its name. */
export function decodeImage(name: string, bytes: Buffer): ImageLike {
  try {
    if (startsWith(bytes, 0x89, 0x50, 0x4e, 0x47)) {
      const [claimedWidth, claimedHeight] = bytes.length < 24 ? [0, 0] : [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
      if (claimedWidth * claimedHeight > PNG_PIXELS)
        throw new Error(`it says ${claimedWidth} × ${claimedHeight} pixels; at most ${PNG_PIXELS / 1e6} million are read`);
      const { data, width, height } = PNG.sync.read(bytes);
      return { data, width, height };
    }
    if (startsWith(bytes, 0xff, 0xd8, 0xff))
      return decodeJpeg(bytes, { useTArray: true, formatAsRGBA: true, maxMemoryUsageInMB: JPEG_MEMORY });
  } catch (error) {
    throw new Failure(`${name}: cannot be decoded: ${sentence(error)}`, { cause: error });
  }
  throw new Failure(`${name}: expected a PNG or JPEG file, got something else`);
}
