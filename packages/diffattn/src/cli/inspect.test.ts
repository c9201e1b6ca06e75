import { expect, test } from "vitest";
import { ranges, report } from "./inspect.js";

test("runs of numbers are ranges", () => {
  expect(ranges(["0", "1", "2", "5", "7", "8"])).toBe("0–2, 5, 7–8");
  expect(ranges(["encoder", "decoder"])).toBe("encoder, decoder");
});

test("a report names what is missing and says layers that are alike once", () => {
  const lines = report({
    architecture: "diffllama",
    parameters: 1234567,
    dtypes: [{ dtype: "BF16", tensors: 2, parameters: 1234567, bytes: 2469134 }],
    layers: [0, 1, 2].map((depth) => ({
      prefix: `model.layers.${depth}.`,
      depth,
      heads: { pairing: "halves", heads: depth === 2 ? 8 : 4 },
      groups: null,
    })),
    missing: ["lm_head.weight"],
    unexpected: [],
    warnings: ["it is odd"],
  });
  expect(lines.slice(1)).toEqual([
    "parameters     1,234,567",
    "element types  BF16: 2 tensors, 1,234,567 parameters, 2.5 MB",
    "layers         3 with differential attention",
    "  0–1: heads pairing halves, heads 4",
    "  2: heads pairing halves, heads 8",
    "missing: 1",
    "  lm_head.weight",
    "unexpected: none",
    "warning: it is odd",
  ]);
});
