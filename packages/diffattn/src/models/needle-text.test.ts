// Prompts with a needle: sentences, where the needle stands, how long the prompt is, what is drawn.

import { describe, expect, test } from "vitest";
import { CITIES, PROSE } from "./needle-prose.js";
import {
  beginningOf,
  drawOf,
  idsWithin,
  isRight,
  leastOf,
  needleOf,
  partsOfIds,
  partsOfText,
  promptOf,
  questionOf,
  sentencesOf,
} from "./needle-text.js";

/** A tokenizer of letters. */
const letters = (text: string): number[] => Array.from(text, (letter) => letter.codePointAt(0) ?? 0);
const textOf = (ids: readonly number[]): string => String.fromCodePoint(...ids);

test("sentences, with the white space before them", () => {
  expect(sentencesOf('One two. "Three four!" Five?\n\nSix 3.5 seven')).toEqual([
    "One two.",
    ' "Three four!"',
    " Five?",
    "\n\nSix 3.5 seven",
  ]);
  expect(sentencesOf(" \n ")).toEqual([]);
  expect(sentencesOf("一つ。「二つ。」三つ")).toEqual(["一つ。", "「二つ。」", "三つ"]);
  expect(sentencesOf("no end")).toEqual(["no end"]);
});

test("the running text of the package has no numbers and no magic", () => {
  expect(PROSE).not.toMatch(/\d|magic/i);
  expect(sentencesOf(PROSE).length).toBeGreaterThan(40);
  expect(new Set(CITIES).size).toBe(CITIES.length);
  for (const city of CITIES) expect(PROSE).not.toContain(city);
});

describe("what is drawn", () => {
  test("follows from seed, length and number", () => {
    expect(drawOf(1, 1024, 3)).toEqual(drawOf(1, 1024, 3));
    const all = [drawOf(1, 1024, 3), drawOf(2, 1024, 3), drawOf(2 ** 40, 1024, 3), drawOf(1, 2048, 3), drawOf(1, 1024, 4)];
    expect(new Set(all.map(({ number, start }) => `${number} ${start}`)).size).toBe(all.length);
  });

  test("is a city, five digits, a place, all of them about as often", () => {
    const draws = Array.from({ length: 4000 }, (_, index) => drawOf(0, 512, index));
    for (const { number, start, city } of draws) {
      expect(number).toMatch(/^[1-9]\d{4}$/);
      expect(start >= 0 && start < 1).toBe(true);
      expect(CITIES).toContain(city);
    }
    expect(new Set(draws.map(({ city }) => city)).size).toBe(CITIES.length);
    for (const share of [draws.map(({ start }) => start), draws.map(({ number }) => (Number(number) - 10_000) / 90_000)]) {
      const mean = share.reduce((a, b) => a + b, 0) / share.length;
      expect(Math.abs(mean - 0.5)).toBeLessThan(0.02);
    }
  });
});

test("right is an answer that begins with the digits", () => {
  const draw = { city: "Oslo", number: "12345", start: 0 };
  expect(needleOf(draw)).toBe(" The magic number of Oslo is 12345.");
  expect(needleOf(draw).startsWith(questionOf(draw))).toBe(true);
  expect(["12345", " 12345.", "\n12345 and"].map((answer) => isRight(answer, draw))).toEqual([true, true, true]);
  expect(["1234", "", "12354", "is 12345", "12,345"].map((answer) => isRight(answer, draw))).toEqual([false, false, false, false, false]);
});

test("what tokenizers put around texts, and before words", () => {
  const around = (text: string, options?: { addSpecialTokens?: boolean | undefined }): number[] =>
    options?.addSpecialTokens === false ? letters(text) : [1, 2, ...letters(text), 3];
  expect(beginningOf(around)).toEqual([1, 2]);
  expect(beginningOf(letters)).toEqual([]);
  // As SentencePiece does it: every text begins with a word.
  const words = (text: string): number[] => letters(`_${text.replaceAll(" ", "_")}`);
  expect(textOf(idsWithin(words, " The number"))).toBe("_The_number");
  expect(textOf(idsWithin(letters, " The number"))).toBe(" The number");
  // One to which a letter before a text is part of its first token.
  const greedy = (text: string): number[] => [text.length, 5];
  expect(idsWithin(greedy, "abc")).toEqual([3, 5]);
});

describe("a prompt", () => {
  const draw = drawOf(0, 400, 0);
  const given = {
    beginning: [0x40],
    parts: partsOfText(letters, PROSE, 1000),
    needle: letters(needleOf(draw)),
    question: letters(questionOf(draw)),
  };

  test.each([0, 0.25, 0.5, 0.75, 1])("of just the length, with the needle %d deep, between two sentences", (depth) => {
    for (const length of [leastOf(given), 200, 400, 5000]) {
      const { ids, span } = promptOf(given, length, depth, draw.start);
      expect(ids).toHaveLength(length);
      const text = textOf(ids);
      expect(text.startsWith("@")).toBe(true);
      expect(text.endsWith(questionOf(draw))).toBe(true);
      expect(text.slice(...span)).toBe(needleOf(draw));
      expect(text.split("magic number")).toHaveLength(3);
      const before = text.slice(1, span[0]);
      if (depth === 0 || length === leastOf(given)) expect(before).toBe("");
      else expect(before).toMatch(/[.!?]$/);
      const room = length - leastOf(given);
      expect(text.slice(span[1], -questionOf(draw).length)).toMatch(depth === 1 || room < 200 ? /^(.*[.!?])?$/s : /[.!?]$/);
      // (No sentence has 200 letters.)
      expect(Math.abs(before.length - depth * room)).toBeLessThan(200);
      // The running text is one, with the needle taken out.
      const running = before + text.slice(span[1], -questionOf(draw).length);
      expect(running).toHaveLength(room);
      expect(promptOf(given, length, 0, draw.start).ids.slice(1 + given.needle.length, -given.question.length)).toEqual(letters(running));
    }
  });

  test("no more of a text is split than is wanted, and a short one goes on at its beginning", () => {
    expect(given.parts.flat().length).toBeLessThan(1200);
    const short = { ...given, parts: partsOfText(letters, "One. Two.", 1000) };
    expect(textOf(promptOf(short, leastOf(given) + 12, 1, 0).ids).slice(1, 13)).toBe("e. Two. One.");
  });

  test("a text without an end of a sentence is cut, however long it is", () => {
    const parts = partsOfText(letters, "x".repeat(200_000), 1e6);
    expect(Math.max(...parts.map(({ length }) => length))).toBe(256);
    expect(promptOf({ ...given, parts }, 150_000, 0.5, 0).ids).toHaveLength(150_000);
  });

  test("of ids, of which no sentence is known", () => {
    const parts = partsOfIds(Int32Array.from({ length: 100 }, (_, i) => 1000 + i));
    const { ids, span } = promptOf({ ...given, parts }, leastOf(given) + 64, 0.5, 0);
    expect(ids).toHaveLength(leastOf(given) + 64);
    expect(span[0]).toBe(1 + 32);
    expect(ids.slice(1, 4)).toEqual([1000, 1001, 1002]);
  });
});
