// Where bytes come from: servers with and without ranges, servers that lie or break off, files that end too early. No backend.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { DiffAttnError } from "../errors.js";
import { folderOf, openFile, openWeights, parseJson, readOptionalText, readText } from "./folder.js";
import { files } from "./node-files.js";
import { useModelsPlatform } from "./platform.js";
import { BlobSource, type ByteSource, MemorySource, openUrl } from "./source.js";

// Longer than what a first request asks for.
const content = Uint8Array.from({ length: 600_000 }, (_, i) => (i * 7 + (i >> 8)) & 255);
const html = "<!DOCTYPE html><title>not here</title>";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

function ranged(body: Uint8Array, headers: Record<string, string> = {}): Answer {
  return ({ headers: { range } }, response) => {
    const [, first = "0", last = ""] = /bytes=(\d+)-(\d*)/.exec(range ?? "") ?? [];
    if (range === undefined) return void response.writeHead(200, headers).end(body);
    const end = Math.min(body.byteLength, Number(last) + 1);
    if (Number(first) >= body.byteLength) return void response.writeHead(416).end();
    const contentRange = `bytes ${first}-${end - 1}/${body.byteLength}`;
    response.writeHead(206, { "Content-Range": contentRange, ...headers }).end(body.subarray(Number(first), end));
  };
}

let changing = 0;
const answers: Record<string, Answer> = {
  "/ranges/file": ranged(content),
  "/ranges/small": ranged(content.subarray(0, 10)),
  "/ranges/empty": ranged(new Uint8Array()),
  "/whole/file": (_, response) => response.writeHead(200, { "Content-Length": content.length }).end(content),
  // Its length is not known before its end.
  "/chunked/file"(_, response) {
    response.writeHead(200);
    for (let at = 0; at < content.length; at += 50_000) response.write(content.subarray(at, at + 50_000));
    response.end();
  },
  // Partial, but of how much is not to be seen, as with a server of another origin.
  "/hidden/file"(request, response) {
    if (request.headers.range === undefined) response.writeHead(200).end(content);
    else response.writeHead(206).end(content.subarray(0, 100));
  },
  "/html/file": (_, response) => response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(html),
  "/typeless/config.json": (_, response) => response.writeHead(200).end(html),
  // Says that it is longer than it is.
  "/long/file"({ headers: { range } }, response) {
    const [, first = "0", last = "0"] = /bytes=(\d+)-(\d*)/.exec(range ?? "") ?? [];
    const body = content.subarray(Number(first), Number(last) + 1);
    response.writeHead(206, { "Content-Range": `bytes ${first}-${last}/9000000` }).end(body);
  },
  "/broken/file"(_, response) {
    response.writeHead(200, { "Content-Length": String(content.length) });
    response.write(content.subarray(0, 1000), () => response.destroy());
  },
  "/more/file"({ headers: { range } }, response) {
    const first = range?.includes("=0-");
    response.writeHead(206, { "Content-Range": first ? `bytes 0-262143/${content.length}` : `bytes 300000-300009/${content.length}` });
    response.end(content.subarray(0, first ? 262144 : 100));
  },
  "/elsewhere/file"({ headers: { range } }, response) {
    const first = range?.includes("=0-");
    response.writeHead(206, { "Content-Range": first ? `bytes 0-262143/${content.length}` : `bytes 5-9/${content.length}` });
    response.end(content.subarray(0, first ? 262144 : 5));
  },
  "/changing/file": (request, response) => ranged(content, { ETag: `"${changing++}"` })(request, response),
  // Answers with ranges once.
  "/once/file"(request, response) {
    if (request.headers.range?.includes("=0-")) ranged(content)(request, response);
    else response.writeHead(200).end(content);
  },
  "/forbidden/file": (_, response) => response.writeHead(403).end(),
  "/slow/file": (_, response) => void response.writeHead(200).write(content.subarray(0, 1000)),
  "/folder/config.json": ranged(new TextEncoder().encode('{"a": 1}')),
  "/folder/model.safetensors": ranged(content),
};

let requests: string[] = [];
const server = createServer((request, response) => {
  requests.push(`${request.url} ${request.headers.range ?? "whole"}`);
  const answer = answers[new URL(request.url ?? "", "http://x").pathname];
  if (answer) answer(request, response);
  else response.writeHead(404, { "Content-Type": "text/html" }).end(html);
});
let origin = "";
let folder = "";
beforeAll(async () => {
  useModelsPlatform({ wasm: {} as never, files });
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  origin = `http://localhost:${(server.address() as AddressInfo).port}`;
  folder = await mkdtemp(join(tmpdir(), "diffattn-source-"));
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});

async function refused(body: () => unknown): Promise<string> {
  try {
    await body();
  } catch (error) {
    const { code, message } = error as DiffAttnError;
    return `${code} ${message}`;
  }
  throw new Error("expected an error, got a result");
}

const open = async (path: string): Promise<ByteSource> => {
  requests = [];
  return (await openUrl("file", new URL(path, origin), {}, false)) ?? Promise.reject(new Error("no such file"));
};

/** The same of every source that holds the content. */
async function reads(source: ByteSource): Promise<void> {
  expect(source.length).toBe(content.length);
  for (const [first, end] of [
    [0, 10],
    [100, 100],
    [262_000, 263_000],
    [300_000, 300_010],
    [0, content.length],
    [content.length - 1, content.length],
  ] as const) {
    expect(Buffer.compare(await source.read(first, end, {}), content.subarray(first, end))).toBe(0);
  }
  expect(await refused(() => source.read(content.length - 5, content.length + 1, {}))).toBe(
    "FILE file: expected bytes 599995 to 600001, got 5 of them: the file is cut short",
  );
  const reason = new Error("enough");
  await expect(source.read(280_000, 290_000, { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
    code: "ABORTED",
    cause: reason,
  });
  source.close();
}

describe("what is read is what lies there", () => {
  test("bytes and blobs", async () => {
    await reads(new MemorySource("file", content));
    await reads(new BlobSource("file", new Blob([content])));
  });
  test("a path", async () => {
    await writeFile(join(folder, "file"), content);
    await reads(await openFile(await folderOf(folder), "file", {}));
    await reads(await openFile(await folderOf(join(folder, "file")), "file", {}));
    await reads(await openFile(await folderOf(new URL(`file://${folder}/file`)), "file", {}));
  });
  test("a server with ranges is asked for what is wanted and no more", async () => {
    const source = await open("/ranges/file");
    expect(requests).toEqual(["/ranges/file bytes=0-262143"]);
    await source.read(10, 20, {});
    await source.read(300_000, 300_010, {});
    expect(requests.slice(1)).toEqual(["/ranges/file bytes=300000-300009"]);
    await reads(source);
  });
  test.each(["whole", "chunked", "hidden", "once"])("a server without ranges sends the file once: %s", async (kind) => {
    const source = await open(`/${kind}/file`);
    await reads(source);
    expect(requests.length).toBeLessThanOrEqual(3);
    const seen = requests.length;
    await source.read(300_000, 500_000, {});
    expect(requests.length).toBe(seen);
  });
  test("a small file and an empty one", async () => {
    expect((await open("/ranges/small")).length).toBe(10);
    expect((await open("/ranges/empty")).length).toBe(0);
  });
});

describe("what is no file is named", () => {
  test("answers", async () => {
    await expect(open("/nothing")).rejects.toThrow("no such file");
    expect(await refused(() => open("/html/file"))).toBe(`FILE file: expected the file at ${origin}/html/file, got an HTML page`);
    expect(await refused(() => open("/forbidden/file"))).toBe(
      `FILE file: expected the file at ${origin}/forbidden/file, got the status 403`,
    );
    expect(await refused(() => open("/broken/file"))).toMatch(/^FILE file: expected all of its bytes, got /);
    expect(await refused(() => openUrl("file", new URL("http://localhost:1/file"), {}, false))).toMatch(
      /^FILE file: expected an answer from /,
    );
  });
  test("a page in the place of a file that may be missing is none", async () => {
    expect(await openUrl("file", new URL("/html/file", origin), {}, true)).toBeUndefined();
  });
  test("lies", async () => {
    const long = await open("/long/file");
    expect(long.length).toBe(9_000_000);
    expect(await refused(() => long.read(500_000, 700_000, {}))).toBe(
      "FILE file: expected bytes 500000 to 700000, got 100000 of them: the file is cut short",
    );
    const more = await open("/more/file");
    expect(await refused(() => more.read(300_000, 300_010, {}))).toBe("FILE file: expected bytes 300000 to 300010, got more of them");
    const elsewhere = await open("/elsewhere/file");
    expect(await refused(() => elsewhere.read(300_000, 300_010, {}))).toBe("FILE file: expected bytes 300000 to 300010, got 5 to 10");
    const changed = await open("/changing/file");
    expect(await refused(() => changed.read(300_000, 300_010, {}))).toBe(
      "FILE file: expected the file as it was when it was opened, got another",
    );
  });
  test("a path whose file became shorter", async () => {
    const path = join(folder, "short");
    await writeFile(path, content);
    const source = await openFile(await folderOf(path), "short", {});
    await truncate(path, 1000);
    expect(await refused(() => source.read(0, 2000, {}))).toBe(
      "FILE short: expected bytes 0 to 2000, got 1000 of them: the file is cut short",
    );
    source.close();
  });
  test("an abort ends a download", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const opening = openUrl(
      "file",
      new URL("/slow/file", origin),
      { signal: controller.signal, onBytes: () => controller.abort(reason) },
      false,
    );
    await expect(opening).rejects.toMatchObject({ code: "ABORTED", name: "AbortError", cause: reason });
  });
});

test("progress tells every byte once, and the length where the server says it", async () => {
  for (const [path, length] of [
    ["/whole/file", 600_000],
    ["/chunked/file", 0],
    ["/ranges/file", 0],
  ] as const) {
    const told = { bytes: 0, length: 0 };
    const reading = { onBytes: (bytes: number) => (told.bytes += bytes), onLength: (bytes: number) => (told.length += bytes) };
    const source = await openUrl("file", new URL(path, origin), reading, false);
    await source?.read(262_144, 600_000, reading);
    expect(told).toEqual({ bytes: 600_000, length: length });
  }
});

describe("folders", () => {
  test("an address: what is missing is missing, the query goes to every file", async () => {
    requests = [];
    const folder = await folderOf(`${origin}/folder/?token=1`);
    expect(await parseJson("config.json", await readText(folder, "config.json", {}))).toEqual({ a: 1 });
    expect(await readOptionalText(folder, "tokenizer.json", {})).toBeUndefined();
    expect((await openWeights(folder, {})).name).toBe("model.safetensors");
    expect(requests.every((line) => line.includes("?token=1 "))).toBe(true);
    expect(await refused(() => readText(folder, "other.json", {}))).toBe(
      `FILE other.json: expected a file in ${origin}/folder/?token=1, got none`,
    );
  });
  test("one file of an address has the others beside it", async () => {
    const folder = await folderOf(`${origin}/folder/model.safetensors`);
    expect((await openWeights(folder, {})).length).toBe(content.length);
    expect(await parseJson("config.json", await readText(folder, "config.json", {}))).toEqual({ a: 1 });
  });
  test("a page instead of JSON", async () => {
    const folder = await folderOf(`${origin}/typeless/`);
    expect(await refused(() => readText(folder, "config.json", {}))).toBe("FILE config.json: expected JSON, got an HTML page");
  });
  test("records and Files", async () => {
    const folder = await folderOf({ "config.json": new Blob(["{}"]), "other.safetensors": content });
    expect(await readText(folder, "config.json", {})).toEqual(new TextEncoder().encode("{}"));
    expect((await openWeights(folder, {})).name).toBe("other.safetensors");
    const files = await folderOf([new File(["{}"], "config.json"), new File([content], "model.safetensors")] as Iterable<File>);
    expect((await openWeights(files, {})).length).toBe(content.length);
    expect(await refused(async () => openWeights(await folderOf({ "a.safetensors": content, "b.safetensors": content }), {}))).toBe(
      "FILE model.safetensors: expected model.safetensors, model.safetensors.index.json or one other *.safetensors in source, " +
        "got a.safetensors, b.safetensors",
    );
    expect(await refused(async () => readText(await folderOf({}), "config.json", {}))).toBe("FILE config.json: expected a file, got none");
  });
  test("what names no checkpoint", async () => {
    expect(await refused(() => folderOf(5 as never))).toBe("OPTION source: expected a folder, an address, a file, or files by name, got 5");
    expect(await refused(() => folderOf([5] as never))).toBe("OPTION source: expected Files, got 5");
    const folder = await folderOf({ "config.json": 5 as never });
    expect(await refused(() => readText(folder, "config.json", {}))).toBe(
      "OPTION config.json: expected a path, an address, a Blob or bytes, got 5",
    );
    expect(await refused(async () => openWeights(await folderOf("/nowhere/at/all"), {}))).toMatch(/^FILE all: expected a file/);
  });
});
