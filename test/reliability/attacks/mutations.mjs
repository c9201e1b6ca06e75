// Headers (of safetensors and GGUF), indices and configs changed at random, read under AddressSanitizer:
// rust/src/bin/mutations.rs. The short form needs no build of its own and reads them without.

import { build, buildSanitized, cases, sanitizer } from "../lib/cargo.mjs";

export default {
  title: "mutated headers, indices and configs",
  properties: {
    "crashes and panics": { limit: 0 },
    "errors not ours": { limit: 0 },
    "memory out of proportion, or over 2 s": { limit: 0 },
  },
  counts: { short: 20_000, full: 1_000_000 },
  minutes: { short: 8, full: 30 },

  run({ isFull, ...options }) {
    const target = isFull ? sanitizer() : undefined;
    const program = target ? buildSanitized("mutations", target) : build("mutations");
    const figures = cases(program, options);
    return {
      "crashes and panics": figures.crashes + (figures.panics ?? 0),
      "errors not ours": figures.others ?? 0,
      "memory out of proportion, or over 2 s": (figures.large ?? 0) + (figures.slow ?? 0),
      note: target ? "under AddressSanitizer" : isFull ? "the toolchain has no AddressSanitizer: run without" : undefined,
    };
  },
};
