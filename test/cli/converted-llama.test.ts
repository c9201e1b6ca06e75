// A Llama some of whose heads were made differential, at the command line: inspected, looked at, and
// called what it is.

import { join } from "node:path";
import { expect, test } from "vitest";
import { diffattn, modelOf } from "./run.js";

const model = modelOf("diffattn_llama/share_half");

test("inspect says which heads are differential", async () => {
  const { code, out, err } = await diffattn(["inspect", model]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const heads = "6 heads of 8; 2 k/v heads; rope half-split, θ 10,000; causal; differential (V2, λ by sigmoid)";
  expect(out.split("\n").slice(0, 8)).toEqual([
    "architecture   diffattn_llama",
    "parameters     39,216",
    "element types  F32: 23 tensors, 39,216 parameters, 156.9 KB",
    "layers         2 with differential heads",
    `  0: ${heads}: 0, 2, 4`,
    `  1: ${heads}: 3–5`,
    "missing: none",
    "unexpected: none",
  ]);
});

test("a layer that there is not is named before the model is read", async () => {
  expect(await diffattn(["maps", model, "A", "--layer", "2"])).toMatchObject({
    code: 1,
    err: "diffattn: --layer: expected a layer below 2, got 2\n",
  });
});

test("a command that takes pictures calls it what it is", async () => {
  const { err } = await diffattn(["classify", model, join(model, "config.json")]);
  expect(err).toContain('share_half: it is a Llama with differential heads, a language model; "diffattn generate", ');
});
