// Models whose words, names and labels hold what terminals obey, shown in a pseudo terminal, in a
// pipe and in files.

import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseHTML } from "linkedom";
import { PNG } from "pngjs";
import { SaxesParser } from "saxes";
import { describe, expect, test } from "vitest";
import type { Inspection } from "../../packages/diffattn/src/models/types.js";
import { atTerminal, diffattn, folder, modelOf } from "./run.js";

const out = folder();

/**
 * Sets the title of a window, turns text red (in seven bits and in eight), clears the screen, goes
 * back, turns text around.
 */
const TRICKS = ["\u001b]0;owned\u0007", "\u001b[31m", "\u009b31m", "\u001bc", "x\rgone", "\b\u007f", "\u202e\u2066", "\u0000\f\u0085"];
const ALL = TRICKS.join("");

/** Everything that a terminal obeys, and the one thing that turns lines around. */
// eslint-disable-next-line no-control-regex
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

const json = (path: string): Record<string, unknown> => JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;

/** A safetensors file of one number per name. */
function safetensors(names: readonly string[]): Buffer {
  const entries = names.map((name, i) => [name, { dtype: "F32", shape: [1], data_offsets: [4 * i, 4 * i + 4] }]);
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, Buffer.alloc(4 * names.length)]);
}

/** The characters that byte-level tokenizers write bytes as. */
function byteLevel(text: string): string {
  let others = 0;
  const characters = Array.from({ length: 256 }, (_, byte) => {
    const isPlain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(isPlain ? byte : 256 + others++);
  });
  return Array.from(Buffer.from(text), (byte) => characters[byte]).join("");
}

// A language model all of whose tokens are tricks, but for the one that the prompt is of.
const words = join(out, "words");
cpSync(modelOf("diffllama_mha"), words, { recursive: true });
const texts = Array.from({ length: 97 }, (_, id) => (id === 0 ? "a" : `${TRICKS[id % TRICKS.length] ?? ""}${id}`));
writeFileSync(
  join(words, "tokenizer.json"),
  JSON.stringify({
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    post_processor: null,
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", vocab: Object.fromEntries(texts.map((text, id) => [byteLevel(text), id])), merges: [], ignore_merges: true },
  }),
);

// A vision transformer that sees them.
const labels = join(out, "labels");
cpSync(modelOf("diff_vit"), labels, { recursive: true });
writeFileSync(
  join(labels, "config.json"),
  JSON.stringify({ ...json(join(labels, "config.json")), label_names: Array.from({ length: 10 }, (_, i) => `${ALL}${i}\nwarning: ours`) }),
);
const picture = join(out, `cat${ALL.replaceAll("\u0000", "")}.png`);
writeFileSync(picture, PNG.sync.write(new PNG({ width: 64, height: 64 })));

const names = [...TRICKS, `${ALL}\nwarning: ours`];
const tensors = join(out, "names.safetensors");
writeFileSync(tensors, safetensors(names));

const absent = join(out, ALL.replaceAll("\u0000", ""));

/** Commands that show what somebody else wrote. */
const commands: Record<string, string[]> = {
  "inspect --tensors": ["inspect", tensors, "--tensors"],
  "inspect --json": ["inspect", tensors, "--tensors", "--json"],
  "inspect of a folder that is not there": ["inspect", absent],
  generate: ["generate", words, "a", "-n", "24"],
  "generate --json": ["generate", words, "a", "-n", "24", "--json"],
  "classify --json": ["classify", labels, picture, "--json"],
  classify: ["classify", labels, picture, picture],
  "classify of no picture": ["classify", labels, absent],
  "maps as HTML": ["maps", words, texts[1] ?? ""],
  "maps as SVG": ["maps", words, texts[1] ?? "", "--format", "svg", "--head", "0"],
  "maps as JSON": ["maps", words, texts[1] ?? "", "--format", "json"],
  "maps into no folder": ["maps", words, "a", "-o", join(absent, "a.html")],
  "evaluate of no text": ["evaluate", words, "--data", absent],
  "evaluate beside no model": ["evaluate", words, absent, "--needle", "64"],
  "a command that is none": [absent],
  "an option that is none": ["doctor", `--${ALL.replaceAll("\u0000", "")}`],
  "--verbose": ["inspect", absent, "--verbose"],
};

describe.each(Object.entries(commands))("%s", (name, args) => {
  test("a terminal obeys nothing of it", () => {
    const { out } = atTerminal(args);
    expect(out.length).toBeGreaterThan(0);
    expect(OBEYED.exec(out), out).toBe(null);
    if (!name.startsWith("maps as")) expect(out).toMatch(/\\u001b/);
  });

  test("nor of a pipe, which gets a model's text alone as it is", async () => {
    const { out, err } = await diffattn(args);
    expect(OBEYED.exec(err), err).toBe(null);
    if (name === "generate") expect(TRICKS.some((trick) => out.includes(trick))).toBe(true);
    else expect(OBEYED.exec(out), out).toBe(null);
  });
});

test("an environment's settings are shown, not obeyed", () => {
  const { code, out } = atTerminal(["doctor"], { environment: { DIFFATTN_ISA: `sse${ALL.replaceAll("\u0000", "")}` } });
  expect(code).toBe(1);
  expect(OBEYED.exec(out), out).toBe(null);
});

test("a name cannot make a line that seems to be ours", async () => {
  const { out } = await diffattn(["inspect", tensors, "--tensors"]);
  expect(out).toContain("\\u000awarning: ours");
  expect(out).not.toMatch(/^warning: ours/m);
  const { out: classes } = await diffattn(["classify", labels, picture]);
  expect(classes.trimEnd().split("\n")).toHaveLength(5);
});

test("JSON says what there is, at a terminal too", async () => {
  for (const { out: told } of [
    await diffattn(["inspect", tensors, "--tensors", "--json"]),
    atTerminal(["inspect", tensors, "--tensors", "--json"]),
  ]) {
    const found = JSON.parse(told) as Inspection & { tensors: { name: string }[] };
    expect(found.tensors.map(({ name }) => name).sort()).toEqual([...names].sort());
  }
  const [piped, shown] = [await diffattn(commands["generate --json"] ?? []), atTerminal(commands["generate --json"] ?? [])].map(
    ({ out }) => (/^\{.*\}$/m.exec(out) ?? [""])[0],
  );
  const textOf = (told = ""): { text: string; ids: number[] } => JSON.parse(told) as { text: string; ids: number[] };
  expect(textOf(shown).text).toBe(textOf(piped).text);
  expect(textOf(piped).text).toBe(
    textOf(piped)
      .ids.map((id) => texts[id])
      .join(""),
  );
});

test("a file holds the text as the model wrote it", async () => {
  const { out: text } = await diffattn(["generate", words, "a", "-n", "24"]);
  const { out: told } = await diffattn(["generate", words, "a", "-n", "24", "--json"]);
  expect(text).toBe((JSON.parse(told) as { text: string }).text);
});

test("pictures of such tokens are XML, and pages show signs for them", async () => {
  const file = join(out, "head.svg");
  expect(await diffattn(["maps", words, texts[1] ?? "", "--head", "0", "-o", file])).toMatchObject({ code: 0, err: "" });
  const errors: string[] = [];
  const parser = new SaxesParser();
  parser.on("error", ({ message }) => void errors.push(message));
  parser.write(readFileSync(file, "utf8")).close();
  expect(errors).toEqual([]);
  const { out: page } = await diffattn(["maps", words, texts[1] ?? ""]);
  expect(parseHTML(page).document.querySelector("pre")?.textContent).toBe("␛[31m1");
});

describe("a file that is there", () => {
  const text = ["maps", words, "a"];

  test("stays, unless --force says otherwise", async () => {
    const file = join(out, "taken.html");
    writeFileSync(file, "mine");
    expect(await diffattn([...text, "-o", file])).toMatchObject({
      code: 1,
      out: "",
      err: `diffattn: ${file}: it is there already; --force replaces it\n`,
    });
    expect(readFileSync(file, "utf8")).toBe("mine");
    expect(await diffattn([...text, "-o", file, "--force"])).toMatchObject({ code: 0, err: "" });
    expect(readFileSync(file, "utf8")).toMatch(/^<!doctype html>/);
  });

  test.each(["model.safetensors", "config.json", "tokenizer.json"])("%s of the model stays, whatever is forced", async (name) => {
    const before = readFileSync(join(words, name));
    const { code, err } = await diffattn([...text, "--format", "json", "-o", join(words, name), "--force"]);
    expect(code).toBe(2);
    expect(err).toMatch(/which the command reads; choose another name\n$/);
    expect(readFileSync(join(words, name)).equals(before)).toBe(true);
  });

  test("the picture that is looked at stays", async () => {
    const before = readFileSync(picture);
    expect((await diffattn(["maps", labels, picture, "-o", picture, "--force"])).code).toBe(2);
    expect(readFileSync(picture).equals(before)).toBe(true);
  });

  test("what convert would lay beside the weights stays", async () => {
    const project = join(out, "project");
    mkdirSync(project);
    writeFileSync(join(project, "config.json"), "mine");
    writeFileSync(join(project, "model.safetensors.part"), "half of another");
    expect(await diffattn(["convert", words, project, "--dtype", "f16"])).toMatchObject({
      code: 1,
      err: `diffattn: ${join(project, "config.json")}: it is there already; --force replaces it\n`,
    });
    expect(readFileSync(join(project, "config.json"), "utf8")).toBe("mine");
    expect(existsSync(join(project, "model.safetensors"))).toBe(false);
    expect((await diffattn(["convert", words, project, "--dtype", "f16", "--force"])).code).toBe(0);
    expect(json(join(project, "config.json"))).toMatchObject({ dtype: "float16" });
    expect(readFileSync(join(project, "model.safetensors.part"), "utf8")).toBe("half of another");
  });
});
