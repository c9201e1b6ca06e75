// Models of the hub at the command line: download, and names in the place of paths.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { commitOf, filesOf, type Hub, serveHub } from "../hub/hub.mjs";
import { diffattn, type Ended, folder, modelOf, trained } from "./run.js";

const work = folder();
let hub: Hub;
let count = 0;
let environment: Record<string, string>;

beforeAll(async () => {
  const main = commitOf(filesOf(trained));
  hub = await serveHub({
    "org/model": { revisions: { main, "v1.0": main } },
    "org/llama": { revisions: { main: commitOf(filesOf(modelOf("llama"))) } },
    "org/gguf": { revisions: { main: commitOf(filesOf(modelOf("gguf/q4_1"))) } },
    "org/private": { isPrivate: true, revisions: { main } },
  });
});
afterAll(() => hub.close());
beforeEach(() => {
  hub.requests.length = 0;
  environment = { HF_ENDPOINT: hub.address, HF_HOME: join(work, `home-${(count += 1)}`), HF_TOKEN: "", HF_HUB_OFFLINE: "" };
});

const run = (args: string[], more: Record<string, string> = {}): Promise<Ended> =>
  diffattn(args, { environment: { ...environment, ...more }, cwd: work });

test("download prints where it lies, and generate reads it there without the hub", async () => {
  const { code, out, err } = await run(["download", "org/model", "--revision", "v1.0"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const path = out.trim();
  expect(path).toMatch(/hub\/models--org--model\/snapshots\/[0-9a-f]{40}$/);
  expect(readFileSync(join(path, "config.json")).equals(readFileSync(join(trained, "config.json")))).toBe(true);
  hub.requests.length = 0;
  const written = await run(["generate", "org/model@v1.0", "Returns the number of", "-n", "6"], { HF_HUB_OFFLINE: "1" });
  expect(written).toMatchObject({ code: 0, out: " bytes.\n\n# Examples", err: "" });
  expect(hub.requests).toEqual([]);
});

test("some files, as JSON, of what is private", async () => {
  const { code, out } = await run(["download", "org/private", "--token", "hf_good", "--include", "*.json", "--include", "READ*", "--json"]);
  expect(code).toBe(0);
  const { files, path } = JSON.parse(out) as { files: string[]; path: string };
  expect([...files].sort()).toEqual(["README.md", "config.json", "generation_config.json", "tokenizer.json"]);
  expect(readdirSync(path).sort()).toEqual([...files].sort());
});

test("every command takes a name", async () => {
  expect((await run(["inspect", "org/llama"])).out).toMatch(/^architecture +llama$/m);
  expect((await run(["inspect", "hf:org/gguf/model.gguf"])).out).toMatch(/Q4_1: 14 tensors/);
  expect((await run(["generate", "https://huggingface.co/org/gguf/blob/main/model.gguf", "the cat", "-n", "4"])).code).toBe(0);
  expect((await run(["maps", "hf:org/model", "Returns", "--format", "json"])).code).toBe(0);
  const converted = join(work, "converted");
  expect(await run(["convert", "org/llama", converted, "--to", "diff"])).toMatchObject({ code: 0 });
  expect(existsSync(join(converted, "model.safetensors"))).toBe(true);
  const quantised = join(work, "quantised");
  expect(await run(["convert", "hf:org/model@v1.0", quantised, "--dtype", "f32"])).toMatchObject({ code: 0 });
  // What lies beside the weights comes along.
  expect(readdirSync(quantised).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]);
});

test.each([
  [
    "none of that name",
    ["generate", "org/none", "a"],
    {},
    /^diffattn: source: expected a model that may be read at .*\/org\/none, got none of that name, or one that wants a token .*\n$/,
  ],
  ["no such revision", ["inspect", "org/model@v2"], {}, /^diffattn: revision: expected a branch, a tag or a commit of .*, got "v2"\n$/],
  [
    "offline",
    ["generate", "hf:org/model@main", "a"],
    { HF_HUB_OFFLINE: "1" },
    /^diffattn: source: expected org\/model, revision main, in the cache .*HF_HUB_OFFLINE is set\n$/,
  ],
  [
    "no hub",
    ["download", "org/model"],
    { HF_ENDPOINT: "http://127.0.0.1:9" },
    /^diffattn: source: expected an answer from http:\/\/127\.0\.0\.1:9, or .*\n$/,
  ],
  ["a wrong name", ["download", "hf:a/../b"], {}, /^diffattn: source: expected .*\n$/],
  ["a path", ["download", trained], {}, /^diffattn: source: expected a model of the hub, .*\n$/],
  [
    "no file of that name",
    ["download", "org/model", "--include", "*.gguf"],
    {},
    /^diffattn: include: expected names of files of hf:org\/model, got none of \d+ that fits\n$/,
  ],
] as [string, string[], Record<string, string>, RegExp][])("%s: one sentence and code 1", async (_, args, more, sentence) => {
  const { code, out, err } = await run(args, more);
  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(err).toMatch(sentence);
});

test("an interruption leaves what came, and the next run goes on", async () => {
  hub.repos["org/large"] = { revisions: { main: commitOf({ "data.bin": Buffer.alloc(400_000, 7) }) } };
  hub.cuts["data.bin"] = Array<number>(6).fill(10_000);
  expect((await run(["download", "org/large", "--include", "*"])).code).toBe(1);
  hub.requests.length = 0;
  expect((await run(["download", "org/large", "--include", "*"])).code).toBe(0);
  expect(hub.requests.find(({ origin }) => origin === "store")?.range).toMatch(/^bytes=[1-9]\d*-$/);
});
