// How files may be reached: what requests carry and how far, redirects, origins, addresses that are
// not public. No backend.

import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { accessOf, ask } from "./access.js";
import { folderOf, openFile, readText } from "./folder.js";
import { isPrivate, isPublic } from "./node-addresses.js";
import { files } from "./node-files.js";
import { useModelsPlatform } from "./platform.js";
import { refused } from "./refused.testing.js";
import { openUrl } from "./source.js";
import type { LoadOptions } from "./types.js";

const node = { wasm: {} as never, files, web: { isPrivate } };
const browser = { wasm: {} as never };

interface Seen {
  port: "a" | "b";
  url: string;
  headers: IncomingHttpHeaders;
}
let seen: Seen[] = [];
const origins = { a: "", b: "" };

/**
 * Two origins. `/to/PLACE` redirects there, `a` and `b` in it are the origins; `/loop` to itself;
 * anything else is a file.
 */
const servers = (["a", "b"] as const).map((port): Server =>
  createServer(({ url = "", headers }, response) => {
    seen.push({ port, url, headers });
    const [, status = "302", place] = /^\/to(\d*)\/(.*)$/.exec(url) ?? [];
    if (url === "/loop") response.writeHead(302, { Location: "/loop" }).end();
    else if (url === "/nowhere") response.writeHead(302).end();
    else if (place === undefined) response.writeHead(200).end(`{"port": "${port}"}`);
    else {
      const location = decodeURIComponent(place).replace(/^([ab])\//, (_, name: "a" | "b") => `${origins[name]}/`);
      response.writeHead(Number(status || 302), { Location: location }).end("elsewhere");
    }
  }),
);

beforeAll(async () => {
  for (const [index, name] of (["a", "b"] as const).entries()) {
    const server = servers[index];
    await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
    origins[name] = `http://127.0.0.1:${(server?.address() as AddressInfo).port}`;
  }
});
afterAll(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});
beforeEach(() => {
  seen = [];
  useModelsPlatform(node);
});
afterEach(() => useModelsPlatform(node));

const read = async (path: string, options: LoadOptions = {}): Promise<unknown> => {
  const source = await openUrl("config.json", new URL(path, origins.a), {}, false, accessOf(options));
  return JSON.parse(new TextDecoder().decode(await source?.read(0, source.length, {})));
};

/** A server in a function: each address has its answer. */
const stub =
  (answers: Record<string, () => Response>, asked: [string, RequestInit][] = []): NonNullable<LoadOptions["fetch"]> =>
  (address, init) => {
    asked.push([address, init]);
    const answer = answers[address];
    return answer ? Promise.resolve(answer()) : Promise.reject(new Error(`nobody asks ${address}`));
  };
const to =
  (location: string, status = 302) =>
  (): Response =>
    new Response(null, { status, headers: { Location: location } });
const file = (): Response => new Response("{}");

describe("options", () => {
  test.each([
    [{ headers: "Authorization" }, 'OPTION headers: expected names and values that HTTP can carry, got "Authorization"'],
    [{ headers: { "a b": "c" } }, "OPTION headers: expected names and values that HTTP can carry, got an object"],
    [{ headers: { Range: "bytes=0-1" } }, "OPTION headers: expected no Range, which is said file by file, got one"],
    [{ fetch: 5 }, "OPTION fetch: expected a function, got 5"],
    [{ credentials: "all" }, 'OPTION credentials: expected "omit", "same-origin" or "include", got "all"'],
    [{ allowedOrigins: "https://a.example" }, 'OPTION allowedOrigins: expected a list of origins, got "https://a.example"'],
    [{ allowedOrigins: Array(1) }, 'OPTION allowedOrigins[0]: expected an origin such as "https://example.org", got undefined'],
    [{ allowPrivate: 0 }, "OPTION allowPrivate: expected true or false, got 0"],
    [{ maxFileBytes: 0 }, "OPTION maxFileBytes: expected an integer of 1 or more, got 0"],
    [{ maxFileBytes: 1.5 }, "OPTION maxFileBytes: expected an integer of 1 or more, got 1.5"],
    [{ maxFileBytes: Infinity }, "OPTION maxFileBytes: expected an integer of 1 or more, got Infinity"],
    [{ cache: 5 }, "OPTION cache: expected a name, got 5"],
  ])("%j", async (options, message) => {
    expect(await refused(() => accessOf(options as never))).toBe(message);
  });
  test.each([
    "a.example",
    "https://a.example/path",
    "https://a.example?b",
    "https://u:p@a.example",
    "https://*.example",
    "data:",
    "null",
    5,
  ])("no origin: %s", async (origin) => {
    expect(await refused(() => accessOf({ allowedOrigins: ["https://b.example", origin as string] }))).toBe(
      `OPTION allowedOrigins[1]: expected an origin such as "https://example.org", got ${JSON.stringify(origin)}`,
    );
  });
  test("origins as people write them", () => {
    const { origins } = accessOf({
      allowedOrigins: ["https://A.example/", "https://b.example:443", "http://c.example:80", "http://[::1]:8"],
    });
    expect([...(origins ?? [])]).toEqual(["https://a.example", "https://b.example", "http://c.example", "http://[::1]:8"]);
  });
  test("a header's value is not told", async () => {
    expect(await refused(() => accessOf({ headers: { Authorization: "Bearer secret\nmore" } }))).not.toContain("secret");
    expect(await refused(() => accessOf({ headers: { Authorization: "Bearer gehe\u{1F511}" } }))).not.toContain("gehe");
  });
});

describe("what requests carry", () => {
  test("headers in each form, with each request", async () => {
    const pairs: [string, string][] = [["Authorization", "Bearer t"]];
    for (const headers of [Object.fromEntries(pairs), pairs, new Headers(pairs), new Map(pairs)]) {
      seen = [];
      expect(await read("/config.json", { headers })).toEqual({ port: "a" });
      expect(seen.map(({ headers }) => [headers.authorization, headers.range])).toEqual([["Bearer t", "bytes=0-262143"]]);
    }
  });
  test("headers reach redirects of the same origin, and no other", async () => {
    const headers = { Authorization: "Bearer t", "X-Key": "k" };
    expect(await read("/to/a/to/a/config.json", { headers })).toEqual({ port: "a" });
    expect(seen.map(({ port, headers }) => `${port} ${headers.authorization} ${String(headers["x-key"])}`)).toEqual(
      Array(3).fill("a Bearer t k"),
    );
    seen = [];
    expect(await read("/to/b/config.json", { headers })).toEqual({ port: "b" });
    expect(seen.map(({ port, headers }) => `${port} ${headers.authorization} ${String(headers["x-key"])}`)).toEqual([
      "a Bearer t k",
      "b undefined undefined",
    ]);
    // What is ours goes on.
    expect(seen[1]?.headers.range).toBe("bytes=0-262143");
  });
  test("headers that were left behind do not come back", async () => {
    expect(await read("/to/b/to/a/to/a/config.json", { headers: { Authorization: "Bearer t" } })).toEqual({ port: "a" });
    expect(seen.map(({ port, headers }) => `${port} ${headers.authorization}`)).toEqual([
      "a Bearer t",
      "b undefined",
      "a undefined",
      "a undefined",
    ]);
  });
  test.each([301, 302, 303, 307, 308])("a redirect of %i", async (status) => {
    expect(await read(`/to${status}/b/config.json`)).toEqual({ port: "b" });
  });
  test("a fetch of the caller's makes every request, a redirect's too", async () => {
    const asked: [string, RequestInit][] = [];
    const fetch = stub({ "https://x.example/config.json": to("https://y.example/there"), "https://y.example/there": file }, asked);
    const folder = await folderOf("https://x.example/", accessOf({ fetch, credentials: "include", headers: { A: "b" } }));
    expect(await readText(folder, "config.json", {})).toEqual(new TextEncoder().encode("{}"));
    expect(asked.map(([address, { headers, credentials, redirect }]) => ({ address, headers, credentials, redirect }))).toEqual([
      {
        address: "https://x.example/config.json",
        headers: { a: "b", Range: "bytes=0-262143" },
        credentials: "include",
        redirect: "manual",
      },
      { address: "https://y.example/there", headers: { Range: "bytes=0-262143" }, credentials: "include", redirect: "manual" },
    ]);
  });
  test("a fetch that gives no Response, throws, or does not heed the signal", async () => {
    const at = "https://x.example/config.json";
    const asks = (fetch: unknown, signal?: AbortSignal): Promise<string> =>
      refused(() => ask("config.json", new URL(at), {}, accessOf({ fetch: fetch as never }), signal));
    expect(await asks(() => undefined)).toBe("OPTION fetch: expected a function that gives a Response, got undefined");
    expect(
      await asks(() => {
        throw new Error("no net");
      }),
    ).toBe(`FILE config.json: expected an answer from ${at}, got no net`);
    const controller = new AbortController();
    const waiting = asks(() => new Promise(() => {}), controller.signal);
    controller.abort();
    expect(await waiting).toBe("ABORTED signal: the call was aborted");
    expect(await asks(() => Object.defineProperty(new Response(null), "type", { value: "opaqueredirect" }))).toBe(
      `FILE config.json: expected the file at ${at}, got a redirect that this fetch does not show`,
    );
  });
});

describe("redirects", () => {
  test("that do not end", async () => {
    expect(await refused(() => read("/loop"))).toBe(`FILE config.json: expected at most 20 redirects, got another to ${origins.a}/loop`);
    expect(seen.length).toBe(21);
  });
  test.each(["file:///etc/passwd", "data:application/json,{}", "ftp://127.0.0.1/", "http://", "javascript:1"])(
    "to %s",
    async (location) => {
      expect(await refused(() => read(`/to/${encodeURIComponent(location)}`))).toBe(
        `FILE config.json: expected a redirect to an address of http or https, got ${JSON.stringify(location)}`,
      );
    },
  );
  test("to no address", async () => {
    expect(await refused(() => read("/nowhere"))).toBe(`FILE config.json: expected the file at ${origins.a}/nowhere, got the status 302`);
  });
  test("from https to http", async () => {
    const fetch = stub({ "https://x.example/f": to("http://x.example/f?key=k") });
    expect(await refused(() => ask("f", new URL("https://x.example/f"), {}, accessOf({ fetch }), undefined))).toBe(
      "FILE f: expected a redirect that stays with https, got http://x.example/f",
    );
  });
  test("with a name and password", async () => {
    const fetch = stub({ "https://x.example/f": to("https://u:p@y.example/f") });
    expect(await refused(() => ask("f", new URL("https://x.example/f"), {}, accessOf({ fetch }), undefined))).toBe(
      "FILE f: expected an address without name and password (they go into the option headers), got https://y.example/f",
    );
    // Nor is a key told that a server added.
    const failing = stub({ "https://x.example/f?k=1": to("https://y.example/f?key=2") });
    const asked = (): Promise<Response> => ask("f", new URL("https://x.example/f?k=1"), {}, accessOf({ fetch: failing }), undefined);
    expect(await refused(asked)).toMatch(/^FILE f: expected an answer from https:\/\/y\.example\/f, got /);
  });
});

describe("allowedOrigins", () => {
  const wanted = (): string => `an address of ${origins.a} (option allowedOrigins)`;
  test("every request and every redirect is of one of them", async () => {
    const { a, b } = origins;
    expect(await read("/to/a/config.json", { allowedOrigins: [a] })).toEqual({ port: "a" });
    expect(await read("/to/b/config.json", { allowedOrigins: [a, b] })).toEqual({ port: "b" });
    seen = [];
    expect(await refused(() => read("/to/b/config.json", { allowedOrigins: [a] }))).toBe(
      `FILE config.json: expected ${wanted()}, got ${b}`,
    );
    expect(await refused(() => read("/to/b/to/a/config.json", { allowedOrigins: [a] }))).toContain(`got ${b}`);
    expect(await refused(() => read(`${b}/config.json`, { allowedOrigins: [a] }))).toContain(`got ${b}`);
    expect(seen.map(({ port }) => port)).toEqual(["a", "a"]);
    expect(await refused(() => read("/config.json", { allowedOrigins: [] }))).toBe(
      `FILE config.json: expected no address (option allowedOrigins), got ${a}`,
    );
  });
  test("another port, scheme or host of the same name is another origin", async () => {
    for (const address of ["http://x.example/", "https://x.example:8443/", "https://y.x.example/", "https://x.example.org/"])
      expect(await refused(() => ask("f", new URL(address), {}, accessOf({ allowedOrigins: ["https://x.example"] }), undefined))).toBe(
        `FILE f: expected an address of https://x.example (option allowedOrigins), got ${new URL(address).origin}`,
      );
  });
  test("paths and other addresses are of none", async () => {
    const access = accessOf({ allowedOrigins: [origins.a] });
    for (const source of ["/etc", new URL("file:///etc/")])
      expect(await refused(() => folderOf(source, access))).toBe(
        "FILE source: expected an address, no path (options allowedOrigins, allowPrivate), got a path",
      );
    const folder = await folderOf({ "config.json": "/etc/hostname", "a.json": "data:,1", "b.json": new Blob(["{}"]) }, access);
    expect(await refused(() => openFile(folder, "config.json", {}))).toContain("expected an address, no path");
    expect(await refused(() => openFile(folder, "a.json", {}))).toBe(`FILE a.json: expected ${wanted()}, got data:`);
    // What the caller holds is the caller's.
    expect((await openFile(folder, "b.json", {})).length).toBe(2);
  });
  test("where redirects are followed unseen, by where they ended", async () => {
    const arrived = (url: string): Response => Object.defineProperty(new Response("{}"), "url", { value: url });
    const fetch = stub({
      "https://x.example/a": () => arrived("https://x.example/elsewhere"),
      "https://x.example/b": () => arrived("https://y.example/b"),
    });
    for (const platform of [node, browser]) {
      useModelsPlatform(platform);
      const access = accessOf({ fetch, allowedOrigins: ["https://x.example"] });
      expect((await ask("f", new URL("https://x.example/a"), {}, access, undefined)).status).toBe(200);
      expect(await refused(() => ask("f", new URL("https://x.example/b"), {}, access, undefined))).toBe(
        "FILE f: expected an address of https://x.example (option allowedOrigins), got https://y.example",
      );
    }
  });
  test("a browser follows redirects itself", async () => {
    useModelsPlatform(browser);
    const asked: [string, RequestInit][] = [];
    await ask("f", new URL("https://x.example/a"), {}, accessOf({ fetch: stub({ "https://x.example/a": file }, asked) }), undefined);
    expect(asked[0]?.[1]).not.toHaveProperty("redirect");
  });
});

describe("allowPrivate", () => {
  test.each([
    ..."0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254".split(" "),
    ..."169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255".split(" "),
    ..."198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255".split(" "),
    ..."::1 :: ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:10.0.0.1 ::7f00:1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe".split(" "),
    ..."64:ff9b:1::808:808 fe80::1 fe80::1%lo fec0::1 fc00::1 fdff::1 ff02::1 2001::1 2001:db8::1 2002:7f00:1::".split(" "),
    ..."3fff::1 100::1 4000::1 5f00::1 no-address".split(" "),
  ])("%s is not public", (address) => {
    expect(isPublic(address)).toBe(false);
  });
  test.each([
    ..."1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255".split(" "),
    ..."172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255".split(" "),
    ..."2606:4700:4700::1111 2a00:1450::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808".split(" "),
  ])("%s is public", (address) => {
    expect(isPublic(address)).toBe(true);
  });
  test.each([
    ..."http://127.0.0.1/ http://127.1/ http://2130706433/ http://0x7f.0.0.1/ http://0177.0.0.1/ http://0/ http://[::1]/".split(" "),
    ..."http://[::ffff:127.0.0.1]/ http://[::]/ http://localhost/ http://169.254.169.254/latest/".split(" "),
    ..."https://10.0.0.1:8080/ http://%31%32%37.0.0.1/ http://127。0。0。1/".split(" "),
  ])("%s is refused, unasked", async (address) => {
    const asked: [string, RequestInit][] = [];
    const access = accessOf({ allowPrivate: false, fetch: stub({}, asked) });
    expect(await refused(() => ask("f", new URL(address), {}, access, undefined))).toBe(
      `FILE f: expected a public address (option allowPrivate), got the private one of ${new URL(address).hostname}`,
    );
    expect(asked).toEqual([]);
  });
  test("redirects are looked at, too, and what a fetch brought from elsewhere", async () => {
    const fetch = stub({
      "http://8.8.8.8/a": to("http://1.1.1.1/b", 307),
      "http://1.1.1.1/b": to(`${origins.a}/secret`),
      "http://8.8.8.8/c": () => Object.defineProperty(new Response("{}"), "url", { value: `${origins.a}/secret` }),
      "http://8.8.8.8/d": file,
    });
    const asks = (path: string): Promise<Response> =>
      ask("f", new URL(path, "http://8.8.8.8"), {}, accessOf({ allowPrivate: false, fetch }), undefined);
    for (const path of ["/a", "/c"])
      expect(await refused(() => asks(path))).toBe(
        "FILE f: expected a public address (option allowPrivate), got the private one of 127.0.0.1",
      );
    expect((await asks("/d")).status).toBe(200);
    expect(seen).toEqual([]);
  });
  test("every address that a name has is looked at; a resolver that fails or never answers", async () => {
    const access = accessOf({ allowPrivate: false, fetch: stub({ "http://x.example/": file }) });
    const asks = (isPrivate: () => Promise<boolean>, signal?: AbortSignal): Promise<string> => {
      useModelsPlatform({ ...node, web: { isPrivate } });
      return refused(() => ask("f", new URL("http://x.example/"), {}, access, signal));
    };
    expect(await asks(() => Promise.resolve(true))).toContain("got the private one of x.example");
    expect(await asks(() => Promise.reject(new Error("getaddrinfo ENOTFOUND x.example")))).toBe(
      "FILE f: expected an answer from http://x.example/, got getaddrinfo ENOTFOUND x.example",
    );
    expect(await asks(() => new Promise(() => {}), AbortSignal.timeout(20))).toBe("ABORTED signal: the call was aborted");
  });
  test("paths and other schemes are refused; what an address holds itself is not", async () => {
    const access = accessOf({ allowPrivate: false });
    expect(await refused(() => folderOf("/etc/", access))).toContain("expected an address, no path");
    expect(await refused(() => openUrl("f", new URL("ftp://8.8.8.8/f"), {}, false, access))).toBe(
      "FILE f: expected a public address (option allowPrivate), got ftp:",
    );
    expect((await openUrl("f", new URL("data:,12345"), {}, false, access))?.length).toBe(5);
  });
  test("no one knows in browsers", async () => {
    useModelsPlatform(browser);
    expect(await refused(() => accessOf({ allowPrivate: false }))).toMatch(/^OPTION allowPrivate: expected true outside of Node/);
    expect(accessOf({ allowPrivate: true }).allowPrivate).toBe(true);
  });
});
