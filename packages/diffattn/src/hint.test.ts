import { expect, test } from "vitest";
import { hint } from "./hint.js";

const ATTENTION = ["lambda", "isCausal", "attnMask", "attnBias", "keyLengths", "cuSeqlensQ", "scale", "softcap", "window", "norm", "out"];
const GENERATE = ["temperature", "topK", "topP", "seed", "maxNewTokens", "stop", "stopIds", "cache", "signal", "repetitionPenalty"];
const LAYER = ["embedDim", "depth", "numHeads", "numKvHeads", "headDim", "rope", "pairing"];

test.each([
  // As Python spells it; as somebody else does; a slip; what another library calls it.
  ["max_new_tokens", GENERATE, "maxNewTokens"],
  ["top_k", GENERATE, "topK"],
  ["stop_ids", GENERATE, "stopIds"],
  ["is_causal", ATTENTION, "isCausal"],
  ["cu_seqlens_q", ATTENTION, "cuSeqlensQ"],
  ["num_groups", ["numGroups", "eps"], "numGroups"],
  ["num_kv_heads", LAYER, "numKvHeads"],
  ["ropeType", ["rope_type", "factor"], "rope_type"],
  ["MaxNewTokens", GENERATE, "maxNewTokens"],
  ["max-new-tokens", GENERATE, "maxNewTokens"],
  ["TEMPERATURE", GENERATE, "temperature"],
  ["lamda", ATTENTION, "lambda"],
  ["temprature", GENERATE, "temperature"],
  ["sotfcap", ATTENTION, "softcap"],
  ["signals", GENERATE, "signal"],
  ["max_new_token", GENERATE, "maxNewTokens"],
  ["attention_mask", ATTENTION, "attnMask"],
  ["causal", ATTENTION, "isCausal"],
  ["max_tokens", GENERATE, "maxNewTokens"],
  ["past_key_values", GENERATE, "cache"],
  ["num_attention_heads", LAYER, "numHeads"],
])("%s", (name, names, meant) => {
  expect(hint(name, names)).toBe(` (did you mean ${meant}?)`);
});

test.each([
  ["what", ATTENTION],
  ["x", GENERATE],
  ["max_tokens", ATTENTION],
  ["constructor", GENERATE],
  ["__proto__", GENERATE],
  ["", GENERATE],
  ["_", GENERATE],
  ["maxNewTokens".repeat(1e5), GENERATE],
])("nothing is near %s", (name, names) => {
  expect(hint(name, names)).toBe("");
});
