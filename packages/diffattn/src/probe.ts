// Which WASM features this engine has: each a minimal module and WebAssembly.validate. Runs no
// module.

import type { Build } from "./port.js";

// (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt))
const SIMD128 = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

// (module (func (result v128) i32.const 1 i8x16.splat i32.const 2 i8x16.splat
// i8x16.relaxed_swizzle))
const RELAXED_SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
];

// (module (memory 1 1 shared) (func i32.const 0 i32.atomic.load drop))
const THREADS = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65, 0, 254, 16, 2, 0, 26, 11,
];

const NEEDS: Record<Build, number[][]> = {
  simd128: [SIMD128],
  "relaxed-simd": [SIMD128, RELAXED_SIMD],
  "relaxed-simd+threads": [SIMD128, RELAXED_SIMD, THREADS],
};

const known: Partial<Record<Build, boolean>> = {};

/** Whether the engine compiles this build. */
export function supports(build: Build): boolean {
  return (known[build] ??= typeof WebAssembly === "object" && NEEDS[build].every((bytes) => WebAssembly.validate(new Uint8Array(bytes))));
}
