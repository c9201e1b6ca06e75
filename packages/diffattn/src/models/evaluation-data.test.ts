// What of data goes to a model: windows, documents within them, and no more of a text than is
// wanted.

import { expect, test, vi } from "vitest";
import { firstIds, openData, stretchesOf, type TokenData } from "./evaluation-data.js";

const letters = (text: string): number[] => Array.from(text, (letter) => letter.charCodeAt(0));

/** Ids 0, 1, … with documents. */
function counted(length: number, starts: readonly number[]): TokenData {
  let given = 0;
  return {
    length,
    ids: (first, end) => Promise.resolve(Int32Array.from({ length: end - first }, (_, i) => first + i)),
    starts: (end) => {
      const before = starts.filter((start) => start < end).slice(given);
      given += before.length;
      return Promise.resolve(before);
    },
    close: () => undefined,
  };
}

async function stretches(data: TokenData, context: number): Promise<{ texts: string[]; read: number[] }> {
  const [texts, read]: [string[], number[]] = [[], []];
  for await (const ids of stretchesOf(data, context, (tokens) => read.push(tokens))) texts.push(ids.join(" "));
  return { texts, read };
}

test("windows follow one another; a token alone has nothing to count", async () => {
  expect(await stretches(counted(7, []), 3)).toEqual({ texts: ["0 1 2", "3 4 5"], read: [3, 6, 7] });
  expect(await stretches(counted(8, []), 3)).toEqual({ texts: ["0 1 2", "3 4 5", "6 7"], read: [3, 6, 8] });
  expect(await stretches(counted(0, []), 3)).toEqual({ texts: [], read: [] });
});

test("documents are texts of their own within a window", async () => {
  expect((await stretches(counted(10, [0, 2, 3, 5]), 8)).texts).toEqual(["0 1", "3 4", "5 6 7", "8 9"]);
  // One that begins with a window is no second cut.
  expect((await stretches(counted(6, [0, 3]), 3)).texts).toEqual(["0 1 2", "3 4 5"]);
});

test("no more of a text is split than its first tokens take", () => {
  const encode = vi.fn(letters);
  const text = "abcdefghij".repeat(10_000);
  expect([...firstIds(encode, text, 5)]).toEqual(letters("abcde"));
  expect(Math.max(...encode.mock.calls.map(([part]) => part.length))).toBeLessThan(2000);
  expect(firstIds(letters, text, Infinity)).toHaveLength(100_000);
  // Of a tokenizer with long tokens, more and more until there are enough.
  const words = (part: string): number[] => (part.match(/.{1,1000}/gs) ?? []).map((_, i) => i);
  expect(firstIds(words, text, 30)).toHaveLength(30);
  expect(firstIds(words, text, 1000)).toHaveLength(100);
});

test("a text, lists of ids and bytes of a file are data; others are not", async () => {
  const idsOf = async (given: unknown, most = Infinity): Promise<number[]> => {
    const data = await openData(given, letters, most, undefined);
    return [...(await data.ids(0, data.length))];
  };
  expect(await idsOf("abc")).toEqual([97, 98, 99]);
  expect(await idsOf([3, 4, 5], 2)).toEqual([3, 4]);
  expect(await idsOf(Int32Array.of(3, 4))).toEqual([3, 4]);
  for (const given of [undefined, null, 5, {}, new Float32Array(2)])
    await expect(idsOf(given)).rejects.toThrow(/^data: expected a text, token ids \(an array or an Int32Array\), or \{ tokens \}, /);
  await expect(idsOf([1, 0.5])).rejects.toThrow("data[1]: expected a token id, got 0.5");
  // eslint-disable-next-line no-sparse-arrays
  await expect(idsOf([1, , 2])).rejects.toThrow("data[1]: expected a token id or a text, got nothing");
});
