import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Detokenizer } from "./detokenize.js";
import { Stops, stopPatterns } from "./stops.js";

/** Byte-level: an id is a byte. */
const bytes = { decode: (ids: readonly number[] | Int32Array) => new TextDecoder().decode(Uint8Array.from(ids)) };
/** As SentencePiece writes words: the first loses its space. */
const words = {
  decode: (ids: readonly number[] | Int32Array) =>
    Array.from(ids, (id) => ` w${id}`)
      .join("")
      .slice(1),
};

function pieces(tokenizer: typeof bytes, prompt: number[], ids: number[]): string[] {
  const detokenizer = new Detokenizer(tokenizer, prompt);
  return [...ids.map((id) => detokenizer.push(id)), detokenizer.end()];
}

const utf8 = (text: string): number[] => [...new TextEncoder().encode(text)];

describe("whole characters only", () => {
  test("a character of several ids comes with its last", () => {
    expect(pieces(bytes, utf8("a"), utf8("é😀x"))).toEqual(["", "é", "", "", "", "😀", "x", ""]);
  });
  test("a prompt that ends within a character", () => {
    const [first = 0, ...rest] = utf8("😀");
    expect(pieces(bytes, [97, first], [...rest, 98])).toEqual(["", "", "😀", "b", ""]);
  });
  test("what is no whole character at the end is given then", () => {
    expect(pieces(bytes, [], [97, 0xf0, 0x9f])).toEqual(["a", "", "", "\uFFFD"]);
  });
  test("a byte that never becomes a character comes with what follows", () => {
    expect(pieces(bytes, [], [0xff, 97])).toEqual(["", "\uFFFDa", ""]);
  });
  test("spaces that only the first word loses", () => {
    expect(pieces(words, [1, 2], [3, 4])).toEqual([" w3", " w4", ""]);
    expect(pieces(words, [], [3, 4])).toEqual(["w3", " w4", ""]);
  });
  test("the pieces are the text, and no piece but the last holds half a character", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (prompt, text) => {
        const all = pieces(bytes, utf8(prompt), utf8(text));
        expect(all.join("")).toBe(bytes.decode(utf8(text)));
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.nat(9)), fc.array(fc.nat(9)), (prompt, ids) => {
        const before = words.decode(prompt);
        expect(before + pieces(words, prompt, ids).join("")).toBe(words.decode([...prompt, ...ids]));
      }),
    );
  });
});

function stopped(stops: string[], text: string[]): { given: string[]; at: number | null } {
  const strings = new Stops(stopPatterns(stops, { encode: () => [], decode: () => "" }));
  const given: string[] = [];
  for (const [index, piece] of text.entries()) {
    const { text, stopped } = strings.push({ id: 0, text: piece });
    given.push(text);
    if (stopped) return { given, at: index };
  }
  return { given: [...given, strings.end()], at: null };
}

describe("stop strings", () => {
  test("held back while they can still come, given when they do not", () => {
    expect(stopped(["###"], ["a#", "#", "b#", "c"])).toEqual({ given: ["a", "", "##b", "#c", ""], at: null });
    expect(stopped(["###"], ["a#", "#", "#b"])).toEqual({ given: ["a", "", ""], at: 2 });
    expect(stopped(["###"], ["a##"])).toEqual({ given: ["a", "##"], at: null });
  });
  test("within one piece, and the earliest of several", () => {
    expect(stopped(["yy", "x"], ["abxyy"])).toEqual({ given: ["ab"], at: 0 });
    expect(stopped(["ab", "a"], ["xab"])).toEqual({ given: ["x"], at: 0 });
  });
  test("one that begins again within itself", () => {
    expect(stopped(["aab"], ["a", "a", "a", "b", "c"])).toEqual({ given: ["", "", "a", ""], at: 3 });
  });
  test("however the text is cut, what is given is the text up to the first stop string", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 3 }),
        fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 4 })),
        (stops, text) => {
          const { given, at } = stopped(stops, text);
          const all = text.join("");
          const first = Math.min(...stops.map((stop) => all.indexOf(stop)).filter((index) => index >= 0));
          if (at === null) {
            expect(first).toBe(Infinity);
            expect(given.join("")).toBe(all);
          } else {
            // A stop string that is seen first may not be the one that begins first in the whole
            // text, but none was given.
            const seen = text.slice(0, at + 1).join("");
            expect(given.join("")).toBe(seen.slice(0, Math.min(...stops.map((stop) => seen.indexOf(stop)).filter((index) => index >= 0))));
            for (const stop of stops) expect(given.join("")).not.toContain(stop);
          }
        },
      ),
    );
  });
});
