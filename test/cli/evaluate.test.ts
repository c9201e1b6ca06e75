// diffattn evaluate, as a user types it: the library's figures, in tables and in JSON; one model and
// two; what is refused.

import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { evaluateNeedle, evaluateText, LanguageModel } from "./models.js";
import { atTerminal, diffattn, folder, modelOf, trained } from "./run.js";

const dir = folder();
const within = (name: string): string => join(dir, name);
const TEXT = "Returns the number of elements in the vector, also referred to as its length.\n\n# Examples\n\n".repeat(12);
const text = within("text.txt");
const tokens = within("held-out.tokens");

// The plain Llama with a tokenizer, one letter per token, and positions for more.
const llama = within("llama");

beforeAll(async () => {
  writeFileSync(text, TEXT);
  cpSync(modelOf("llama"), llama, { recursive: true });
  const vocab = Object.fromEntries(Array.from({ length: 59 }, (_, id) => [String.fromCharCode(64 + id), id]));
  const parts = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: { type: "Fuse" } };
  writeFileSync(join(llama, "tokenizer.json"), JSON.stringify({ ...parts, model: { type: "BPE", vocab, merges: [] } }));
  using model = await LanguageModel.load(trained);
  const ids = model.encode(TEXT);
  const bytes = Buffer.alloc(32 + 2 * ids.length + 8);
  bytes.write("DATK");
  bytes.writeUInt32LE(1, 4);
  bytes.writeUInt32LE(2, 8);
  bytes.writeBigUInt64LE(BigInt(ids.length), 16);
  bytes.writeBigUInt64LE(1n, 24);
  ids.forEach((id, i) => bytes.writeUInt16LE(id, 32 + 2 * i));
  writeFileSync(tokens, bytes);
});

interface Told {
  task: string;
  data: string | null;
  models: (Record<string, unknown> & modelTypes.TextEvaluation & modelTypes.NeedleEvaluation)[];
  difference?: Record<string, number>;
}

async function json(...args: string[]): Promise<Told> {
  const { code, out, err } = await diffattn(["evaluate", ...args, "--json"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(out.trimEnd()).not.toContain("\n");
  return JSON.parse(out) as Told;
}

describe("the loss of a text", () => {
  test("is the library's", async () => {
    using model = await LanguageModel.load(trained);
    const found = await evaluateText(model, TEXT, { context: 100, limit: 300 });
    const told = await json(trained, "--data", text, "--context", "100", "--limit", "300");
    const { loss, perplexity, counted, tokens: read } = found;
    expect(told).toMatchObject({
      task: "text",
      data: text,
      models: [{ model: trained, family: "diffllama", dtype: "bfloat16", loss, perplexity, counted, tokens: read, context: 100 }],
    });
    expect(told.models[0]?.tokensPerSecond).toBeGreaterThan(0);
  });

  test.each(["native", "wasm"])("%s: in a table", async (backend) => {
    const { code, out, err } = await diffattn(["evaluate", trained, "--data", text, "--backend", backend, "--threads", "1"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(
      /^loss +\d\.\d{4} nats per token\nperplexity +\d+\.\d\d\ntokens +\d+ of \d+ count, in windows of 256\nspeed +[\d,.]+ tokens\/s\n$/,
    );
  });

  test("of a file of tokens, by its ending or by its beginning, and of standard input", async () => {
    const wanted = (await json(trained, "--data", text)).models[0]?.loss;
    expect((await json(trained, "--data", tokens)).models[0]?.loss).toBe(wanted);
    cpSync(tokens, within("held-out"));
    expect((await json(trained, "--data", within("held-out"))).models[0]?.loss).toBe(wanted);
    const { out } = await diffattn(["evaluate", trained, "--data", "-", "--json"], { input: TEXT });
    expect((JSON.parse(out) as Told).models[0]?.loss).toBe(wanted);
  });

  test("two models beside each other", async () => {
    const q8 = within("q8");
    expect((await diffattn(["convert", trained, q8, "--dtype", "q8"])).code).toBe(0);
    const { code, out, err } = await diffattn(["evaluate", trained, q8, "--data", text]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = out.split("\n");
    expect(lines.slice(0, 3)).toEqual([`A  ${trained}`, `B  ${q8}`, ""]);
    expect(lines[3]).toMatch(/^ +A +B +B − A$/);
    expect(lines.slice(4).map((line) => line.split(/ {2,}/)[0])).toEqual([
      "loss (nats)",
      "perplexity",
      "tokens that count",
      "windows of",
      "tokens/s",
      "",
    ]);
    const { models: both, difference } = await json(trained, q8, "--data", text);
    expect(both.map(({ model, dtype }) => [model, dtype])).toEqual([
      [trained, "bfloat16"],
      [q8, "q8"],
    ]);
    expect(difference?.["loss"]).toBe((both[1]?.loss ?? NaN) - (both[0]?.loss ?? NaN));
    expect(Math.abs(difference?.["loss"] ?? NaN)).toBeLessThan(0.05);
  });

  test("tokens of other kinds do not compare, which is said", async () => {
    writeFileSync(within("letters.txt"), "HELLOWORLD".repeat(20));
    const { code, out, err } = await diffattn(["evaluate", trained, llama, "--data", within("letters.txt")]);
    expect(code).toBe(0);
    // (Windows are those that both have.)
    expect(out).toMatch(/^windows of +64 +64$/m);
    expect(err).toBe("note: the models split the text into tokens of their own: losses per token do not compare\n");
  });
});

describe("needles", () => {
  const asked = ["--needle", "64,128", "--depths", "0,1/2,1", "--draws", "2"];

  test("are the library's", async () => {
    using model = await LanguageModel.load(trained);
    const { cells } = await evaluateNeedle(model, { lengths: [64, 128], depths: [0, 0.5, 1], draws: 2, seed: 5 });
    expect(await json(trained, ...asked, "--seed", "5")).toMatchObject({
      task: "needle",
      data: null,
      models: [{ model: trained, family: "diffllama", draws: 2, seed: 5, cells }],
    });
    const hidden = await json(trained, ...asked, "--data", text, "--attention", "0");
    expect(hidden).toMatchObject({ data: text });
    expect(hidden.models[0]?.cells.map(({ attention }) => attention)).toEqual(Array.from({ length: 6 }, () => null));
  });

  test("in a table: a line for each length and depth", async () => {
    const { code, out, err } = await diffattn(["evaluate", trained, ...asked]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = out.split("\n");
    expect(lines[0]).toMatch(/^length {2}depth +right +first map +second map +difference +even$/);
    expect(lines.slice(1, 7).map((line) => line.trim().split(/ {2,}/).slice(0, 3).join(" "))).toEqual(
      [64, 128].flatMap((length) => [0, 0.5, 1].map((depth) => `${length} ${depth} 0 of 2`)),
    );
    for (const line of lines.slice(1, 7)) expect(line).toMatch(/( +\d+\.\d % \(± \d+\.\d\)){3} +\d+\.\d %$/);
    expect(lines.slice(7)).toEqual([
      "",
      "Shares of the last token's attention on the needle: mean over 32 heads (± from head to head); even: if every token had as much.",
      "",
    ]);
  });

  test("two models: a line of each, with the maps that they have", async () => {
    const { code, out } = await diffattn(["evaluate", llama, trained, "--needle", "64", "--depths", "0", "--draws", "1"]);
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines.slice(0, 3)).toEqual([`A  ${llama}`, `B  ${trained}`, ""]);
    expect(lines[3]).toMatch(/^length {2}depth +right +map +first map +second map +difference +even$/);
    expect(lines[4]).toMatch(/^ +64 {2}0 +A +0 of 1 +\d+\.\d % \(± \d+\.\d\) +– +– +– +\d+\.\d %$/);
    expect(lines[5]).toMatch(/^ +B +0 of 1 +–( +\d+\.\d % \(± \d+\.\d\)){3} +\d+\.\d %$/);
  });

  test("no attention is looked at where none is asked for", async () => {
    const none = await diffattn(["evaluate", trained, "--needle", "64", "--draws", "1", "--depths", "0", "--attention", "0"]);
    expect(none).toMatchObject({ err: "", out: "length  depth   right\n    64  0      0 of 1\n" });
  });
});

test.each([
  [
    "a length beyond the model's",
    [trained, "--needle", "1k"],
    `--needle: expected at most 512 tokens (max_position_embeddings of ${trained}), got 1024`,
  ],
  [
    "a length beyond the second's",
    [trained, llama, "--needle", "128"],
    /--needle: expected at most 64 tokens \(max_position_embeddings of .*llama\), got 128/,
  ],
  [
    "a length that holds no needle",
    [trained, "--needle", "20"],
    /--needle: expected \d+ tokens or more, as needle and question have, got 20/,
  ],
  [
    "windows beyond the model's",
    [trained, "--data", text, "--context", "513"],
    `--context: expected at most 512 tokens (max_position_embeddings of ${trained}), got 513`,
  ],
  ["no such text", [trained, "--data", within("nowhere.txt")], `${within("nowhere.txt")}: cannot be read: there is no such file`],
  [
    "no such file of tokens",
    [trained, "--data", within("nowhere.tokens")],
    `${within("nowhere.tokens")}: cannot be read: there is no such file`,
  ],
  ["a folder for a text", [trained, "--data", dir], `${dir}: cannot be read: it is a folder`],
  [
    "a text called tokens",
    [trained, "--data", within("bad.tokens")],
    "bad.tokens: expected a file of tokens, which begins with DATK, got another",
  ],
  ["ids of another vocabulary", [llama, "--data", tokens], new RegExp(`held-out\\.tokens: expected ids from 0 to 58, got \\d+`)],
  [
    "a text of one token",
    [trained, "--data", within("short.txt")],
    `${within("short.txt")}: expected a text of 2 tokens or more, got 1 tokens`,
  ],
  ["no tokenizer", [modelOf("llama"), "--data", text], /tokenizer: expected .*, got none/],
  ["no tokenizer, of the second", [trained, modelOf("llama"), "--data", text], /models.llama: tokenizer: expected .*, got none/],
  ["a picture model", [modelOf("diff_vit"), "--data", text], /diff_vit: it is a DIFF vision transformer/],
])("%s: one sentence and code 1", async (_, args, sentence) => {
  writeFileSync(within("bad.tokens"), "0123456789".repeat(5));
  writeFileSync(within("short.txt"), "a");
  const { code, out, err } = await diffattn(["evaluate", ...args]);
  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(err).toMatch(sentence);
  expect(err.trimEnd()).not.toContain("\n");
});

test("at a terminal nothing but the table", () => {
  const { code, out } = atTerminal(["evaluate", trained, "--needle", "64", "--depths", "0", "--draws", "1"]);
  expect(code).toBe(0);
  expect(out).toMatch(/^length .*\n.*0 of 1.*\n\nShares of .*\ntook [\d.]+ m?s\n$/);
});
