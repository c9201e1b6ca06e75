// Texts of models through the public API, on every backend: what a tokenizer.json asks for is what
// is streamed, stopped at and told.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { api, backend, isas, models, refused } from "./backends.js";

type Llama = modelTypes.DiffLlama;

const folder = fileURLToPath(new URL("../models/diffllama_gqa", import.meta.url));
const VOCABULARY = 97;
const bytesOf = (json: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(json));
const weights = Object.fromEntries(
  readdirSync(folder)
    .filter((name) => name === "config.json" || name === "model.safetensors")
    .map((name) => [name, new Uint8Array(readFileSync(`${folder}/${name}`))]),
);

/**
 * A tokenizer.json of a token for each id, with a token before every text: "<s>", the last id but
 * one.
 */
function tokenizerJson(tokens: readonly string[], more: object = {}): Record<string, unknown> {
  const bos = { id: "<s>", type_id: 0 };
  return {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "Split", pattern: { Regex: "\\S| " }, behavior: "Isolated", invert: false },
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: bos }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<s>": { id: "<s>", ids: [tokens.indexOf("<s>")], tokens: ["<s>"] } },
    },
    decoder: { type: "Fuse" },
    model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges: [] },
    ...more,
  };
}

const added = (id: number, content: string, special: boolean): object => ({
  id,
  content,
  special,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
});

const load = (tokenizer: object, config: object = {}, options?: modelTypes.ModelLoadOptions): Promise<Llama> =>
  models.DiffLlama.load({ ...weights, "tokenizer.json": bytesOf(tokenizer), "tokenizer_config.json": bytesOf(config) }, options);

async function all(iterator: AsyncIterable<modelTypes.GeneratedToken>): Promise<modelTypes.GeneratedToken[]> {
  const tokens: modelTypes.GeneratedToken[] = [];
  for await (const token of iterator) tokens.push(token);
  return tokens;
}

const letters = Array.from({ length: VOCABULARY }, (_, id) => String.fromCharCode(0x4e00 + id));
letters[VOCABULARY - 2] = "<s>";
const bos = added(VOCABULARY - 2, "<s>", true);
const SAMPLED = { temperature: 1.5, seed: 4, stopIds: [], deterministic: true };

beforeAll(async () => {
  await api.init({ backend, isa: isas[0] });
});
afterAll(() => api.dispose());

describe("a stop string that is an added token", () => {
  const prompt = [1, 2, 3];
  let written: number[];
  /** The first id that was not written before it, from the fourth on. */
  let end: number;
  let at: number;
  beforeAll(async () => {
    const plain = await load(tokenizerJson(letters, { added_tokens: [bos] }));
    written = (await all(plain.generate(prompt, { ...SAMPLED, maxNewTokens: 24 }))).map(({ id }) => id);
    end = written.find((id, index) => index > 3 && written.indexOf(id) === index && !prompt.includes(id) && id !== VOCABULARY - 2) ?? -1;
    at = written.indexOf(end);
    expect(at).toBeGreaterThan(3);
    plain.dispose();
  });
  const withEnd = (special: boolean): Promise<Llama> => {
    const tokens = letters.map((letter, id) => (id === end ? "<|im_end|>" : letter));
    return load(tokenizerJson(tokens, { added_tokens: [bos, added(end, "<|im_end|>", special)] }));
  };

  test.each([true, false])("special: %s", async (special) => {
    const model = await withEnd(special);
    const tokens = await all(model.generate(prompt, { ...SAMPLED, maxNewTokens: 24, stop: "<|im_end|>" }));
    expect(tokens.map(({ id }) => id)).toEqual(written.slice(0, at + 1));
    expect(tokens.at(-1)).toEqual({ id: end, text: "", index: 0, finish: "stop" });
    expect(tokens.map(({ text }) => text).join("")).toBe(model.decode(written.slice(0, at)));
    // Text and token together: what is text of it is not given.
    const stop = `${letters[written[at - 1] ?? 0]}<|im_end|>`;
    const both = await all(model.generate(prompt, { ...SAMPLED, maxNewTokens: 24, stop: ["none", stop] }));
    expect(both.map(({ id }) => id)).toEqual(written.slice(0, at + 1));
    expect(both.map(({ text }) => text).join("")).toBe(model.decode(written.slice(0, at - 1)));
    const after = `<|im_end|>${letters[written[at + 1] ?? 0]}`;
    const later = await all(model.generate(prompt, { ...SAMPLED, maxNewTokens: 24, stop: after }));
    expect(later.length).toBe(at + 2);
    expect(later.map(({ text }) => text).join("")).toBe(model.decode(written.slice(0, at)));
    model.dispose();
  });

  test("ends its text of a batch alone, and a cache holds what was told", async () => {
    const model = await withEnd(true);
    const options = { ...SAMPLED, maxNewTokens: 24, stop: "<|im_end|>" };
    const prompts = [prompt, [5, 6], [7]];
    const alone = [];
    for (const one of prompts) alone.push(await all(model.generate(one, options)));
    const together = await all(model.generate(prompts, options));
    for (const [index, tokens] of alone.entries())
      expect(together.filter((token) => token.index === index)).toEqual(tokens.map((token) => ({ ...token, index })));
    const cache = await model.createCache();
    await all(model.generate(prompt, { ...options, cache }));
    expect([...(await cache.export()).ids]).toEqual([...prompt, ...written.slice(0, at)]);
    model.dispose();
  });

  test("a tokenizer of the caller's own: texts alone", async () => {
    const own = { encode: () => [1], decode: (ids: readonly number[] | Int32Array) => Array.from(ids, (id) => letters[id]).join("") };
    const model = await models.DiffLlama.load(weights, { tokenizer: own });
    const stop = letters[end] ?? "";
    const tokens = await all(model.generate(prompt, { ...SAMPLED, maxNewTokens: 24, stop }));
    expect(tokens.at(-1)).toEqual({ id: end, text: "", index: 0, finish: "stop" });
    model.dispose();
  });
});

describe("the streamed text", () => {
  const marks = [" ", ".", "'", " n", "'t", " '", "s", "\u2581", "\u2581a", "b", " ,", "!", "re", "\u2581'", "ve"];
  const fallback = [...marks, ...[0xf0, 0x9f, 0x98, 0x80, 0xef, 0xbb, 0xbf, 0xff].map((x) => `<0x${x.toString(16).toUpperCase()}>`)];
  // Ids past these have no token.
  const decoders: Record<string, object> = {
    "byte fallback": {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "\u2581" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    Metaspace: { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always", split: true },
    WordPiece: { type: "WordPiece", prefix: "'", cleanup: true },
    "byte level": { type: "ByteLevel" },
  };

  test.each(Object.entries(decoders))("%s: decode(prompt + ids) from where decode(prompt) ends", async (_, decoder) => {
    for (const clean_up_tokenization_spaces of [false, true]) {
      const file = tokenizerJson(fallback, { decoder, post_processor: null, added_tokens: [added(3, " n", true), added(9, "b", false)] });
      const model = await load(file, { clean_up_tokenization_spaces });
      for (let seed = 0; seed < 12; seed++) {
        const prompt = [seed, (seed * 7) % 23, 90];
        const tokens = await all(model.generate(prompt, { ...SAMPLED, temperature: 50, seed, maxNewTokens: 30 }));
        const [before, whole] = [model.decode(prompt), model.decode([...prompt, ...tokens.map(({ id }) => id)])];
        let common = 0;
        while (common < before.length && before[common] === whole[common]) common++;
        expect(tokens.map(({ text }) => text).join("")).toBe(whole.slice(common));
      }
      model.dispose();
    }
  });
});

describe("options, and the empty text", () => {
  let model: Llama;
  const file = tokenizerJson(letters, { added_tokens: [bos] });
  const [start, first, second] = [VOCABULARY - 2, letters[0] ?? "", letters[1] ?? ""];
  beforeAll(async () => {
    model = await load(file);
  });
  afterAll(() => model.dispose());

  test("encode and decode with special tokens or without", async () => {
    expect(model.encode(first + second)).toEqual([start, 0, 1]);
    expect(model.encode(first + second, { addSpecialTokens: false })).toEqual([0, 1]);
    expect(model.decode([start, 0])).toBe(first);
    expect(model.decode([start, 0], { skipSpecialTokens: false })).toBe(`<s>${first}`);
    expect(await refused(() => model.encode("a", { special: 1 } as never))).toMatchObject({ code: "OPTION" });
    expect(await refused(() => model.decode([1], { skip_special_tokens: true } as never))).toMatchObject({ code: "OPTION" });
    expect(await refused(() => model.decode(null as never))).toMatchObject({ code: "DTYPE" });
    expect(await refused(() => model.generate([1], { addSpecialTokens: 1 as never }).next())).toMatchObject({ code: "OPTION" });
  });

  test("generate begins with what encode gives", async () => {
    const options = { ...SAMPLED, maxNewTokens: 6 };
    const of = async (prompt: string | number[], more: object = {}): Promise<unknown> =>
      all(model.generate(prompt, { ...options, ...more }));
    expect(await of(first)).toEqual(await of([start, 0]));
    expect(await of(first, { addSpecialTokens: false })).toEqual(await of([0]));
    expect(await of(first)).not.toEqual(await of([0]));
  });

  test("a tokenizer of the caller's own is given the options", async () => {
    const seen: unknown[] = [];
    const own: modelTypes.Tokenizer = {
      encode: (...given) => (seen.push(given), [1]),
      decode: (...given) => (seen.push(given.slice(1)), ""),
    };
    const other = await models.DiffLlama.load(weights, { tokenizer: own });
    other.encode("a");
    other.encode("a", { addSpecialTokens: false });
    other.decode([1], { skipSpecialTokens: false });
    await other.generate("b", { addSpecialTokens: false, maxNewTokens: 0 }).next();
    const given = [
      ["a", undefined],
      ["a", { addSpecialTokens: false }],
      [{ skipSpecialTokens: false }],
      ["b", { addSpecialTokens: false }],
    ];
    expect(seen.slice(0, 4)).toEqual(given);
    expect(await refused(() => other.encode("a", { other: 1 } as never))).toMatchObject({ code: "OPTION" });
    other.dispose();
  });

  test("the empty text is what is put around every text", async () => {
    expect(model.encode("")).toEqual([start]);
    const options = { ...SAMPLED, maxNewTokens: 4 };
    expect(await all(model.generate("", options))).toEqual(await all(model.generate([start], options)));
    const batch = await all(model.generate([first, ""], options));
    expect(batch.filter(({ index }) => index === 1).map(({ id }) => id)).toEqual(
      (await all(model.generate("", options))).map(({ id }) => id),
    );
  });

  test("a text of no ids is named", async () => {
    const said = async (prompt: Parameters<Llama["generate"]>[0]): Promise<string> => {
      const { code, message } = await refused(() => model.generate(prompt, { addSpecialTokens: false }).next());
      return `${code} ${message}`;
    };
    expect(await said("")).toBe("OPTION prompt: expected 1 id or more, got none");
    expect(await said([first, ""])).toBe("OPTION prompt[1]: expected 1 id or more, got none");
    expect(await said([[1], [2], []])).toBe("OPTION prompt[2]: expected 1 id or more, got none");
  });
});

describe("a tokenizer of strangers", () => {
  const evil = tokenizerJson(letters, {
    added_tokens: [bos],
    pre_tokenizer: { type: "Split", pattern: { Regex: "(a+)+b" }, behavior: "Isolated", invert: false },
  });

  test("its expressions are refused where the caller asks for it", async () => {
    (await load(evil)).dispose();
    expect(await refused(() => load(evil, {}, { tokenizerRegex: "known" }))).toMatchObject({
      code: "FILE",
      message: 'tokenizer.json pre_tokenizer: expected an expression of a published tokenizer (tokenizerRegex: "known"), got "(a+)+b"',
    });
    expect(await refused(() => load(evil, {}, { tokenizerRegex: "all" as never }))).toMatchObject({ code: "OPTION" });
    // The project's own model has a published one.
    const trained = await models.DiffLlama.load(fileURLToPath(new URL("../../examples/model", import.meta.url)), {
      tokenizerRegex: "known",
    });
    expect(trained.encode("A thread is").length).toBeGreaterThan(1);
    trained.dispose();
  });

  test("what is no tokenizer is FILE when a text is met, and ids still work", async () => {
    const model = await load({ ...evil, model: { type: "BPE", vocab: null } });
    expect(await refused(() => model.encode("a"))).toMatchObject({ code: "FILE" });
    expect((await model.forward([1])).shape).toEqual([1, 1, VOCABULARY]);
    model.dispose();
  });
});
