import type { ImageTrainerOptions } from "../../packages/diffattn/src/training/types.js";

export const heldOut: number[];
export const config: Record<string, unknown>;
export const options: Omit<ImageTrainerOptions, "data">;
export function digitsOf(bytes: Uint8Array): {
  images: { data: Float32Array<ArrayBuffer>; shape: number[] };
  labels: Int32Array<ArrayBuffer>;
};
