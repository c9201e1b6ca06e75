// Names of the hub where no disk keeps its files: in browsers, and for sources of strangers. They
// are addresses there, with what the hub's refusals mean.

import { afterEach, beforeEach, expect, test } from "vitest";
import { accessOf } from "./access.js";
import { folderOf, openFile, openWeights, readText } from "./folder.js";
import { isPrivate } from "./node-addresses.js";
import { files } from "./node-files.js";
import { hub } from "./node-hub.js";
import { useModelsPlatform } from "./platform.js";
import { refused } from "./refused.testing.js";
import type { LoadOptions } from "./types.js";

const node = { wasm: {} as never, files, web: { isPrivate }, hub };
const browser = { wasm: {} as never };

let asked: { address: string; authorization: string | undefined }[] = [];
beforeEach(() => {
  asked = [];
  useModelsPlatform(browser);
});
afterEach(() => useModelsPlatform(node));

/** A hub in a function: what it has, and what it says of everything else. */
const stub =
  (has: Record<string, string>, otherwise = (): Response => new Response(null, { status: 404 })): NonNullable<LoadOptions["fetch"]> =>
  (address, init) => {
    asked.push({ address, authorization: new Headers(init.headers).get("authorization") ?? undefined });
    const text = has[address];
    return Promise.resolve(text === undefined ? otherwise() : new Response(text));
  };
const at = "https://huggingface.co/org/name/resolve";

test("files of a repository, with a token", async () => {
  const fetch = stub({ [`${at}/main/config.json`]: "{}", [`${at}/refs%2Fpr%2F1/sub/config.json`]: "[]" });
  const read = async (source: string, options: LoadOptions = {}): Promise<string> =>
    new TextDecoder().decode(await readText(await folderOf(source, accessOf({ fetch, ...options })), "config.json", {}));
  expect(await read("hf:org/name")).toBe("{}");
  expect(await read("https://huggingface.co/org/name/tree/main")).toBe("{}");
  expect(await read("hf:org/name@refs/pr/1/sub", { token: "hf_x" })).toBe("[]");
  expect(await read("hf:org/name/sub", { token: "hf_x", revision: "refs/pr/1" })).toBe("[]");
  expect(asked.map(({ authorization }) => authorization)).toEqual([undefined, undefined, "Bearer hf_x", "Bearer hf_x"]);
  expect(await refused(() => read("hf:org/name@v1", { revision: "v2" }))).toBe(
    'OPTION revision: expected "v1", as the source says, or none, got "v2"',
  );
  expect(await refused(() => read("https://example.org/", { revision: "v2" }))).toBe(
    'OPTION revision: expected none for what is no model of the hub, got "v2"',
  );
});

test("one file, and one in a record", async () => {
  const fetch = stub({ [`${at}/main/a/b.gguf`]: "GGUF", [`${at}/main/config.json`]: "{}" });
  const folder = await folderOf("hf:org/name/a/b.gguf", accessOf({ fetch }));
  expect(folder.only).toBe("b.gguf");
  expect((await openWeights(folder, {})).length).toBe(4);
  const record = await folderOf({ "config.json": "hf:org/name/config.json", "other.json": "hf:org/name" }, accessOf({ fetch }));
  expect((await openFile(record, "config.json", {})).length).toBe(2);
  expect(await refused(() => openFile(record, "other.json", {}))).toBe(
    "OPTION other.json: expected a file of the hub's model, got hf:org/name",
  );
});

test("in browsers what could be a path is an address", async () => {
  const { name } = await folderOf(new URL("https://example.org/org/name"), accessOf({}));
  expect(name).toBe("https://example.org/org/name");
  expect(await refused(() => folderOf("org/name", accessOf({})))).toMatch(/^OPTION source: expected an address, got "org\/name"$/);
});

test("what the hub refuses is told as what it is", async () => {
  const says = async (status: number, code?: string, options: LoadOptions = {}): Promise<string> => {
    const fetch = stub({}, () => new Response(null, { status, headers: code ? { "X-Error-Code": code } : {} }));
    return refused(async () => readText(await folderOf("hf:org/name@v1", accessOf({ fetch, ...options })), "config.json", {}));
  };
  const page = "https://huggingface.co/org/name";
  const token = "hf_x";
  expect(await says(401)).toBe(
    `FILE source: expected a model that may be read at ${page}, got none of that name, or one that wants a token (option token, HF_TOKEN)`,
  );
  expect(await says(401, undefined, { token })).toBe(
    `FILE source: expected a model that may be read at ${page}, got a token that is not taken`,
  );
  expect(await says(403, "GatedRepo", { token })).toMatch(/expected leave to read .*, got the status 403 with the token's owner$/);
  expect(await says(404, "RepoNotFound", { token })).toBe(`FILE source: expected a model at ${page}, got none of that name`);
  expect(await says(404, "RevisionNotFound")).toBe(`FILE revision: expected a branch, a tag or a commit of ${page}, got "v1"`);
  expect(await says(404, "EntryNotFound")).toBe(`FILE config.json: expected a file in ${at}/v1/, got none`);
  expect(await says(503)).toBe(`FILE config.json: expected the file at ${at}/v1/config.json, got the status 503`);
});

test("in Node a stranger's name is an address, without a token of this machine", async () => {
  useModelsPlatform(node);
  const fetch = stub({ [`${at}/main/config.json`]: "{}" });
  process.env["HF_TOKEN"] = "hf_own";
  try {
    const access = accessOf({ fetch, allowedOrigins: ["https://huggingface.co"] });
    for (const source of ["org/name", "hf:org/name"]) await readText(await folderOf(source, access), "config.json", {});
    expect(asked.map(({ authorization }) => authorization)).toEqual([undefined, undefined]);
  } finally {
    Reflect.deleteProperty(process.env, "HF_TOKEN");
  }
});
