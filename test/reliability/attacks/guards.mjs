// Guard pages on both sides of every operand of every operator, on every instruction set:
// rust/src/bin/guards.rs.

import { build, cases } from "../lib/cargo.mjs";

export default {
  title: "operands between guard pages",
  properties: {
    "guard faults": { limit: 0 },
    "other bits at the other end of a page": { limit: 0 },
  },
  counts: { short: 2000, full: 200_000 },
  minutes: { short: 8, full: 15 },

  run(options) {
    const { crashes, refused, differing, unavailable } = cases(build("guards"), options);
    if (unavailable) return { unavailable };
    // A refused case is a fault of the attack: it looked at nothing.
    return { "guard faults": crashes + refused, "other bits at the other end of a page": differing ?? 0 };
  },
};
