import { Tokenizer as Library } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CLEAN_UP_HOLDS } from "./decoding.js";
import { Detokenizer, HELD } from "./detokenize.js";
import { Stops, stopPatterns } from "./stops.js";
import { KNOWN_EXPRESSIONS } from "./tokenizer-rules.js";
import { readTokenizer, textGrowing } from "./tokenizer.js";
import type { Tokenizer } from "./types.js";

const bytesOf = (json: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(json));

/** How a byte is written in a byte-level vocabulary. */
const BYTES = ((): string[] => {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(plain ? byte : 256 + others++);
  });
})();
const level = (bytes: Iterable<number>): string => Array.from(bytes, (byte) => BYTES[byte]).join("");
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

interface Added {
  content: string;
  special: boolean;
}

/** What a tokenizer.json of these tokens (the added ones last) is; its ids are their places. */
function fileOf(tokens: readonly string[], added: readonly Added[], more: object): Record<string, unknown> {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return {
    version: "1.0",
    added_tokens: added.map((token, index) => ({ ...flags, ...token, id: tokens.length + index })),
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: {
      type: "BPE",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [],
      ignore_merges: true,
      end_of_word_suffix: null,
    },
    ...more,
  };
}

const ADDED: Added[] = [
  { content: "<|im_end|>", special: true },
  { content: "<s>", special: true },
  { content: "<tool>", special: false },
  { content: "  ", special: false },
];

// Pieces that clean-up, byte order marks, whole and half characters meet in.
const TEXTS = [
  "a",
  "é",
  "😀",
  " ",
  "  .",
  ".",
  " ?",
  "!",
  " ,",
  "'",
  " '",
  " n",
  "n't",
  "t",
  "m",
  "s",
  "ve",
  " 're",
  " a",
  "\n",
  "\uFFFD",
  "\uFEFF",
  "don",
];
const HALVES = [
  [0xf0],
  [0x9f],
  [0x98, 0x80],
  [0xe0, 0xa0],
  [0xed],
  [0xed, 0xa0],
  [0xc3],
  [0xa9],
  [0xff],
  [0xef],
  [0xbb],
  [0xbf],
  [0xf4, 0x90],
  [0x80],
];
const spaced = (text: string): string => text.replaceAll(" ", "\u2581");
const FALLBACK = [
  ...TEXTS.map(spaced),
  "\u2581",
  ...[0xf0, 0x9f, 0x98, 0x80, 0xc3, 0xa9, 0xff, 0xef, 0xbb, 0xbf, 0x20, 0x2e, 0x41].map((byte) => `<0x${byte.toString(16).toUpperCase()}>`),
];
const space = { type: "Replace", pattern: { String: "\u2581" }, content: " " };
const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
const sequence = (...decoders: object[]): object => ({ decoder: { type: "Sequence", decoders } });
const BYTE_LEVEL = [...new Set([...TEXTS.map((text) => level(utf8(text))), ...HALVES.map(level), "\u2581"])];
const PIECES = ["un", "##known", "##s", "##", ".", "'", "n", "t", "##t", "s", ",", "do", "not", "!", "re", "##'s", "[UNK]"];

const FILES: Record<string, Record<string, unknown>> = {
  "byte-level": fileOf(BYTE_LEVEL, ADDED, { decoder: { type: "ByteLevel" } }),
  "byte-level within a sequence": fileOf(BYTE_LEVEL, ADDED, sequence({ type: "ByteLevel" })),
  "byte fallback, as Llama has it": fileOf(FALLBACK, ADDED, sequence(space, { type: "ByteFallback" }, { type: "Fuse" }, strip)),
  "byte fallback, then Metaspace": fileOf(
    FALLBACK,
    ADDED,
    sequence({ type: "ByteFallback" }, { type: "Metaspace", replacement: "\u2581" }),
  ),
  "byte fallback, fused, then Metaspace": fileOf(
    FALLBACK,
    ADDED,
    sequence({ type: "ByteFallback" }, { type: "Fuse" }, { type: "Metaspace" }),
  ),
  "byte fallback, stripped at both ends": fileOf(
    FALLBACK,
    ADDED,
    sequence({ type: "ByteFallback" }, { type: "Fuse" }, space, { ...strip, start: 2, stop: 3 }, { ...space, pattern: { String: "aé" } }),
  ),
  Metaspace: fileOf(FALLBACK, ADDED, { decoder: { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always" } }),
  WordPiece: fileOf(PIECES, ADDED, { decoder: { type: "WordPiece", prefix: "##", cleanup: false } }),
  "WordPiece that cleans up": fileOf(PIECES, ADDED, { decoder: { type: "WordPiece", prefix: "##", cleanup: true } }),
  "an unknown token": fileOf(PIECES, ADDED, {
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      vocab: Object.fromEntries(PIECES.map((token, id) => [token, id])),
    },
  }),
  "BPE with suffixes": fileOf(
    PIECES.map((token) => `${token}</w>`),
    ADDED,
    { decoder: { type: "BPEDecoder", suffix: "</w>" } },
  ),
  "ends of words": fileOf(BYTE_LEVEL, ADDED, {
    decoder: { type: "ByteLevel" },
    model: {
      type: "BPE",
      vocab: Object.fromEntries([...BYTE_LEVEL, "a</w>"].map((token, id) => [token, id])),
      merges: [],
      end_of_word_suffix: "</w>",
    },
  }),
  "no decoder": fileOf(PIECES, ADDED, {}),
};

/** What the package itself makes of ids; what has no token is left out. */
function libraryText(library: Library, clean: boolean, ids: readonly number[], skips: boolean): string {
  const special = ADDED.filter(({ special }) => special).map(({ content }) => content);
  const known = ids.filter((id) => {
    const token = library.id_to_token(id) ?? library.model?.unk_token;
    return token !== undefined && !(skips && special.includes(token));
  });
  if (known.length === 0) return "";
  return library.decode(known, { skip_special_tokens: skips, clean_up_tokenization_spaces: clean });
}

function common(a: string, b: string): number {
  let length = 0;
  while (length < Math.min(a.length, b.length) && a[length] === b[length]) length++;
  return length;
}

const RUNS = { numRuns: 60 };

describe.each(Object.entries(FILES))("%s", (name, file) => {
  const { vocab } = file["model"] as { vocab: object };
  const count = Object.keys(vocab).length + ADDED.length;
  // Ids that have no token, too, and runs of the same.
  const id = fc.oneof({ weight: 8, arbitrary: fc.nat(count - 1) }, { weight: 1, arbitrary: fc.constantFrom(count + 5, 90_000) });
  const run = fc.tuple(id, fc.nat(12)).map(([id, times]) => Array<number>(times).fill(id));
  const ids = fc
    .array(fc.oneof({ weight: 3, arbitrary: fc.array(id, { maxLength: 12 }) }, run), { maxLength: 6 })
    .map((runs) => runs.flat());

  describe.each([false, true])("clean-up: %s", (clean) => {
    const read = (): Promise<Tokenizer> => readTokenizer(bytesOf(file), bytesOf({ clean_up_tokenization_spaces: clean }));

    test("decode is what the package makes of the ids", async () => {
      const tokenizer = await read();
      const library = new Library(file, {});
      fc.assert(
        fc.property(ids, fc.boolean(), (ids, skipSpecialTokens) => {
          expect(tokenizer.decode(ids, { skipSpecialTokens })).toBe(libraryText(library, clean, ids, skipSpecialTokens));
        }),
        RUNS,
      );
    });

    test("the pieces are the text from where the prompt's ends, and what is held back has a bound", async () => {
      const tokenizer = await read();
      expect(textGrowing(tokenizer)).toBeDefined();
      // A token of "BPE with suffixes" is held whole; white space that is trimmed at the end has no
      // bound.
      const bound = (clean ? CLEAN_UP_HOLDS : 0) + 1 + (name.includes("both ends") ? 3 + 1 : name.includes("suffixes") ? 7 : 0);
      fc.assert(
        fc.property(ids, ids, (prompt, ids) => {
          const before = tokenizer.decode(prompt);
          const detokenizer = new Detokenizer(tokenizer, prompt);
          let given = "";
          for (const [index, id] of ids.entries()) {
            given += detokenizer.push(id);
            const whole = tokenizer.decode([...prompt, ...ids.slice(0, index + 1)]);
            const c = common(before, whole);
            expect(given + detokenizer.peek()).toBe(whole.slice(c));
            if (!name.includes("ends of words")) expect(whole.length - c - given.length).toBeLessThanOrEqual(bound);
          }
          given += detokenizer.end();
          const whole = tokenizer.decode([...prompt, ...ids]);
          expect(given).toBe(whole.slice(common(before, whole)));
        }),
        RUNS,
      );
    });

    test("a decode of the caller's own gives the same, given only that", async () => {
      const tokenizer = await read();
      // What it is known of: text that it makes of tokens, one after the other.
      if (/suffixes|ends/.test(name)) return;
      fc.assert(
        fc.property(ids, ids, (prompt, ids) => {
          const own = { decode: (ids: readonly number[] | Int32Array) => tokenizer.decode(ids) };
          const detokenizer = new Detokenizer(own, prompt);
          const given = ids.map((id) => detokenizer.push(id)).join("") + detokenizer.end();
          const [before, whole] = [tokenizer.decode(prompt), tokenizer.decode([...prompt, ...ids])];
          expect(given).toBe(whole.slice(common(before, whole)));
        }),
        RUNS,
      );
    });
  });
});

describe("what is held back", () => {
  const tokens = BYTE_LEVEL;
  const idOf = (bytes: Iterable<number>): number => tokens.indexOf(level(bytes));

  test("one character of an endless run of bytes that are none", async () => {
    for (const file of [FILES["byte-level"], FILES["byte fallback, as Llama has it"]]) {
      const tokenizer = await readTokenizer(bytesOf(file), undefined);
      for (const wrong of file === FILES["byte-level"] ? [idOf([0xff]), idOf([0x9f]), idOf([0xf0])] : [FALLBACK.indexOf("<0xFF>")]) {
        const detokenizer = new Detokenizer(tokenizer, []);
        let given = "";
        for (let count = 1; count <= 5000; count++) {
          given += detokenizer.push(wrong);
          if (given.length < count - 1) throw new Error(`${given.length} of ${count}`);
        }
        expect(given + detokenizer.end()).toBe("\uFFFD".repeat(5000));
      }
    }
  });

  test("at most 24 characters of a decode of the caller's own", () => {
    const own = { decode: (ids: readonly number[] | Int32Array) => new TextDecoder().decode(Uint8Array.from(ids)) };
    for (const id of [0xff, 0x20]) {
      const detokenizer = new Detokenizer(own, [65]);
      let given = "";
      for (let count = 1; count <= 3000; count++) {
        given += detokenizer.push(id);
        if (given.length < count - HELD) throw new Error(`${given.length} of ${count}`);
      }
      expect(given + detokenizer.end()).toBe((id === 0xff ? "\uFFFD" : " ").repeat(3000));
    }
  });

  test("a decode of the caller's own is asked for short texts, however long the text is", () => {
    let most = 0;
    const own = {
      decode: (ids: readonly number[] | Int32Array) => {
        most = Math.max(most, ids.length);
        return Array.from(ids, (id) => ` w${id}`)
          .join("")
          .slice(1);
      },
    };
    const prompt = Array.from({ length: 5000 }, (_, id) => id % 97);
    const detokenizer = new Detokenizer(own, prompt);
    const ids = Array.from({ length: 5000 }, (_, id) => (id * 31) % 101);
    const given = ids.map((id) => detokenizer.push(id)).join("") + detokenizer.end();
    expect(given).toBe(ids.map((id) => ` w${id}`).join(""));
    expect(most).toBeLessThanOrEqual(1024);
  });
});

test("a decoder with a step that is not known: its text comes as that of a decode of the caller's own", async () => {
  const digits = { type: "Replace", pattern: { Regex: "\\d" }, content: "#" };
  const file = fileOf(["a1", "2", " b", "<0xC3>", "<0xA9>"], ADDED, sequence({ type: "ByteFallback" }, { type: "Fuse" }, digits));
  const tokenizer = await readTokenizer(bytesOf(file), undefined);
  expect(textGrowing(tokenizer)).toBeUndefined();
  expect(tokenizer.decode([0, 5, 1, 99, 3, 4])).toBe("a##é");
  expect(tokenizer.decode([5, 99])).toBe("");
  fc.assert(
    fc.property(fc.array(fc.nat(9)), fc.array(fc.nat(9), { maxLength: 200 }), (prompt, ids) => {
      const detokenizer = new Detokenizer(tokenizer, prompt);
      const given = ids.map((id) => detokenizer.push(id)).join("") + detokenizer.end();
      const [before, whole] = [tokenizer.decode(prompt), tokenizer.decode([...prompt, ...ids])];
      expect(given).toBe(whole.slice(common(before, whole)));
    }),
    RUNS,
  );
});

describe("a decode of the caller's own that rewrites what it said", () => {
  const words = ["", "hello", " world", "!", " ' ", "s", "x"];
  const pieces = (write: (text: string) => string, ids: readonly number[]): string[] => {
    const own = { decode: (ids: readonly number[] | Int32Array) => write(Array.from(ids, (id) => words[id]).join("")) };
    const detokenizer = new Detokenizer(own, []);
    return [...ids.map((id) => detokenizer.push(id)), detokenizer.end()];
  };

  test("no character comes twice, none is lost", () => {
    // Its first letter grows with the mark at the end; what was given stands.
    const shout = (text: string): string => (text.endsWith("!") ? text.slice(0, 1).toUpperCase() + text.slice(1) : text);
    expect(pieces(shout, [1, 2, 3, 6])).toEqual(["hello", " world", "!", "x", ""]);
    // Its spaces go when more comes.
    const tight = (text: string): string => text.replace(/ (?=.*x)/, "");
    expect(pieces(tight, [1, 2, 6, 6])).toEqual(["hello", " world", "x", "x", ""]);
    // It is shorter for a while.
    const shy = (text: string): string => text.replace(/s$/, "");
    expect(pieces(shy, [1, 5, 5, 6])).toEqual(["hello", "", "s", "sx", ""]);
  });

  test("nor in a long text", () => {
    const shout = (text: string): string => (text.endsWith("!") ? text.slice(0, 1).toUpperCase() + text.slice(1) : text);
    const ids = [...Array<number>(200).fill(2), 3, 1, 3, 6];
    expect(pieces(shout, ids).join("")).toBe(`${" world".repeat(200)}!hello!x`);
  });

  test("what is no text is refused", () => {
    const detokenizer = new Detokenizer({ decode: () => 5 as never }, []);
    expect(() => detokenizer.push(1)).toThrow("tokenizer.decode: expected a text, got 5");
  });
});

describe("stop strings with added tokens", () => {
  const tokens = ["a", "b", ".", "\n", ".\n", "\n\n", "\u2581b", "<", "|im_end|>", " ", "'", "<0xF0>"];
  const more = sequence(space, { type: "ByteFallback" }, { type: "Fuse" });
  const end = tokens.length;
  const tool = end + 2;
  const file = fileOf(tokens, ADDED, {
    ...more,
    pre_tokenizer: { type: "Split", pattern: { Regex: "." }, behavior: "Isolated", invert: false },
  });
  const id = (token: string): number => tokens.indexOf(token);

  async function stopped(stop: string[], ids: number[], clean = false): Promise<[string[], number | null]> {
    const tokenizer = await readTokenizer(bytesOf(file), bytesOf({ clean_up_tokenization_spaces: clean }));
    const detokenizer = new Detokenizer(tokenizer, []);
    const stops = new Stops(stopPatterns(stop, tokenizer));
    const given: string[] = [];
    for (const [index, id] of ids.entries()) {
      const before = detokenizer.peek();
      const text = detokenizer.push(id);
      const one = stops.push({ id, text, before, after: detokenizer.peek() });
      given.push(one.text);
      if (one.stopped) return [given, index];
    }
    const rest = stops.push({ id: -1, text: detokenizer.end() });
    return [[...given, rest.text + stops.end()], null];
  }

  test("one that is a special token: by its id, or spelled out", async () => {
    expect(await stopped(["<|im_end|>"], [id("a"), id("."), end, id("b")])).toEqual([["a", ".", ""], 2]);
    expect(await stopped(["x", "<|im_end|>"], [id("a"), id("<"), id("|im_end|>")])).toEqual([["a", "", ""], 2]);
    expect(await stopped(["<s>"], [id("a"), end, id("b")])).toEqual([["a", "", "b", ""], null]);
  });

  test("one that is an added token and no special one", async () => {
    expect(await stopped(["<tool>"], [id("a"), tool, id("b")])).toEqual([["a", ""], 1]);
    expect(await stopped(["a<tool>"], [id("b"), id("a"), tool])).toEqual([["b", "", ""], 2]);
  });

  test("text and token, however the text is cut into tokens; what may become one is held back", async () => {
    expect(await stopped(["\n<|im_end|>"], [id("a"), id("\n"), end])).toEqual([["a", "", ""], 2]);
    expect(await stopped(["\n<|im_end|>"], [id("a"), id(".\n"), end])).toEqual([["a", ".", ""], 2]);
    expect(await stopped(["\n<|im_end|>"], [id("a"), id("\n"), id("b"), end])).toEqual([["a", "", "\nb", "", ""], null]);
    expect(await stopped(["<|im_end|>\n"], [id("a"), end, id("\n\n"), id("b")])).toEqual([["a", "", ""], 2]);
    expect(await stopped(["<|im_end|>\n"], [id("a"), end, id("b"), end, id("\n")])).toEqual([["a", "", "b", "", ""], 4]);
    expect(await stopped(["a<|im_end|><s>"], [id("a"), id("a"), end, end + 1])).toEqual([["", "a", "", ""], 3]);
    // A character that no id stands for is still part of the stop.
    expect(await stopped(["z<|im_end|>"], [id("a"), end, id("b")])).toEqual([["a", "", "b", ""], null]);
    expect(await stopped(["<s>b"], [end + 1, end, id("b"), end + 1, id("b")])).toEqual([["", "", "b", "", ""], 4]);
    expect(await stopped(["<|im_end|><|im_end|>b"], [end, end, end, id("b")])).toEqual([["", "", "", ""], 3]);
  });

  test("what was not certain before the token comes with it", async () => {
    expect(await stopped(["<|im_end|>"], [id("a"), id("<0xF0>"), end])).toEqual([["a", "", "\uFFFD"], 2]);
    expect(await stopped(["<|im_end|>"], [id("a"), id(" "), end], true)).toEqual([["a", "", " "], 2]);
    expect(await stopped([" <|im_end|>"], [id("a"), id(" "), end], true)).toEqual([["a", "", ""], 2]);
    expect(await stopped(["<|im_end|>b"], [id("a"), id(" "), end, id("b")], true)).toEqual([["a", "", "", " "], 3]);
    expect(await stopped(["<|im_end|>b"], [id("a"), id(" "), end, id("a")], true)).toEqual([["a", "", "", " a", ""], null]);
  });

  test("whatever the ids are, what is given is the text before the first stop", async () => {
    const tokenizer = await readTokenizer(bytesOf(file), undefined);
    // Where each token is text, and special ones are shown, a stop is a text among others.
    const shown = (ids: readonly number[]): string => tokenizer.decode(ids, { skipSpecialTokens: false });
    const hidden = (text: string): string => text.replaceAll("<|im_end|>", "").replaceAll("<s>", "");
    const stop = fc.array(fc.constantFrom("a", "b", ".", "\n", "<|im_end|>", "<s>", "<tool>"), { minLength: 1, maxLength: 3 });
    const stops = fc.array(
      stop.map((parts) => parts.join("")),
      { minLength: 1, maxLength: 3 },
    );
    const ids = fc.array(fc.constantFrom(id("a"), id("b"), id("."), id("\n"), id(".\n"), end, end + 1, tool), { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(stops, ids, async (stop, ids) => {
        const [given, at] = await stopped(stop, ids);
        // In the text with special tokens, where a stop has some; else in the text that is seen.
        const places = (ids: readonly number[]): number[] =>
          stop
            .map((text) => (hidden(text) === text ? hidden(shown(ids)) : shown(ids)).indexOf(text))
            .map((place, index) =>
              place > 0 && hidden(stop[index] ?? "") !== stop[index] ? hidden(shown(ids).slice(0, place)).length : place,
            )
            .filter((place) => place >= 0);
        const seen = at === null ? ids : ids.slice(0, at + 1);
        expect(at === null).toBe(places(seen).length === 0);
        expect(given.join("")).toBe(hidden(shown(seen)).slice(0, at === null ? undefined : Math.min(...places(seen))));
        if (at !== null) expect(places(ids.slice(0, at))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

describe("options and the empty text", () => {
  const bos = {
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<s>": { id: "<s>", ids: [3], tokens: ["<s>"] } },
    },
    pre_tokenizer: { type: "Split", pattern: { Regex: "." }, behavior: "Isolated", invert: false },
  };
  const file = fileOf(["a", "b"], ADDED, { ...bos, decoder: { type: "Fuse" } });

  test("special tokens are added and left out unless the options say otherwise", async () => {
    const tokenizer = await readTokenizer(bytesOf(file), undefined);
    expect(tokenizer.encode("ab")).toEqual([3, 0, 1]);
    expect(tokenizer.encode("ab", {})).toEqual([3, 0, 1]);
    expect(tokenizer.encode("a<s>", { addSpecialTokens: false })).toEqual([0, 3]);
    expect(tokenizer.decode([3, 0, 1])).toBe("ab");
    expect(tokenizer.decode(Int32Array.of(3, 0, 2), { skipSpecialTokens: false })).toBe("<s>a<|im_end|>");
    expect(tokenizer.decode([0, 77, 1])).toBe("ab");
    expect(tokenizer.decode([])).toBe("");
    expect(() => tokenizer.encode("a", { add_special_tokens: false } as never)).toThrow(/^options: expected only addSpecialTokens/);
    expect(() => tokenizer.encode("a", { addSpecialTokens: 0 as never })).toThrow("addSpecialTokens: expected true or false, got 0");
    expect(() => tokenizer.decode([1], { skipSpecialTokens: "no" as never })).toThrow(
      'skipSpecialTokens: expected true or false, got "no"',
    );
    for (const ids of [null, "0", [1.5], [1n], [{}]]) expect(() => tokenizer.decode(ids as never)).toThrow(/^ids/);
  });

  test("the empty text has what is put around every text", async () => {
    const tokenizer = await readTokenizer(bytesOf(file), undefined);
    expect(tokenizer.encode("")).toEqual([3]);
    expect(tokenizer.encode("", { addSpecialTokens: false })).toEqual([]);
    const roberta = {
      post_processor: { type: "RobertaProcessing", cls: ["<s>", 3], sep: ["<|im_end|>", 2], trim_offsets: true, add_prefix_space: true },
    };
    expect((await readTokenizer(bytesOf(fileOf(["a", "b"], ADDED, roberta)), undefined)).encode("")).toEqual([3, 2]);
    expect((await readTokenizer(bytesOf(fileOf(["a", "b"], ADDED, {})), undefined)).encode("")).toEqual([]);
  });
});

describe("a tokenizer.json of strangers", () => {
  const split = (Regex: string): object => ({
    pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false }] },
  });
  const read = (more: object, regex?: "known"): Promise<Tokenizer> =>
    readTokenizer(bytesOf(fileOf(["a", "b"], ADDED, more)), undefined, regex);

  test("only expressions of published tokenizers, where the caller says so", async () => {
    const evil = split("(a+)+b");
    await read(evil);
    await expect(read(evil, "known")).rejects.toMatchObject({
      code: "FILE",
      message: expect.stringMatching(/^tokenizer.json pre_tokenizer: .*"\(a\+\)\+b"$/) as unknown,
    });
    for (const kind of ["normalizer", "decoder"]) {
      const replace = { type: "Replace", pattern: { Regex: "(a+)+b" }, content: "" };
      await expect(read({ [kind]: replace }, "known")).rejects.toMatchObject({ code: "FILE" });
    }
    for (const known of [...KNOWN_EXPRESSIONS, "\\p{N}{1,3}", "\\s+", " {2,}", "\\d", "[0-9]", "."])
      expect((await read(split(known), "known")).encode("ab")).toEqual([0, 1]);
    for (const other of ["a{100,}", "[a]+[a]+", "(?:a)", "a|b", "[[a]&&[b]]", "\\p{L", 5, null])
      await expect(read(split(other as string), "known")).rejects.toMatchObject({ code: "FILE" });
    expect((await read({ pre_tokenizer: { type: "ByteLevel", add_prefix_space: false } }, "known")).encode("ab")).toEqual([0, 1]);
  });

  test("what these expressions take grows as the text does", () => {
    const length = 150_000;
    const texts = ["a", "A", "aA", "中", " ", "\n", " \n", "\n ", "1", "'", "'s", "!", "a\u0301", "ʰ", "ʰA", "中A"].map((text) =>
      text.repeat(length).slice(0, length),
    );
    texts.push(`${" ".repeat(length)}x`, `${"A".repeat(length)}!`, `中${"A".repeat(length)}`, `x${"\n ".repeat(length / 2)}x`);
    for (const known of KNOWN_EXPRESSIONS) {
      const { pre_tokenizer } = new Library(fileOf(["a"], [], split(known)), {});
      for (const text of texts) {
        const begin = performance.now();
        pre_tokenizer?.pre_tokenize(text);
        // (One that tries a run again from each of its characters takes 10 s and more.)
        if (performance.now() - begin > 5_000) throw new Error(`${known} on ${text.slice(0, 5)}`);
      }
    }
  });

  test("what lets a text grow, or is looked for at length, is refused with them", async () => {
    const twice = { type: "Replace", pattern: { String: "a" }, content: "aa" };
    const many = (count: number): object => ({ normalizer: { type: "Sequence", normalizers: Array(count).fill(twice) } });
    await read(many(6), "known");
    await expect(read(many(7), "known")).rejects.toMatchObject({
      code: "FILE",
      message: expect.stringContaining("grow 64 times at most") as unknown,
    });
    const template = { type: "TemplateProcessing", single: Array(8).fill({ Sequence: { id: "A", type_id: 0 } }), pair: [] };
    for (const more of [
      { post_processor: { type: "Sequence", processors: [template, template, template] } },
      { pre_tokenizer: { type: "Metaspace", replacement: "\u2581", str_rep: "a".repeat(65) } },
      { added_tokens: [{ id: 1, content: "a".repeat(1001) }] },
      { model: { type: "Unigram", vocab: [["a".repeat(129), -1]], unk_id: 0 } },
      { model: { type: "WordPiece", vocab: { a: 0 }, unk_token: "a", max_input_chars_per_word: 1e9 } },
    ])
      await expect(read(more, "known")).rejects.toMatchObject({ code: "FILE" });
    await expect(read({ normalizer: { type: "Prepend", prepend: "a".repeat(64) } }, "known")).rejects.toMatchObject({ code: "FILE" });
  });

  test("what is no tokenizer is FILE, whatever the package throws", async () => {
    for (const length of [0, -1, "0", 0.5, null, undefined])
      await expect(read({ pre_tokenizer: { type: "FixedLength", length } })).rejects.toMatchObject({ code: "FILE" });
    const model = (more: object): object => ({ model: { type: "BPE", vocab: { a: 0 }, merges: [], ...more } });
    const wrong: object[] = [
      { decoder: { type: "Unknown" } },
      { decoder: { type: "Sequence", decoders: [null] } },
      { decoder: { type: "Replace", pattern: { Regex: "(" }, content: "" } },
      { decoder: { type: "Strip", content: 5, start: {}, stop: [] }, added_tokens: 5 },
      { model: null },
      { added_tokens: [null] },
      { added_tokens: [{ id: "length", content: "b" }] },
      model({ merges: null }),
      model({ merges: [5] }),
      model({ vocab: null }),
      model({ vocab: { length: "length", b: "length" } }),
      model({ vocab: { a: "x", b: 1.5 } }),
      model({ vocab: { a: -1 } }),
      model({ vocab: { a: 2 ** 40 } }),
      { model: { type: "Unigram", vocab: [[5, 5]], unk_id: 0 } },
      { model: { type: "Unigram", vocab: [], unk_id: 0 } },
      { model: { type: "WordPiece", vocab: {}, unk_token: "[UNK]" } },
      { post_processor: { type: "TemplateProcessing", single: null } },
      { post_processor: { type: "TemplateProcessing", single: [{ SpecialToken: { id: "none" } }] } },
    ];
    const files = wrong.map((more) => bytesOf(fileOf(["a", "b"], ADDED, more)));
    const deep = `${'{"type":"Sequence","normalizers":['.repeat(50_000)}${"]}".repeat(50_000)}`;
    files.push(utf8(JSON.stringify(fileOf(["a"], ADDED, { normalizer: 5 })).replace('"normalizer":5', `"normalizer":${deep}`)));
    let refused = 0;
    for (const file of files) {
      for (const use of [(tokenizer: Tokenizer) => tokenizer.encode("ab"), (tokenizer: Tokenizer) => tokenizer.decode([0, 1])]) {
        try {
          use(await readTokenizer(file, undefined));
        } catch (error) {
          refused++;
          expect(error).toMatchObject({ name: "DiffAttnError", code: "FILE" });
        }
      }
    }
    expect(refused).toBeGreaterThan(wrong.length);
    for (const json of [[], null, 5, "a"]) await expect(readTokenizer(bytesOf(json), undefined)).rejects.toMatchObject({ code: "FILE" });
  });

  test("names of every object are tokens like others", async () => {
    const names = ["__proto__", "constructor", "toString", "length", "hasOwnProperty"];
    const vocab = JSON.parse(`{${names.map((name, id) => `"${name}": ${id}`).join()}}`) as object;
    const tokenizer = await read({
      model: { type: "BPE", vocab, merges: [], ignore_merges: true },
      added_tokens: [],
      decoder: { type: "Fuse" },
    });
    for (const [id, name] of names.entries()) {
      expect(tokenizer.encode(name)).toEqual([id]);
      expect(tokenizer.decode([id])).toBe(name);
    }
  });

  test("a text that the package cannot take", async () => {
    const tokenizer = await read({
      model: {
        type: "Unigram",
        vocab: [
          ["a", -1],
          ["b", -2],
        ],
        unk_id: 1,
      },
    });
    let code: unknown;
    try {
      expect(tokenizer.encode("ab".repeat(75_000)).length).toBe(150_000);
    } catch (error) {
      code = (error as { code: unknown }).code;
    }
    expect([undefined, "OPTION"]).toContain(code);
  });
});
