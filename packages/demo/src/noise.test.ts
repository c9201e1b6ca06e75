// What the page says of noise, from plain numbers. The page itself: test/browser/demo.mjs.
import { summarizeNoise, type AttentionNoise } from "diffattn/viz";
import { describe, expect, test } from "vitest";
import { spansOf, typicalOf, verdictOf } from "./noise.js";

const head = (first: number, difference: number): AttentionNoise => ({
  rows: [0, 1],
  terms: [[first], [1]],
  diff: [difference],
  relevant: [0],
});

describe("where words stand among tokens", () => {
  const tokens = ["A", " is", " 1", ".", " B", " is", " 2", ".\n", "A", " is", " 2"];

  test("the answer first, the question after it, by the tokens that they lie in", () => {
    expect(spansOf(tokens, { answer: "A is 1.", question: "A is" })).toEqual({ answer: [0, 1, 2, 3], rows: [8, 10] });
    expect(spansOf(tokens, { answer: "s 1", question: "" })).toEqual({ answer: [1, 2], rows: [3, 11] });
    // A token that belongs to both is the answer's.
    expect(spansOf(["ab", "c"], { answer: "a", question: "bc" })).toEqual({ answer: [0], rows: [1, 2] });
  });

  test("a sentence where they do not", () => {
    expect(spansOf(tokens, { answer: "C", question: "" })).toBe("“C” is not in the text.");
    expect(spansOf(tokens, { answer: "B is", question: "is 1" })).toBe("“is 1” does not follow the answer.");
    expect(spansOf(tokens, { answer: " 2.", question: "B" })).toBe("“B” does not follow the answer.");
    expect(spansOf(["a", "b"], { answer: "b", question: "" })).toBe("Nothing follows the answer.");
  });
});

describe("what noise over all heads says", () => {
  const verdict = (...heads: AttentionNoise[]): string => verdictOf(summarizeNoise(heads));

  test("a change that is smaller than its spread is no gain", () => {
    expect(verdict(head(0.9, 0.8), head(0.9, 0.98))).toBe(
      "In the mean over all 2 heads (± standard deviation) 90.0 % (± 0.0) of map 1 and 89.0 % (± 9.0) of the difference fall on irrelevant tokens: no gain to rely on, as the change of −1.0 points is less than its spread from head to head (± 9.0).",
    );
    expect(verdict(head(0.5, 0.5))).toContain("no gain to rely on");
  });

  test("one that is larger is said with its direction", () => {
    expect(verdict(head(0.9, 0.7), head(0.9, 0.8))).toContain("the subtraction takes 15.0 points (± 5.0) away.");
    expect(verdict(head(0.7, 0.9), head(0.8, 0.9))).toContain("the subtraction adds 15.0 points (± 5.0).");
  });

  test("the typical head is the one nearest to the means", () => {
    const heads = [head(0.1, 0.1), head(0.6, 0.4), head(0.9, 0.9)];
    expect(typicalOf(heads, summarizeNoise(heads))).toBe(1);
  });
});
