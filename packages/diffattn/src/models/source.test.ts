// Where bytes come from: servers with and without ranges, servers that lie or break off, files that
// end too early. No backend.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdir, mkdtemp, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { createServer as listen } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { accessOf } from "./access.js";
import { folderOf, openFile, openWeights, parseJson, readOptionalText, readText } from "./folder.js";
import { files } from "./node-files.js";
import { useModelsPlatform } from "./platform.js";
import { refused } from "./refused.testing.js";
import type { ByteSource } from "./byte-source.js";
import { BlobSource, MemorySource, openUrl } from "./source.js";
import type { LoadOptions } from "./types.js";

/** Of a load without options. */
const plain = accessOf({});

// Longer than what a first request asks for.
const content = Uint8Array.from({ length: 600_000 }, (_, i) => (i * 7 + (i >> 8)) & 255);
const html = "<!DOCTYPE html><title>not here</title>";

type Answer = (request: IncomingMessage, response: ServerResponse) => unknown;

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

/** Spaces without end. `given` counts them, `closed` says when their reader is gone. */
const endless = { given: 0, closed: Promise.resolve() };
function without(end: Uint8Array, headers: Record<string, string> = {}, status = 200): Answer {
  return (_, response) => {
    endless.given = 0;
    response.writeHead(status, headers);
    endless.closed = once(response, "close").then(() => undefined);
    const more = (): void => {
      while (!response.destroyed && response.write(end)) endless.given += end.byteLength;
      endless.given += end.byteLength;
    };
    response.on("drain", more);
    more();
  };
}
const spaces = new Uint8Array(2 ** 16).fill(32);
/** 16 MiB of spaces as gzip has them; after another, as many again. */
const inflating = gzipSync(new Uint8Array(2 ** 24).fill(32));

/** A first answer that says this of its range. */
const saying =
  (contentRange: string): Answer =>
  (_, response) =>
    response.writeHead(206, { "Content-Range": contentRange }).end(content.subarray(0, 10));

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
  "/endless/config.json": without(spaces),
  "/endless/model.safetensors": without(spaces),
  "/bomb/config.json": without(inflating, { "Content-Encoding": "gzip" }),
  "/bomb/model.safetensors": without(inflating, { "Content-Encoding": "gzip" }),
  // Says how long it is, and how long it would be.
  "/announced/config.json": (_, response) => response.writeHead(200, { "Content-Length": String(2 ** 40) }).write("{"),
  "/total/config.json": saying(`bytes 0-9/${2 ** 40}`),
  // A range of a file that is short, then a whole one without an end.
  "/late/model.safetensors"(request, response) {
    if (request.headers.range?.includes("=0-")) ranged(content)(request, response);
    else without(spaces)(request, response);
  },
  "/late/short.safetensors"(request, response) {
    if (request.headers.range?.includes("=0-")) ranged(content)(request, response);
    else response.writeHead(200).end(content.subarray(0, 300_000));
  },
  // A first range without an end.
  "/flood/model.safetensors": without(spaces, { "Content-Range": "bytes 0-262143/600000" }, 206),
  // Of another length each time.
  "/growing/model.safetensors"(request, response) {
    ranged(request.headers.range?.includes("=0-") ? content : new Uint8Array(700_000))(request, response);
  },
  // Each byte a piece of its own.
  async "/pieces/config.json"(_, response) {
    response.writeHead(200);
    for (const byte of '{"a": 1}'.padEnd(5000)) {
      response.write(byte);
      if (endless.given++ % 500 === 0) await after(1);
    }
    response.end();
  },
  // Says nothing more after the first range.
  "/stuck/file"(request, response) {
    if (request.headers.range?.includes("=0-")) ranged(content)(request, response);
  },
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

const open = async (path: string): Promise<ByteSource> => {
  requests = [];
  return (await openUrl("file", new URL(path, origin), {}, false, plain)) ?? Promise.reject(new Error("no such file"));
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
    await reads(await openFile(await folderOf(folder, plain), "file", {}));
    await reads(await openFile(await folderOf(join(folder, "file"), plain), "file", {}));
    await reads(await openFile(await folderOf(new URL(`file://${folder}/file`), plain), "file", {}));
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
    expect(await refused(() => openUrl("file", new URL("http://localhost:1/file"), {}, false, plain))).toMatch(
      /^FILE file: expected an answer from /,
    );
  });
  test("a page in the place of a file that may be missing is none", async () => {
    expect(await openUrl("file", new URL("/html/file", origin), {}, true, plain)).toBeUndefined();
  });
  test("an extension's address knows no ranges, and no status says that a file is missing there", async () => {
    const fail = (why: string): never => {
      throw new TypeError(why);
    };
    const answers = new Map([
      // Chromium gives a range's bytes with the status of the whole, and refuses what is missing.
      ["chrome-extension://id/there", () => new Response(content)],
      ["chrome-extension://id/missing", () => fail("Failed to fetch")],
      // Firefox breaks off.
      ["moz-extension://id/missing", () => new Response(new ReadableStream({ pull: () => fail("aborted") }))],
    ]);
    const asked: (RequestInit | undefined)[] = [];
    const access = accessOf({
      fetch: (address, init) => {
        asked.push(init);
        return new Promise((resolve) => resolve((answers.get(address) ?? Response.error)()));
      },
    });
    const there = await openUrl("file", new URL("chrome-extension://id/there"), {}, true, access);
    expect(there?.length).toBe(content.byteLength);
    expect(asked.map((init) => init?.headers)).toEqual([{}]);
    for (const [place, why] of [
      ["chrome-extension://id/missing", /^FILE file: expected an answer from chrome-extension:.*, got Failed to fetch$/],
      ["moz-extension://id/missing", /^FILE file: expected all of its bytes, got aborted$/],
    ] as const) {
      expect(await openUrl("file", new URL(place), {}, true, access)).toBeUndefined();
      expect(await refused(() => openUrl("file", new URL(place), {}, false, access))).toMatch(why);
    }
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
    const source = await openFile(await folderOf(path, plain), "short", {});
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
      plain,
    );
    await expect(opening).rejects.toMatchObject({ code: "ABORTED", name: "AbortError", cause: reason });
  });
});

describe("what is read whole is read up to a limit", () => {
  const JSON_BYTES = 2 ** 26;
  const read = async (path: string, options: LoadOptions = {}): Promise<Uint8Array> => {
    const folder = await folderOf(new URL(path.replace(/[^/]*$/, ""), origin), accessOf(options));
    return readText(folder, path.slice(path.lastIndexOf("/") + 1), {});
  };

  test("JSON without an end: 64 MiB of it, then the connection is closed", async () => {
    expect(await refused(() => read("/endless/config.json"))).toBe(
      "FILE config.json: expected at most 67108864 bytes (option maxFileBytes), got more",
    );
    await endless.closed;
    // What lies in sockets' buffers on the way, beside it.
    expect(endless.given).toBeGreaterThan(JSON_BYTES);
    expect(endless.given).toBeLessThan(JSON_BYTES + 2 ** 25);
  });
  test("JSON that inflates without an end: counted as it comes out, without much memory, and others have their turn", async () => {
    const before = process.memoryUsage().rss;
    let [most, gap, last] = [0, 0, performance.now()];
    const watch = setInterval(() => {
      const now = performance.now();
      [most, gap, last] = [Math.max(most, process.memoryUsage().rss - before), Math.max(gap, now - last), now];
    }, 5);
    try {
      expect(await refused(() => read("/bomb/config.json"))).toBe(
        "FILE config.json: expected at most 67108864 bytes (option maxFileBytes), got more",
      );
      await endless.closed;
    } finally {
      clearInterval(watch);
    }
    expect(most).toBeLessThan(2 ** 29);
    expect(gap).toBeLessThan(1000);
  });
  test("the option raises and lowers it", async () => {
    for (const path of ["/endless/config.json", "/bomb/config.json"]) {
      expect(await refused(() => read(path, { maxFileBytes: 1000 }))).toContain("at most 1000 bytes (option maxFileBytes), got more");
      await endless.closed;
      expect(await refused(() => read(path, { maxFileBytes: JSON_BYTES + 2 ** 22 }))).toContain(`at most ${JSON_BYTES + 2 ** 22} bytes`);
      expect(endless.given).toBeGreaterThan(path.startsWith("/bomb") ? 0 : JSON_BYTES + 2 ** 22);
      await endless.closed;
    }
    expect(await read("/folder/config.json", { maxFileBytes: 8 })).toEqual(new TextEncoder().encode('{"a": 1}'));
    expect(await refused(() => read("/folder/config.json", { maxFileBytes: 7 }))).toBe(
      "FILE config.json: expected at most 7 bytes (option maxFileBytes), got 8",
    );
  });
  test("what a server says beforehand is enough", async () => {
    for (const path of ["/announced/config.json", "/total/config.json"])
      expect(await refused(() => read(path))).toBe(
        "FILE config.json: expected at most 67108864 bytes (option maxFileBytes), got 1099511627776",
      );
  });
  test("weights that come whole: from the first request, from a later one, from a compressed answer", async () => {
    const opened = async (path: string, options: LoadOptions = {}): Promise<ByteSource> =>
      openWeights(await folderOf(new URL(path, origin), accessOf(options)), { all: true });
    for (const path of ["/endless/model.safetensors", "/bomb/model.safetensors"]) {
      expect(await refused(() => opened(path, { maxFileBytes: 2 ** 20 }))).toBe(
        "FILE model.safetensors: expected at most 1048576 bytes (option maxFileBytes), got more",
      );
      await endless.closed;
    }
    expect(endless.given).toBeLessThan(2 ** 26);
    // Of a file whose length was said no more than that is read, without any option.
    const late = await openUrl("file", new URL("/late/model.safetensors", origin), {}, false, plain);
    expect(await refused(() => late?.read(300_000, 300_010, {}))).toBe("FILE file: expected 600000 bytes, got more");
    await endless.closed;
    expect(endless.given).toBeLessThan(2 ** 25);
    const short = await openUrl("file", new URL("/late/short.safetensors", origin), {}, false, plain);
    expect(await refused(() => short?.read(300_000, 300_010, {}))).toBe(
      "FILE file: expected bytes 0 to 600000, got 300000 of them: the file is cut short",
    );
    expect(await refused(() => opened("/flood/model.safetensors"))).toBe(
      "FILE model.safetensors: expected bytes 0 to 262144, got more of them",
    );
    await endless.closed;
    expect(endless.given).toBeLessThan(2 ** 25);
  });
  test("files, blobs and bytes of JSON are not read where they are longer", async () => {
    const path = join(folder, "large");
    await mkdir(path);
    await writeFile(join(path, "config.json"), "");
    // Sparse.
    await truncate(join(path, "config.json"), JSON_BYTES + 1);
    const bytes = new Uint8Array(JSON_BYTES + 1);
    const index = "model.safetensors.index.json";
    for (const source of [path, { "config.json": bytes }, { "config.json": new Blob([bytes]) }])
      expect(await refused(async () => readText(await folderOf(source, plain), "config.json", {}))).toBe(
        "FILE config.json: expected at most 67108864 bytes (option maxFileBytes), got 67108865",
      );
    expect(await refused(async () => openWeights(await folderOf({ [index]: bytes }, plain), {}))).toContain(
      `FILE ${index}: expected at most`,
    );
    const raised = accessOf({ maxFileBytes: JSON_BYTES + 1 });
    const open = await openFile(await folderOf(path, raised), "config.json", {});
    expect(open.length).toBe(JSON_BYTES + 1);
    open.close();
    // Weights are read by range.
    expect((await openWeights(await folderOf({ "model.safetensors": bytes }, plain), {})).length).toBe(JSON_BYTES + 1);
  });
  test("pieces of one byte are kept together", async () => {
    expect(new TextDecoder().decode(await read("/pieces/config.json"))).toBe('{"a": 1}'.padEnd(5000));
  });
  test("what goes into the browser's Cache Storage", async () => {
    // As a browser has it: it reads the answer that it is given, and keeps whole ones.
    const kept = new Map<string, Blob>();
    const store = {
      match: (url: URL) => Promise.resolve(kept.has(url.href) ? new Response(kept.get(url.href)) : undefined),
      put: async (url: URL, response: Response) => {
        try {
          kept.set(url.href, await response.blob());
        } catch {
          throw new TypeError("Failed to execute 'put' on 'Cache'");
        }
      },
      delete: (url: URL) => Promise.resolve(kept.delete(url.href)),
    };
    vi.stubGlobal("caches", { open: () => Promise.resolve(store) });
    try {
      const cache = "models";
      requests = [];
      expect(await refused(() => read("/endless/config.json", { cache, maxFileBytes: 2 ** 20 }))).toBe(
        "FILE config.json: expected at most 1048576 bytes (option maxFileBytes), got more",
      );
      await endless.closed;
      expect(requests).toEqual(["/endless/config.json whole"]);
      expect(kept.size).toBe(0);
      // What is kept is asked of nobody, and is no longer than allowed either.
      await read("/folder/config.json", { cache });
      requests = [];
      expect(await read("/folder/config.json", { cache })).toEqual(new TextEncoder().encode('{"a": 1}'));
      expect(await refused(() => read("/folder/config.json", { cache, maxFileBytes: 7 }))).toContain("at most 7 bytes");
      expect(await refused(() => read("/folder/config.json", { cache, allowedOrigins: [] }))).toContain("(option allowedOrigins)");
      expect(requests).toEqual([]);
      // Its requests are those of the load.
      const headers: unknown[] = [];
      const fetch: LoadOptions["fetch"] = (address, init) => {
        headers.push(init.headers);
        return globalThis.fetch(address, init);
      };
      await read("/folder/config.json?2", { cache, headers: { A: "b" }, fetch }).catch(() => {});
      expect(headers[0]).toEqual({ a: "b" });
    } finally {
      vi.unstubAllGlobals();
    }
  });
});

describe("numbers that a server says", () => {
  test.each([
    "bytes 0-9/100000000000000000000000",
    "bytes 0-99999999999999999999999/100000000000000000000000",
    `bytes 0-9/${2 ** 53}`,
    "bytes 0-9/9",
    "bytes 5-2/100",
    "bytes 0-9/0",
  ])("%s", async (contentRange) => {
    answers["/said/file"] = saying(contentRange);
    expect(await refused(() => open("/said/file"))).toBe(`FILE file: expected a range of bytes within a file, got "${contentRange}"`);
    // A later answer's.
    answers["/said/file"] = (request, response) =>
      (request.headers.range?.includes("=0-") ? ranged(content) : saying(contentRange))(request, response);
    const source = await open("/said/file");
    expect(await refused(() => source.read(300_000, 300_010, {}))).toMatch(/^FILE file: expected a range of bytes within a file/);
  });
  test.each(["bytes 0-9/*", "bytes -5--1/10", "bytes 0-9/NaN", "bytes 0-9/-10", "bytes 0x0-0x9/10", "bytes 0-9/1e1", "10", ""])(
    "one that says nothing is asked for the whole: %s",
    async (contentRange) => {
      answers["/said/file"] = (request, response) =>
        (request.headers.range === undefined ? ranged(content) : saying(contentRange))(request, response);
      await reads(await open("/said/file"));
    },
  );
  test("a length that changes", async () => {
    const source = await open("/growing/model.safetensors");
    expect(await refused(() => source.read(300_000, 300_010, {}))).toBe(
      "FILE file: expected the file as it was when it was opened, got another",
    );
  });
  test("lengths that are none, from a fetch of the caller's", async () => {
    for (const length of ["-1", "NaN", "1e300", "99999999999999999999999", ""]) {
      const fetch = (): Promise<Response> => Promise.resolve(new Response("{}", { headers: { "Content-Length": length } }));
      const folder = await folderOf("https://x.example/", accessOf({ fetch }));
      expect(await readText(folder, "config.json", {})).toEqual(new TextEncoder().encode("{}"));
      let told = 0;
      await openFile(folder, "config.json", { onLength: (bytes) => (told += bytes) });
      expect(told).toBe(0);
    }
  });
  test("a range of no bytes is asked of nobody", async () => {
    const source = await open("/ranges/file");
    requests = [];
    expect(await source.read(300_000, 300_000, {})).toEqual(new Uint8Array());
    expect(requests).toEqual([]);
  });
  test("nothing is asked for after a file's end", async () => {
    requests = [];
    const source = await openUrl("file", new URL("/ranges/small", origin), { all: true }, false, plain);
    expect((await source?.read(0, 10, {}))?.byteLength).toBe(10);
    expect(requests).toEqual(["/ranges/small bytes=0-262143"]);
  });
});

describe.skipIf(process.platform === "win32")("paths of what is no regular file", () => {
  const opened = (name: string): Promise<string> => refused(async () => openFile(await folderOf(join(folder, "odd"), plain), name, {}));
  beforeAll(async () => {
    await mkdir(join(folder, "odd", "folder"), { recursive: true });
    execFileSync("mkfifo", [join(folder, "odd", "fifo")]);
    await symlink(join(folder, "odd", "fifo"), join(folder, "odd", "link"));
    await symlink("/dev/zero", join(folder, "odd", "zero"));
    await writeFile(join(folder, "odd", "regular"), "12345");
    await symlink(join(folder, "odd", "regular"), join(folder, "odd", "fine"));
  });
  test.each([
    ["fifo", "a FIFO"],
    ["link", "a FIFO"],
    ["zero", "a device"],
    ["folder", "a folder"],
  ])("%s", async (name, kind) => {
    expect(await opened(name)).toBe(`FILE ${name}: expected a regular file at ${join(folder, "odd", name)}, got ${kind}`);
    // As the one file that is named, and among files by name.
    if (name !== "folder") {
      const path = join(folder, "odd", name);
      expect(await refused(async () => openWeights(await folderOf(path, plain), {}))).toContain(`got ${kind}`);
      expect(await refused(async () => readText(await folderOf({ "config.json": path }, plain), "config.json", {}))).toContain(
        `got ${kind}`,
      );
    }
  });
  test("a socket", async () => {
    const socket = listen().listen(join(folder, "odd", "socket"));
    await once(socket, "listening");
    expect(await opened("socket")).toContain("got a socket");
    socket.close();
  });
  test("a link to a regular file", async () => {
    const source = await openFile(await folderOf(join(folder, "odd"), plain), "fine", {});
    expect(await source.read(0, 5, {})).toEqual(new TextEncoder().encode("12345"));
    source.close();
  });
  test("none is written over", async () => {
    for (const name of ["fifo", "link", "zero", "folder"])
      expect(await refused(() => files.write(join(folder, "odd", name)))).toMatch(
        /^FILE .*: expected .*, got .*\b(FIFO|pipe|device|folder)\b/,
      );
  });
});

test("an abort ends the wait for a range, and for a fetch that does not heed it", async () => {
  const source = await open("/stuck/file");
  const fetch: LoadOptions["fetch"] = (address, { headers }) => globalThis.fetch(address, { headers: headers ?? {} });
  const deaf = await openUrl("file", new URL("/stuck/file", origin), {}, false, accessOf({ fetch }));
  for (const each of [source, deaf])
    await expect(each?.read(300_000, 300_010, { signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: "ABORTED" });
  // Its body, too.
  const opening = openUrl("file", new URL("/slow/file", origin), { signal: AbortSignal.timeout(50) }, false, accessOf({ fetch }));
  await expect(opening).rejects.toMatchObject({ code: "ABORTED" });
});

test("progress tells every byte once, and the length where the server says it", async () => {
  for (const [path, length] of [
    ["/whole/file", 600_000],
    ["/chunked/file", 0],
    ["/ranges/file", 0],
  ] as const) {
    const told = { bytes: 0, length: 0 };
    const reading = { onBytes: (bytes: number) => (told.bytes += bytes), onLength: (bytes: number) => (told.length += bytes) };
    const source = await openUrl("file", new URL(path, origin), reading, false, plain);
    await source?.read(262_144, 600_000, reading);
    expect(told).toEqual({ bytes: 600_000, length: length });
  }
});

describe("folders", () => {
  test("an address: what is missing is missing, the query goes to every file", async () => {
    requests = [];
    const folder = await folderOf(`${origin}/folder/?token=1`, plain);
    expect(await parseJson("config.json", await readText(folder, "config.json", {}))).toEqual({ a: 1 });
    expect(await readOptionalText(folder, "tokenizer.json", {})).toBeUndefined();
    expect((await openWeights(folder, {})).name).toBe("model.safetensors");
    expect(requests.every((line) => line.includes("?token=1 "))).toBe(true);
    expect(await refused(() => readText(folder, "other.json", {}))).toBe(
      `FILE other.json: expected a file in ${origin}/folder/?token=1, got none`,
    );
  });
  test("one file of an address has the others beside it", async () => {
    const folder = await folderOf(`${origin}/folder/model.safetensors`, plain);
    expect((await openWeights(folder, {})).length).toBe(content.length);
    expect(await parseJson("config.json", await readText(folder, "config.json", {}))).toEqual({ a: 1 });
  });
  test("a page instead of JSON", async () => {
    const folder = await folderOf(`${origin}/typeless/`, plain);
    expect(await refused(() => readText(folder, "config.json", {}))).toBe("FILE config.json: expected JSON, got an HTML page");
  });
  test("records and Files", async () => {
    const folder = await folderOf({ "config.json": new Blob(["{}"]), "other.safetensors": content }, plain);
    expect(await readText(folder, "config.json", {})).toEqual(new TextEncoder().encode("{}"));
    expect((await openWeights(folder, {})).name).toBe("other.safetensors");
    const files = await folderOf([new File(["{}"], "config.json"), new File([content], "model.safetensors")] as Iterable<File>, plain);
    expect((await openWeights(files, {})).length).toBe(content.length);
    expect(await refused(async () => openWeights(await folderOf({ "a.safetensors": content, "b.safetensors": content }, plain), {}))).toBe(
      "FILE model.safetensors: expected model.safetensors, model.safetensors.index.json, one other *.safetensors or one *.gguf in source, " +
        "got a.safetensors, b.safetensors",
    );
    expect(await refused(async () => readText(await folderOf({}, plain), "config.json", {}))).toBe(
      "FILE config.json: expected a file, got none",
    );
  });
  test("what names no checkpoint", async () => {
    expect(await refused(() => folderOf(5 as never, plain))).toBe(
      "OPTION source: expected a folder, an address, a file, or files by name, got 5",
    );
    expect(await refused(() => folderOf([5] as never, plain))).toBe("OPTION source: expected Files, got 5");
    const folder = await folderOf({ "config.json": 5 as never }, plain);
    expect(await refused(() => readText(folder, "config.json", {}))).toBe(
      "OPTION config.json: expected a path, an address, a Blob or bytes, got 5",
    );
    expect(await refused(async () => openWeights(await folderOf("/nowhere/at/all", plain), {}))).toMatch(/^FILE all: expected a file/);
  });
});
