// Llamas in GGUF files through the public API, on every backend: logits and ids against float64, ids
// of texts against other readers, what an inspection says, what is refused.

import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { within } from "./compare.js";
import { byteLevel, ggufOf, pieces, type Values } from "./gguf-file.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const CASES = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "untied", "rope_freqs", "split"];
const SPLIT = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"] as const;
const path = (name: string): string => fileURLToPath(new URL(`../../test/models/gguf/${name}`, import.meta.url));
const file = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(path(name)));
const first = (name: string): string => `${name}/${name === "split" ? SPLIT[0] : "model.gguf"}`;
const VOCAB = 97;
const NEW = 16;

const sentence = async (body: () => unknown): Promise<string> => {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
};

async function written(model: modelTypes.LanguageModel, prompt: number[]): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of model.generate(prompt, { maxNewTokens: NEW, stopIds: [] })) ids.push(id);
  return ids;
}

const lastLogits = async (source: Parameters<typeof models.LanguageModel.load>[0]): Promise<number[]> => {
  using model = await models.LanguageModel.load(source, { tokenizer: null });
  return [...(await model.forward([3, 4, 5], { logits: "last" })).data];
};

/** Serves the files of the cases, below /ranges/ by range, below /whole/ not. */
const server = createServer(({ url = "", headers }, response) => {
  const [, how = "", ...rest] = new URL(url, "http://localhost").pathname.split("/");
  let body: Uint8Array;
  try {
    body = file(rest.join("/"));
  } catch {
    return void response.writeHead(404).end();
  }
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? [];
  if (how === "whole" || first === undefined || last === undefined) return void response.writeHead(200).end(body);
  const end = Math.min(Number(last) + 1, body.length);
  response.writeHead(206, { "Content-Range": `bytes ${first}-${end - 1}/${body.length}` }).end(body.subarray(Number(first), end));
});
let origin = "";
/** Folders of GGUF files alone, by the names of cases. */
let folders = "";

beforeAll(async () => {
  folders = mkdtempSync(join(tmpdir(), "diffattn-gguf-"));
  for (const name of ["q4_0/model.gguf", ...SPLIT.map((name) => `split/${name}`)]) {
    mkdirSync(join(folders, name, ".."), { recursive: true });
    copyFileSync(path(name), join(folders, name));
  }
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  origin = `http://localhost:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folders, { recursive: true });
});

/** The tokenizer of a file with these values. */
async function tokenizerOf(
  { tokens, values }: { tokens: readonly string[]; values: Values },
  more: Values = {},
): Promise<modelTypes.Tokenizer> {
  using model = await models.LanguageModel.load(ggufOf(tokens.length, { ...values, ...more }));
  if (!model.tokenizer) throw new Error("no tokenizer");
  return model.tokenizer;
}

onEachIsa(() => {
  describe("a Llama in a GGUF file", () => {
    test.each(CASES)("%s: logits, the likeliest ids, ids of texts", async (name) => {
      const { options, tensors } = readFixture(file(`${name}/expected.safetensors`));
      const fixture = { options, tensors };
      const notices: string[] = [];
      using model = await models.LanguageModel.load(path(first(name)), { dtype: "float32", onNotice: (text) => notices.push(text) });
      expect(notices).toEqual([]);
      expect(model.family).toBe("llama");
      const { shape } = stored(fixture, "input_ids");
      const ids = integers(stored(fixture, "input_ids"));
      const y = await model.forward({ data: Int32Array.from(ids), shape });
      const want = float64(stored(fixture, "expected.logits"));
      expect(y.shape).toEqual([...shape, VOCAB]);
      const spread = Math.max(...want) - Math.min(...want);
      within(y.data, want, () => 2e-5 * spread);
      const greedy = integers(stored(fixture, "expected.greedy"));
      expect(await written(model, greedy.slice(0, -NEW))).toEqual(greedy.slice(-NEW));
      const { texts, decoded, chat } = options as { texts: string[]; decoded: string[]; chat: string };
      for (const [i, text] of texts.entries()) {
        const encoded = integers(stored(fixture, `expected.encode_${i}`));
        expect(model.encode(text)).toEqual(encoded);
        expect(model.decode(encoded)).toBe(decoded[i]);
      }
      expect(model.encode(chat, { addSpecialTokens: false })).toEqual(integers(stored(fixture, "expected.encode_chat")));
    });

    test("from a folder, bytes, a Blob, files by name, whichever of several is named", async () => {
      const want = await lastLogits(path("q4_0/model.gguf"));
      const bytes = file("q4_0/model.gguf");
      for (const source of [join(folders, "q4_0"), bytes, new Blob([bytes]), { "any.gguf": bytes }])
        expect(await lastLogits(source)).toEqual(want);
      const split = await lastLogits(path(`split/${SPLIT[0]}`));
      const parts = Object.fromEntries(SPLIT.map((name) => [name, file(`split/${name}`)]));
      for (const source of [join(folders, "split"), path(`split/${SPLIT[1]}`), parts]) expect(await lastLogits(source)).toEqual(split);
    });

    test("from an address, by range or whole", async () => {
      const want = await lastLogits(path("q4_1/model.gguf"));
      for (const how of ["ranges", "whole"]) expect(await lastLogits(`${origin}/${how}/q4_1/model.gguf`)).toEqual(want);
      const split = await lastLogits(join(folders, "split"));
      for (const name of SPLIT) expect(await lastLogits(new URL(`${origin}/ranges/split/${name}`))).toEqual(split);
      expect(await sentence(() => models.LanguageModel.load(`${origin}/ranges/f16/none.gguf`))).toMatch(/^FILE none\.gguf: /);
      const found = await models.inspectCheckpoint(`${origin}/ranges/q4_1/model.gguf`);
      expect(found).toEqual(await models.inspectCheckpoint(path("q4_1/model.gguf")));
    });

    test("a tokenizer of known expressions, one of the caller's, and none", async () => {
      using usual = await models.LanguageModel.load(path("f16/model.gguf"));
      using known = await models.LanguageModel.load(path("f16/model.gguf"), { tokenizerRegex: "known" });
      expect(known.encode("the cat")).toEqual(usual.encode("the cat"));
      expect(known.encode("the cat").length).toBeGreaterThan(1);
      const given: string[] = [];
      const own = { encode: () => [7], decode: () => "seven" };
      using made = await models.LanguageModel.load(path("f16/model.gguf"), {
        tokenizer: ({ json, config }) => {
          given.push(...[json, config].map((bytes) => Object.keys(JSON.parse(new TextDecoder().decode(bytes)) as object).join(" ")));
          return own;
        },
      });
      expect(made.encode("the cat")).toEqual([7]);
      expect(given).toEqual([
        "version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model",
        expect.stringContaining("chat_template"),
      ]);
      using unmade = await models.LanguageModel.load(path("f16/model.gguf"), { tokenizer: () => undefined });
      expect(unmade.encode("the cat")).toEqual(usual.encode("the cat"));
      const throwing = (): never => {
        throw new Error("no");
      };
      expect(await sentence(() => models.LanguageModel.load(path("f16/model.gguf"), { tokenizer: throwing }))).toBe(
        "OPTION tokenizer: expected a function that makes a tokenizer, got an exception: no",
      );
      using none = await models.LanguageModel.load(path("f16/model.gguf"), { tokenizer: null });
      expect(none.tokenizer).toBeNull();
    });

    test("its inspection", async () => {
      const found = await models.inspectCheckpoint(path("q4_1/model.gguf"));
      expect(found).toMatchObject({ architecture: "llama", missing: [], unexpected: [], warnings: [] });
      expect(found.dtypes.map(({ dtype, tensors }) => [dtype, tensors])).toEqual([
        ["Q4_1", 14],
        ["Q8_0", 1],
        ["F32", 5],
      ]);
      expect(found.dtypes[0]?.bytes).toBe(((found.dtypes[0]?.parameters ?? 0) / 32) * 20);
      expect(found.plainLayers).toHaveLength(2);
      expect(await models.inspectCheckpoint(file("q4_1/model.gguf"))).toEqual(found);
      const { tensors, ...rest } = await models.inspectCheckpoint(join(folders, "split"), { tensors: true });
      expect(rest).toEqual(await models.inspectCheckpoint(join(folders, "split")));
      expect(tensors).toHaveLength(21);
      expect(tensors?.find(({ name }) => name === "lm_head.weight")).toEqual({
        name: "lm_head.weight",
        dtype: "Q8_0",
        shape: [VOCAB, 64],
        byteLength: (VOCAB * 64 * 34) / 32,
        file: expect.stringMatching(/^model-0000[12]-of-00002\.gguf$/) as string,
      });
    });

    test("what is refused, and the next load is right", async () => {
      const bytes = file("q8_0/model.gguf");
      const load = (source: Parameters<typeof models.LanguageModel.load>[0]): Promise<string> =>
        sentence(() => models.LanguageModel.load(source));
      expect(await load({ "m.gguf": bytes.slice(0, 1000) })).toBe(
        "FILE m.gguf, tokenizer.ggml.tokens: expected a list within the 324 bytes behind it, got 97 values",
      );
      expect(await load({ "m.gguf": bytes.slice(0, -1) })).toMatch(/^FILE m\.gguf, tensor "blk\.1\..*expected its bytes within/);
      expect(await load({ "m.gguf": file("f16/expected.safetensors") })).toMatch(/^FILE m\.gguf: expected a GGUF file/);
      expect(await load({ [SPLIT[0]]: file(`split/${SPLIT[0]}`) })).toMatch(/^FILE model-00002-of-00002\.gguf: expected a file/);
      expect(await load(file(`split/${SPLIT[0]}`))).toBe("FILE source: expected the 2 files of its model (split.count), got 1");
      const other = bytes.slice();
      const at = Buffer.from(other).indexOf("smollm");
      other.set(new TextEncoder().encode("tekken"), at);
      expect(await load({ "m.gguf": other })).toMatch(/^FILE m\.gguf, tokenizer\.ggml\.pre: expected one of .*, got "tekken"$/);
      expect(await lastLogits({ "m.gguf": other })).toEqual(await lastLogits(bytes));
      expect(await sentence(() => models.openSafetensors(path("f16/model.gguf")))).toMatch(/expected a safetensors file, got a GGUF file/);
      expect(await sentence(() => models.DiffViT.load(path("f16/model.gguf")))).toMatch(/^FILE config\./);
    });
  });

  // What llama.cpp makes of the same files, by node-llama-cpp 3.21.1; of what is composed first,
  // Qwen's own tokenizer.
  describe("a tokenizer in a GGUF file", () => {
    const WORDS =
      "hello| world| hello|12345|45|Don't|'t|'T|DON'T|DON|.\n\n|!!\n|  |   | (|(x|x)| 12|\n\n|\n|...| ...|$$|==|a==b| $|café| 日本|_a| _|++x| +|l33t|33|123".split(
        "|",
      );
    const TEXTS = [
      "hello world 12345",
      "Don't DON'T",
      "hello.\n\n hello!!\n",
      "a (x) $5 ==b",
      "   hello",
      "l33t 12 12345",
      "++x += y_a _",
      " ... \n\n x",
      "x$$y <= z",
    ];
    const SAME = { "   hello": "ĠĠ|Ġ|hello", " ... \n\n x": "Ġ|...|Ġ|ĊĊ|Ġ|x", "hello.\n\n hello!!\n": "hello|.|ĊĊ|Ġ|hello|!!|Ċ" };
    const GPT2 = {
      ...SAME,
      "a (x) $5 ==b": "a|Ġ(|x|)|Ġ$|5|Ġ|==|b",
      "Don't DON'T": "Don|'t|Ġ|DON|'|T",
      "++x += y_a _": "++|x|Ġ+|=|Ġ|y|_|a|Ġ_",
      "x$$y <= z": "x|$$|y|Ġ|<|=|Ġ|z",
    };
    const SINGLE = { "hello world 12345": "hello|Ġworld|Ġ|1|2|3|4|5", "l33t 12 12345": "l|3|3|t|Ġ|1|2|Ġ|1|2|3|4|5" };
    const BY_THREE = { "hello world 12345": "hello|Ġworld|Ġ|123|45", "l33t 12 12345": "l|33|t|Ġ|12|Ġ|123|45" };
    const ANY_CASE = {
      "Don't DON'T": "Don|'t|Ġ|DON|'T",
      "++x += y_a _": "++|x|Ġ+|=|Ġ|y|_a|Ġ_",
      "hello.\n\n hello!!\n": "hello|.ĊĊ|Ġ|hello|!!Ċ",
    };
    const WHOLE = { "   hello": "ĠĠ|Ġhello", "hello.\n\n hello!!\n": "hello|.ĊĊ|Ġhello|!!Ċ", " ... \n\n x": "Ġ...|Ġ|ĊĊ|Ġ|x" };
    const DEFAULT = {
      "Don't DON'T": "Don|'|t|Ġ|DON|'|T",
      "a (x) $5 ==b": "a|Ġ|(|x|)|Ġ|$|5|Ġ|==|b",
      "++x += y_a _": "++|x|Ġ|+|=|Ġ|y|_|a|Ġ|_",
    };
    const pres: [pre: string | undefined, want: Record<string, string>][] = [
      [undefined, { ...GPT2, ...BY_THREE, ...DEFAULT }],
      ["default", { ...GPT2, ...BY_THREE, ...DEFAULT }],
      ["gpt-2", { ...GPT2, "hello world 12345": "hello|Ġworld|Ġ|12345", "l33t 12 12345": "l|33|t|Ġ|12|Ġ|12345" }],
      ["smollm", { ...GPT2, ...SINGLE }],
      ["llama-bpe", { ...GPT2, ...BY_THREE, ...ANY_CASE, ...WHOLE }],
      ["qwen2", { ...GPT2, ...SINGLE, ...ANY_CASE }],
    ];
    test.each(pres)("gpt2, pre %s", async (pre, want) => {
      const made = byteLevel(pre, WORDS);
      const tokenizer = await tokenizerOf(made, { "tokenizer.ggml.add_bos_token": false });
      const got = TEXTS.map((text) => tokenizer.encode(text));
      expect(got.map((ids) => Array.from(ids, (id) => made.tokens[id]).join("|"))).toEqual(TEXTS.map((text) => want[text]));
      expect(got.map((ids) => tokenizer.decode(ids))).toEqual(TEXTS);
      const composed = tokenizer.decode(tokenizer.encode("e\u0301"));
      expect(composed).toBe(pre === "qwen2" ? "\u00e9" : "e\u0301");
      using known = await models.LanguageModel.load(ggufOf(made.tokens.length, made.values), { tokenizerRegex: "known" });
      expect(known.encode("hello world")).toEqual(tokenizer.encode("hello world"));
    });

    test("special tokens, of types 3 and 4, before all else; what begins and ends a text", async () => {
      const made = byteLevel("smollm", ["hello", " x"], ["<|a|>", "<|b|>"]);
      const id = (token: string): number => made.tokens.indexOf(token);
      const types = made.tokens.map((token) => (token === "<|a|>" ? 3 : token === "<|b|>" ? 4 : 1));
      const more: Values = {
        "tokenizer.ggml.token_type": { i32s: types },
        "tokenizer.ggml.bos_token_id": { u32: id("<|a|>") },
        "tokenizer.ggml.eos_token_id": { u32: id("<|b|>") },
      };
      const plain = await tokenizerOf(made, more);
      const text = "hello<|a|>hello<|b|> x";
      const ids = [id("hello"), id("<|a|>"), id("hello"), id("<|b|>"), id("Ġx")];
      expect(plain.encode(text)).toEqual(ids);
      expect(plain.decode(ids)).toBe("hellohello x");
      expect(plain.decode(ids, { skipSpecialTokens: false })).toBe(text);
      const begins = await tokenizerOf(made, { ...more, "tokenizer.ggml.add_bos_token": true });
      expect(begins.encode("hello")).toEqual([id("<|a|>"), id("hello")]);
      expect(begins.encode("hello", { addSpecialTokens: false })).toEqual([id("hello")]);
      const both = await tokenizerOf(made, { ...more, "tokenizer.ggml.add_bos_token": true, "tokenizer.ggml.add_eos_token": true });
      expect(both.encode("hello")).toEqual([id("<|a|>"), id("hello"), id("<|b|>")]);
    });

    test("llama: scores, bytes for what no piece has, the space before a text", async () => {
      const made = pieces("▁t he ▁the in er ▁c at ▁cat cat ing ▁▁ ▁▁▁▁ aaa aa ▁ e t a n s c i h r g é 日".split(" "));
      const tokenizer = await tokenizerOf(made);
      const told = (ids: ArrayLike<number>): string => Array.from(ids, (id) => made.tokens[id]).join("|");
      const cases = {
        "the cat": "▁the|▁cat",
        " the  cat": "▁|▁the|▁|▁cat",
        "thing in the cater": "▁t|h|ing|▁|in|▁the|▁cat|er",
        "aaaa aaaaa": "▁|aaa|a|▁|aaa|aa",
        "naïve café 日本": "▁|n|a|<0xC3>|<0xAF>|<0x76>|e|▁c|a|<0x66>|é|▁|日|<0xE6>|<0x9C>|<0xAC>",
        "a\nb": "▁|a|<0x0A>|<0x62>",
        "😀": "▁|<0xF0>|<0x9F>|<0x98>|<0x80>",
        "a    b": "▁|a|▁▁▁▁|<0x62>",
      };
      for (const [text, want] of Object.entries(cases)) {
        const ids = tokenizer.encode(text, { addSpecialTokens: false });
        expect(told(ids)).toBe(want);
        expect(tokenizer.decode(ids)).toBe(text);
        expect(told(tokenizer.encode(text))).toBe(`<s>|${want}`);
      }
      expect(told(tokenizer.encode("<s>the</s> cat", { addSpecialTokens: false }))).toBe("<s>|▁the|</s>|▁|▁cat");
      const bare = await tokenizerOf(made, { "tokenizer.ggml.add_space_prefix": false, "tokenizer.ggml.add_bos_token": false });
      for (const [text, want] of Object.entries({
        "the cat": "t|he|▁cat",
        " the  cat": "▁the|▁|▁cat",
        naïve: "n|a|<0xC3>|<0xAF>|<0x76>|e",
      })) {
        expect(told(bare.encode(text))).toBe(want);
        expect(bare.decode(bare.encode(text))).toBe(text);
      }
    });
  });
});
