// The page's server, asked by raw sockets: ranges as RFC 9110 has them, who may ask, and some
// thousands of requests of any kind, none of which ends it. It runs as a process of its own. Looks
// at no page (test/browser/demo.mjs does).
import { spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { POLICY, serve } from "./serve.mjs";

const DIGITS = "0123456789";
const BIG = "abcdefgh".repeat(40_000);
let folder;
let server;
let port;
let ended = false;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "diffattn-serve-"));
  for (const name of ["dist/model", "own", "adapter", "files", "empty"]) mkdirSync(join(folder, name), { recursive: true });
  for (const [name, content] of Object.entries({
    "secret.txt": "not served",
    "dist/index.html": "<!doctype html>",
    "dist/digits.txt": DIGITS,
    "dist/empty.txt": "",
    "dist/model/model.safetensors": BIG,
    "dist/module.wasm": "\0asm",
    "dist/models.json": '{"models":[{"name":"small"}]}',
    "own/config.json": "{}",
    "own/model.safetensors": DIGITS,
    "own/notes.txt": "not served",
    "own/.hidden.json": "not served",
    "adapter/adapter_config.json": "{}",
    "files/one.gguf": DIGITS,
    "files/two.gguf": "not served",
    "empty/notes.txt": "not served",
  }))
    writeFileSync(join(folder, name), content);
  const models = [
    { name: "own", title: "Own", about: "of here", path: join(folder, "own"), adapter: { path: join(folder, "adapter"), about: "added" } },
    { name: "one", title: "One", path: join(folder, "files/one.gguf") },
  ];
  const program = `import { serve } from ${JSON.stringify(new URL("serve.mjs", import.meta.url).href)};
    console.log((await serve({ port: 0, folder: ${JSON.stringify(join(folder, "dist"))}, models: ${JSON.stringify(models)} })).address);`;
  server = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  server.on("exit", () => (ended = true));
  for await (const address of createInterface({ input: server.stdout })) {
    port = Number(new URL(address).port);
    break;
  }
});
afterAll(() => {
  server.kill();
  rmSync(folder, { recursive: true });
});

/**
 * Writes these bytes to the server and gives all that it answers until it closes. `patience`:
 * milliseconds; then the connection is cut.
 */
function raw(bytes, { patience = 10_000, half = false } = {}) {
  return new Promise((resolve, reject) => {
    const pieces = [];
    const done = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(Buffer.concat(pieces).toString("latin1"));
    };
    const timer = setTimeout(done, patience);
    const socket = connect(port, "localhost", () => {
      socket.write(bytes);
      if (half) socket.end();
    });
    socket.on("data", (piece) => pieces.push(piece));
    socket.on("close", done);
    // Cut off by the server, which may be right; a refused connection is a server that is gone.
    socket.on("error", (error) => (error.code === "ECONNREFUSED" ? reject(error) : done()));
  });
}

/** One well-formed request: `{ status, headers, body }` of its answer. */
async function ask(path, headers = {}, method = "GET", version = "1.1") {
  const fields = Object.entries({ Host: `localhost:${port}`, Connection: "close", ...headers }).filter(([, value]) => value !== undefined);
  const text = await raw(`${method} ${path} HTTP/${version}\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`);
  const [head, ...rest] = text.split("\r\n\r\n");
  const [first, ...lines] = head.split("\r\n");
  return {
    status: Number(first.split(" ")[1]),
    headers: Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 2)])),
    body: rest.join("\r\n\r\n"),
  };
}

async function isWell() {
  const { status, body } = await ask("/digits.txt");
  expect([status, body, ended]).toEqual([200, DIGITS, false]);
}

describe("ranges", () => {
  test.each([
    // [Range, status, body, Content-Range]
    ["bytes=0-5", 206, "012345", "bytes 0-5/10"],
    ["bytes=0-0", 206, "0", "bytes 0-0/10"],
    ["bytes=9-9", 206, "9", "bytes 9-9/10"],
    ["bytes=3-", 206, "3456789", "bytes 3-9/10"],
    ["bytes=-5", 206, "56789", "bytes 5-9/10"],
    ["bytes=-10", 206, DIGITS, "bytes 0-9/10"],
    // A suffix that is longer than the file is the file.
    ["bytes=-11", 206, DIGITS, "bytes 0-9/10"],
    [`bytes=-${"9".repeat(400)}`, 206, DIGITS, "bytes 0-9/10"],
    ["bytes=0-99999999999999999999", 206, DIGITS, "bytes 0-9/10"],
    [`bytes=2-${"9".repeat(400)}`, 206, "23456789", "bytes 2-9/10"],
    ["bytes=5-2", 416, undefined, "bytes */10"],
    ["bytes=-0", 416, undefined, "bytes */10"],
    ["bytes=10-", 416, undefined, "bytes */10"],
    [`bytes=${"9".repeat(400)}-`, 416, undefined, "bytes */10"],
    // Several ranges, other units and what is no range are as if nothing were asked.
    ...[
      "bytes=0-1,4-5",
      "bytes=0-1,-20",
      "items=0-5",
      "bytes",
      "bytes=",
      "bytes=-",
      "bytes=a-b",
      "bytes=1.5-3",
      "bytes=--5",
      "bytes=0x1-2",
    ].map((range) => [range, 200, DIGITS, undefined]),
  ])("%s", async (range, status, body, contentRange) => {
    const answer = await ask("/digits.txt", { Range: range });
    expect([answer.status, answer.headers["content-range"]]).toEqual([status, contentRange]);
    if (body !== undefined) expect([answer.body, answer.headers["content-length"]]).toEqual([body, String(body.length)]);
    expect(answer.headers["content-security-policy"]).toBe(POLICY);
  });

  test.each([
    ["bytes=0-", 416, "bytes */0"],
    ["bytes=-0", 416, "bytes */0"],
    // The last five bytes of nothing are nothing, which no Content-Range can say.
    ["bytes=-5", 200, undefined],
  ])("%s of an empty file", async (range, status, contentRange) => {
    const answer = await ask("/empty.txt", { Range: range });
    expect([answer.status, answer.headers["content-range"]]).toEqual([status, contentRange]);
    if (status === 200) expect(answer.body).toBe("");
  });

  test("are for GET alone; HEAD says what there is", async () => {
    const answer = await ask("/digits.txt", { Range: "bytes=0-5" }, "HEAD");
    expect([answer.status, answer.headers["content-length"], answer.headers["content-range"], answer.body]).toEqual([
      200,
      "10",
      undefined,
      "",
    ]);
  });

  test("If-Range: the very date gives the range, anything else the whole", async () => {
    const { headers } = await ask("/digits.txt");
    const of = async (validator) => (await ask("/digits.txt", { Range: "bytes=0-5", "If-Range": validator })).status;
    expect(await of(headers["last-modified"])).toBe(206);
    expect(await of("Thu, 01 Jan 2099 00:00:00 GMT")).toBe(200);
    // Weak, and thus never a match.
    expect(headers.etag).toMatch(/^W\//);
    for (const validator of [headers.etag, headers.etag.slice(2), '"another"', "*", "garbage"]) expect(await of(validator)).toBe(200);
  });

  test("any two numbers: the bytes that RFC 9110 says", async () => {
    const position = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.bigInt({ min: 0n, max: 10n ** 30n }), fc.constant(""));
    await fc.assert(
      fc.asyncProperty(position, position, async (first, last) => {
        const answer = await ask("/digits.txt", { Range: `bytes=${first}-${last}` });
        if (first === "" && last === "") return void expect(answer.status).toBe(200);
        const [start, end] =
          first === "" ? [10 - Math.min(10, Number(last)), 9] : [Number(first), last === "" ? 9 : Math.min(9, Number(last))];
        if (start > end) return void expect(answer.status).toBe(416);
        expect([answer.status, answer.body]).toEqual([206, DIGITS.slice(start, end + 1)]);
      }),
      { numRuns: 300 },
    );
  });

  test("a part of a large file", async () => {
    const answer = await ask("/model/model.safetensors", { Range: "bytes=100000-299999" });
    expect([answer.status, answer.body === BIG.slice(100_000, 300_000)]).toEqual([206, true]);
  });
});

describe("who asks, and for what", () => {
  test.each([
    ...["localhost", "LOCALHOST", "localhost:8788", "localhost:", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:65535"].map((host) => [
      host,
      200,
    ]),
    ...[
      "example.org",
      "localhost.example.org",
      "example.org:8788",
      "localhost@example.org",
      "127.0.0.2",
      "127.1",
      "2130706433",
      "0.0.0.0",
      "[::]",
      "::1",
      "localhost.",
      "localhost:80:80",
      "localhost/",
      "",
    ].map((host) => [host, 421]),
  ])("Host: %s", async (host, status) => {
    expect((await ask("/digits.txt", { Host: host })).status).toBe(status);
  });

  test("no Host, or two, is a bad request", async () => {
    for (const version of ["1.0", "1.1"]) expect((await ask("/digits.txt", { Host: undefined }, "GET", version)).status).toBe(400);
    expect(await raw("GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\nConnection: close\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect((await ask("/digits.txt", {}, "GET", "1.0")).status).toBe(200);
  });

  test("an address in the place of a path counts as the Host field does", async () => {
    expect((await ask("http://localhost/digits.txt")).body).toBe(DIGITS);
    expect((await ask("http://localhost")).status).toBe(200);
    expect((await ask("http://example.org/digits.txt")).status).toBe(421);
    expect((await ask("http://localhost@example.org/digits.txt")).status).toBe(421);
  });

  test.each([
    ["/", 200],
    ["/?prompt=%", 200],
    ["//", 200],
    ["//digits.txt", 200],
    ["/%64igits.txt", 200],
    ["/model", 404],
    ["/model/", 404],
    ["/digits.txt/", 404],
    ["/none.txt", 404],
    ["/%", 404],
    ["/%ff", 404],
    ["/digits.txt%00", 404],
    ["/../secret.txt", 404],
    ["/%2e%2e/secret.txt", 404],
    ["/model/..%2f..%2fsecret.txt", 404],
    ["/..%5csecret.txt", 404],
    ["*", 400],
    ["digits.txt", 400],
    ["ftp://localhost/digits.txt", 400],
  ])("GET %s", async (path, status) => {
    const answer = await ask(path);
    expect(answer.status).toBe(status);
    expect(answer.body).not.toContain("not served");
  });

  test("a name that no file can have", async () => {
    expect((await ask(`/${"a".repeat(5000)}`)).status).toBe(404);
  });

  test("methods that read, and no others", async () => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND"]) {
      const { status, headers } = await ask("/digits.txt", {}, method);
      expect([status, headers.allow]).toEqual([405, "GET, HEAD"]);
    }
    await ask("localhost:80", {}, "CONNECT");
    await isWell();
  });

  test("types, and what was read before is not sent again", async () => {
    const { headers } = await ask("/module.wasm");
    expect(headers["content-type"]).toBe("application/wasm");
    expect((await ask("/model/model.safetensors", {}, "HEAD")).headers["content-type"]).toBe("application/octet-stream");
    const again = await ask("/module.wasm", { "If-None-Match": headers.etag });
    expect([again.status, again.body, again.headers["content-security-policy"]]).toEqual([304, "", POLICY]);
  });
});

describe("models beside the page", () => {
  const listed = async () => (await (await fetch(`http://localhost:${port}/models.json`)).json()).models;

  test("are told with their files, before the page's own", async () => {
    const [own, one, small] = await listed();
    expect(own).toEqual({
      name: "own",
      title: "Own",
      about: "of here",
      path: expect.stringMatching(/^models\/own-[\da-f]{8}\/$/),
      files: ["config.json", "model.safetensors"],
      bytes: 12,
      adapter: { path: expect.stringMatching(/^models\/own-adapter-[\da-f]{8}\/$/), files: ["adapter_config.json"], about: "added" },
    });
    expect([one.files, one.about, small]).toEqual([["one.gguf"], "", { name: "small" }]);
  });

  test("what is listed is served, by range, under the policy; what lies beside it is not", async () => {
    const [own, one] = await listed();
    const answer = await ask(`/${own.path}model.safetensors`, { Range: "bytes=2-4" });
    expect([answer.status, answer.body, answer.headers["content-security-policy"]]).toEqual([206, "234", POLICY]);
    expect((await ask(`/${own.adapter.path}adapter_config.json`)).body).toBe("{}");
    for (const path of [
      `${own.path}notes.txt`,
      `${own.path}.hidden.json`,
      own.path,
      `${own.path}none.json`,
      `${own.path}%2e%2e/notes.txt`,
      `${one.path}two.gguf`,
      "models/own/config.json",
      "models/",
    ])
      expect((await ask(`/${path}`)).status).toBe(404);
  });

  test("a folder without a model, and a name that is none, are a sentence", async () => {
    const start = (model) => serve({ port: 0, folder: join(folder, "dist"), models: [{ title: "A", ...model }] });
    await expect(start({ name: "a", path: join(folder, "empty") })).rejects.toThrow(/empty: expected the files of a model, got none$/);
    await expect(start({ name: "../a", path: join(folder, "own") })).rejects.toThrow(/^name: expected a name of letters/);
  });
});

test("no request ends it", { timeout: 120_000 }, async () => {
  const token = fc.string({ minLength: 1, maxLength: 12 });
  const bytes = fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b).toString("latin1"));
  const method = fc.oneof(fc.constantFrom("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "CONNECT", "TRACE", "PRI", "get", ""), token);
  const piece = fc.oneof(
    fc.constantFrom(
      "/",
      "//",
      "..",
      "%",
      "%00",
      "%2e%2e",
      "%2f",
      "%c0%af",
      "\\",
      "*",
      "?",
      "#",
      "http://",
      "https://localhost",
      "[::1]",
      "@",
      ":",
      "digits.txt",
      "empty.txt",
      "model",
      "model.safetensors",
    ),
    token,
  );
  const target = fc.oneof(
    fc.constantFrom("/digits.txt", "/model/model.safetensors", "/empty.txt", "*"),
    fc.array(piece, { maxLength: 6 }).map((all) => all.join("")),
    fc.array(piece, { maxLength: 6 }).map((all) => `/${all.join("")}`),
  );
  const number = fc.oneof(
    fc.integer(),
    fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }),
    fc.constantFrom("", "a", "1.5", "NaN", "Infinity", "1e3"),
  );
  const range = fc
    .tuple(
      fc.constantFrom("bytes=", "bytes =", "Bytes=", "items=", ""),
      fc.array(
        fc.tuple(number, number).map(([a, b]) => `${a}-${b}`),
        { maxLength: 4 },
      ),
    )
    .map(([unit, all]) => unit + all.join(","));
  const field = fc.oneof(
    range.map((value) => `Range: ${value}`),
    fc.constantFrom(
      "Host: localhost",
      "Host: example.org",
      "Host: ",
      "Connection: keep-alive",
      "Connection: upgrade",
      "Upgrade: websocket",
      "Upgrade: h2c",
      "Expect: 100-continue",
      "Expect: the moon",
      "Content-Length: 5",
      "Content-Length: -1",
      "Content-Length: 99999999999999999999",
      "Transfer-Encoding: chunked",
      "Transfer-Encoding: identity",
      "If-None-Match: *",
      'If-Match: "x"',
      'If-Range: W/"x"',
      "If-Range: Thu, 01 Jan 1970 00:00:00 GMT",
      "If-Modified-Since: yesterday",
      "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
      "Accept-Encoding: br;q=NaN",
      ": nothing",
      "Host",
      " folded",
    ),
    fc.integer({ min: 1, max: 30_000 }).map((length) => `X-Long: ${"x".repeat(length)}`),
    fc.tuple(token, bytes).map(([name, value]) => `${name}: ${value}`),
  );
  const request = fc
    .tuple(
      method,
      target,
      fc.constantFrom("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", ""),
      fc.boolean(),
      fc.array(field, { maxLength: 5 }),
      fc.constantFrom("\r\n", "\r\n", "\r\n", "\n"),
      bytes,
    )
    .map(
      ([method, target, version, hosted, fields, line, body]) =>
        `${[`${method} ${target} ${version}`, ...(hosted ? ["Host: localhost"] : []), ...fields].join(line)}${line}${line}${body}`,
    );
  // One after the other on a connection, cut anywhere, or no request at all.
  const sent = fc.oneof(
    { weight: 6, arbitrary: request },
    { weight: 2, arbitrary: fc.array(request, { minLength: 2, maxLength: 5 }).map((all) => all.join("")) },
    { weight: 1, arbitrary: bytes },
    {
      weight: 3,
      arbitrary: fc
        .tuple(request, fc.double({ min: 0, max: 1, noNaN: true }))
        .map(([all, part]) => all.slice(0, Math.floor(all.length * part))),
    },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(sent, fc.boolean()), { minLength: 150, maxLength: 250 }), async (batch) => {
      await Promise.all(batch.map(([text, half], i) => raw(Buffer.from(text, "latin1"), { patience: 5 + (i % 40), half })));
      await isWell();
    }),
    // A batch that ends it is a finding as it is: nothing is left to try smaller ones on.
    { numRuns: 25, endOnFailure: true },
  );
});
