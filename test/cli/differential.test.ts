// diffattn convert --to and --fold, as a user types them.

import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { diffattn, folder, modelOf, trained } from "./run.js";

const llama = modelOf("llama");
const dir = folder();
const within = (name: string): string => join(dir, name);
const same = (path: string, name: string): boolean =>
  readFileSync(join(path, "model.safetensors")).equals(readFileSync(join(modelOf(`diffattn_llama/${name}`), "model.safetensors")));

test("an exact start is verified", async () => {
  const { code, out, err } = await diffattn(["convert", llama, within("exact"), "--to", "diff", "--share", "1/1", "--verify"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const lines = out.split("\n");
  expect(lines[0]).toMatch(/^largest logit difference: \d\.\de-\d+ \(\d\.\de-\d+ of the largest logit\)$/);
  expect(lines.slice(1)).toEqual(["the same 64 tokens after it: yes", "exact start: yes", ""]);
  expect(readdirSync(within("exact")).sort()).toEqual(["config.json", "model.safetensors"]);
  expect(same(within("exact"), "v2_mirror")).toBe(true);
});

test("the last half of the heads by default; any λ; what is rounded is said", async () => {
  const { code, out, err } = await diffattn(["convert", llama, within("half"), "--to", "diff", "--lambda", "0.3", "--verify"]);
  expect(code).toBe(0);
  expect(err).toMatch(/^note: o_proj was divided by 1 − λ = 0\.\d+ and rounded once/);
  expect(out).toMatch(/exact start: no\n$/);
  const { out: shown } = await diffattn(["inspect", within("half")]);
  expect(shown).toContain("differential (V2, λ by sigmoid): 3–5");
});

test("kinds and starts", async () => {
  for (const [name, ...args] of [
    ["v1", "--kind", "v1", "--start", "zero"],
    ["mix", "--start", "mix", "--seed", "4"],
    ["dex", "--kind", "dex", "--select", "first"],
    ["bf16", "--dtype", "bfloat16"],
  ] as const) {
    const { code, out, err } = await diffattn(["convert", llama, within(name), "--to", "diff", ...args, "--verify"]);
    expect({ name, code, err: code === 0 ? "" : err }).toEqual({ name, code: 0, err: "" });
    expect(out).toMatch(name === "bf16" ? /exact start: no\n$/ : /exact start: yes\n$/);
  }
});

test("diffllama is measured unasked", async () => {
  const { code, out, err } = await diffattn(["convert", llama, within("hf"), "--to", "diffllama"]);
  expect(code).toBe(0);
  expect(err).toMatch(/^note: diffllama has a norm, .* computes something else than the Llama until it is trained\n$/);
  expect(out).toMatch(/^largest logit difference: \d/);
  expect(out).toMatch(/exact start: no\n$/);
});

test("DEX folded is the Llama of the reference", async () => {
  const { code, err } = await diffattn(["convert", modelOf("diffattn_llama/dex_trained"), within("folded"), "--fold", "--verify"]);
  expect({ code, err }).toEqual({ code: 0, err: "note: the columns of these heads in o_proj were multiplied and rounded once\n" });
  expect(same(within("folded"), "dex_folded")).toBe(true);
});

test("entropy over a text, with the tokenizer of the source, which comes along", async () => {
  // A Llama of the tokenizer's vocabulary is none of the fixtures: the tiny one with fewer words.
  const source = within("with-tokenizer");
  cpSync(llama, source, { recursive: true });
  const vocab = Object.fromEntries(Array.from({ length: 26 }, (_, i) => [String.fromCharCode(97 + i), i]));
  const tokenizer = {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: { type: "BPE", unk_token: null, vocab, merges: [] },
  };
  writeFileSync(join(source, "tokenizer.json"), JSON.stringify(tokenizer));
  const text = within("text.txt");
  writeFileSync(text, "thequickbrownfoxjumpsoverthelazydog");
  const target = within("entropy");
  const { code, err } = await diffattn(["convert", source, target, "--to", "diff", "--select", "entropy", "--text", text, "--verify"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(existsSync(join(target, "tokenizer.json"))).toBe(true);
  const { diff_attention } = JSON.parse(readFileSync(join(target, "config.json"), "utf8")) as { diff_attention: { heads: number[][] } };
  expect(diff_attention.heads.map((list) => list.length)).toEqual([3, 3]);
});

test("what cannot be meant is one line, and leaves nothing", async () => {
  const refused = async (...args: string[]): Promise<string> => {
    const { code, err, out } = await diffattn(["convert", llama, within("nothing"), ...args]);
    expect(code).not.toBe(0);
    expect(out).toBe("");
    expect(existsSync(within("nothing"))).toBe(false);
    return `${code} ${err}`;
  };
  expect(await refused("--kind", "v2")).toBe(
    "2 diffattn: convert: expected --to diff or --to diffllama with the options of a conversion, got neither\n",
  );
  expect(await refused("--fold", "--to", "diff")).toBe("2 diffattn: convert: --fold stands alone; it takes --text and --verify\n");
  expect(await refused("--to", "diff", "--select", "entropy")).toBe(
    "2 diffattn: convert: --select entropy needs --text, a file over which it is measured\n",
  );
  expect(await refused("--to", "diff", "--share", "3/2")).toMatch(/^2 diffattn: .*Expected a share from 0 to 1/);
  expect(await refused("--to", "diff", "--kind", "v1", "--share", "1/2")).toBe(
    '1 diffattn: heads: expected all heads of a layer or none, with "v1", got some\n',
  );
  expect(await refused("--to", "diff", "--text", join(llama, "config.json"))).toMatch(
    /^1 diffattn: --text: expected a source with a tokenizer/,
  );
  const { code, err } = await diffattn(["convert", trained, within("nothing"), "--to", "diff"]);
  expect(`${code} ${err}`).toMatch(/^1 diffattn: source: expected a plain Llama \(model_type "llama"\), got Hugging Face diffllama\n$/);
});

test("what is there stays, unless it is forced", async () => {
  const target = within("there");
  const convert = (...args: string[]): ReturnType<typeof diffattn> => diffattn(["convert", llama, target, "--to", "diff", ...args]);
  expect((await convert()).code).toBe(0);
  const before = readFileSync(join(target, "model.safetensors"));
  const { code, err } = await convert("--share", "1");
  expect(`${code} ${err}`).toMatch(/^1 .*model\.safetensors: it is there already; --force replaces it\n$/);
  expect(readFileSync(join(target, "model.safetensors")).equals(before)).toBe(true);
  expect((await convert("--share", "1", "--force")).code).toBe(0);
  expect(same(target, "v2_mirror")).toBe(true);
  rmSync(target, { recursive: true });
});
