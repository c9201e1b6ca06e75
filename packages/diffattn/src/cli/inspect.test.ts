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
    quantized: [{ bits: 4, groupSize: 32, weights: 1, parameters: 64, bytes: 40 }],
    layers: [0, 1, 2].map((depth) => ({
      prefix: `model.layers.${depth}.`,
      depth,
      version: 1,
      lambdaForm: "vectors",
      pairing: "halves",
      kvRepeat: null,
      numHeads: depth === 2 ? 8 : 4,
      numKvHeads: 2,
      headDim: 32,
      headWidth: 64,
      rope: { interleaved: false, theta: 10000 },
      isCausal: true,
      eps: 0.000009999999747378752,
      normWeight: false,
      weights: { "q_proj.weight": { tensor: `model.layers.${depth}.q`, rows: null } },
    })),
    plainLayers: [],
    convertedLayers: [],
    missing: ["lm_head.weight"],
    unexpected: [],
    warnings: ["it is odd"],
  });
  expect(lines.slice(1)).toEqual([
    "parameters     1,234,567",
    "element types  BF16: 2 tensors, 1,234,567 parameters, 2.5 MB",
    "quantised      MLX, 4 bits in groups of 32: 1 weight, 64 parameters, 40 B",
    "layers         3 with differential attention",
    "  0–1: V1; λ by vectors; halves; 4 heads of 32 (64 of v); 2 k/v heads; rope half-split, θ 10,000; causal; norm without weight, eps 0.00001",
    "  2: V1; λ by vectors; halves; 8 heads of 32 (64 of v); 2 k/v heads; rope half-split, θ 10,000; causal; norm without weight, eps 0.00001",
    "missing: 1",
    "  lm_head.weight",
    "unexpected: none",
    "warning: it is odd",
  ]);
});

test("plain layers are told beside the others, their heads where they are said", () => {
  const plain = { prefix: "a.", embedDim: 48, rope: { interleaved: false, theta: null }, isCausal: true };
  const lines = report({
    architecture: "llama",
    parameters: 1,
    dtypes: [],
    quantized: [],
    layers: [],
    plainLayers: [
      { ...plain, depth: 0, numHeads: 6, numKvHeads: 2, headDim: 8 },
      { ...plain, depth: 1, numHeads: 6, numKvHeads: 2, headDim: 8 },
      { ...plain, depth: 2, numHeads: null, numKvHeads: null, headDim: null },
    ],
    convertedLayers: [],
    missing: [],
    unexpected: [],
    warnings: [],
  });
  expect(lines).toEqual([
    "architecture  llama",
    "parameters    1",
    "layers        3 with plain attention",
    "  0–1: 6 heads of 8; 2 k/v heads; rope half-split, θ not said; causal",
    "  2: heads not said; rope half-split, θ not said; causal",
    "missing: none",
    "unexpected: none",
  ]);
});

test("layers with differential heads say which", () => {
  const layer = {
    prefix: "a.",
    embedDim: 48,
    numHeads: 6,
    numKvHeads: 2,
    headDim: 8,
    rope: { interleaved: false, theta: 10000 },
    isCausal: true,
    kind: "v2",
    lambda: "sigmoid",
  };
  const lines = report({
    architecture: "diffattn_llama",
    parameters: 1,
    dtypes: [],
    quantized: [],
    layers: [],
    plainLayers: [],
    convertedLayers: [
      { ...layer, depth: 0, differentialHeads: [0, 1, 2, 5] },
      { ...layer, depth: 1, differentialHeads: "all" },
      { ...layer, depth: 2, kind: "dex", lambda: null, differentialHeads: null },
    ],
    missing: [],
    unexpected: [],
    warnings: [],
  });
  const heads = "6 heads of 8; 2 k/v heads; rope half-split, θ 10,000; causal";
  expect(lines.slice(2, 6)).toEqual([
    "layers        3 with differential heads",
    `  0: ${heads}; differential (V2, λ by sigmoid): 0–2, 5`,
    `  1: ${heads}; differential (V2, λ by sigmoid): all`,
    `  2: ${heads}; differential (DEX): not said which`,
  ]);
});
