// What becomes of names that are taken, of links, and of what a command reads.

import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { wholeFile } from "../models/whole-file.js";
import { Failure, UsageError } from "./failure.js";
import { checkOutput, checkpointFiles, writeOutput } from "./output.js";

let folder = "";
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "diffattn-output-")));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string): string => join(folder, name);
const read = (name: string): string => readFileSync(at(name), "utf8");

test("a file is there once it is whole, and nothing else", async () => {
  await checkOutput(at("a.html"), { inputs: [] });
  await writeOutput(at("a.html"), "new", false);
  expect([readdirSync(folder), read("a.html")]).toEqual([["a.html"], "new"]);
  const file = await wholeFile(at("b"), false);
  await file.write(Buffer.from("half"));
  expect(readdirSync(folder)).not.toContain("b");
  await file.drop();
  expect(readdirSync(folder)).toEqual(["a.html"]);
});

test("a name that is taken is refused, unless it may be replaced", async () => {
  writeFileSync(at("a"), "mine");
  await expect(checkOutput(at("a"), { inputs: [] })).rejects.toThrow(new Failure(`${at("a")}: it is there already; --force replaces it`));
  await expect(writeOutput(at("a"), "new", false)).rejects.toThrow("it is there already");
  expect(read("a")).toBe("mine");
  await checkOutput(at("a"), { inputs: [], force: true });
  await writeOutput(at("a"), "new", true);
  expect([read("a"), readdirSync(folder)]).toEqual(["new", ["a"]]);
});

test("a name that is taken meanwhile stays", async () => {
  const file = await wholeFile(at("a"), false);
  await file.write(Buffer.from("new"));
  writeFileSync(at("a"), "mine");
  await expect(file.end()).rejects.toMatchObject({ code: "EEXIST" });
  expect([read("a"), readdirSync(folder)]).toEqual(["mine", ["a"]]);
});

test.each(["there", "nowhere"])("a link to what is %s is a name that is taken; what it leads to is not written", async (where) => {
  writeFileSync(at("there"), "mine");
  symlinkSync(where, at("link"));
  await expect(checkOutput(at("link"), { inputs: [] })).rejects.toThrow("it is there already");
  await writeOutput(at("link"), "new", true);
  expect(lstatSync(at("link")).isSymbolicLink()).toBe(false);
  expect([read("link"), read("there"), readdirSync(folder)]).toEqual(["new", "mine", ["link", "there"]]);
});

test("what is no file is refused, whatever is forced", async () => {
  mkdirSync(at("folder"));
  symlinkSync("/dev/null", at("null"));
  symlinkSync("folder", at("to-folder"));
  for (const path of [at("folder"), at("to-folder"), at("null"), "/dev/null", "/dev/stdout"]) {
    await expect(checkOutput(path, { inputs: [], force: true }), path).rejects.toThrow(
      /cannot be written: it is a (folder|device or a pipe)/,
    );
    await expect(writeOutput(path, "new", true), path).rejects.toThrow(/cannot be written/);
  }
  expect(lstatSync("/dev/null").isCharacterDevice()).toBe(true);
  await expect(checkOutput(at("no/a"), { inputs: [] })).rejects.toThrow("no/a: cannot be written: there is no such folder");
  await checkOutput(at("no/a"), { inputs: [], makesFolder: true });
});

test("what a command reads is not what it writes, by any name", async () => {
  mkdirSync(at("model"));
  for (const name of ["model-00001-of-00002.safetensors", "config.json", "tokenizer.json", "maps.html", "maps.json"])
    writeFileSync(at(`model/${name}`), name);
  symlinkSync("model", at("other"));
  symlinkSync("model/config.json", at("link.html"));
  linkSync(at("model/tokenizer.json"), at("second.html"));
  writeFileSync(at("picture.png"), "");
  const inputs = [...(await checkpointFiles(at("model"))), at("picture.png")];
  const own = [
    "model/model-00001-of-00002.safetensors",
    "model/../model/config.json",
    "other/tokenizer.json",
    "link.html",
    "second.html",
    "picture.png",
  ];
  for (const name of own) {
    const refused = checkOutput(`${folder}/${name}`, { inputs, force: true });
    await expect(refused, name).rejects.toThrow(UsageError);
    await expect(refused, name).rejects.toThrow(/which the command reads; choose another name$/);
  }
  // What others put beside a model is not the model's.
  for (const name of ["model/maps.html", "model/maps.json"]) await checkOutput(at(name), { inputs, force: true });
  expect(await checkpointFiles("https://example.org/model/")).toEqual([]);
  expect(await checkpointFiles(at("model/config.json"))).toContain(at("model/model-00001-of-00002.safetensors"));
});
