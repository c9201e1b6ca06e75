// Models of the hub by name: loaded over an imitation of it, out of the cache the second time, with
// what goes wrong on the way, and with servers that lie.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { commitOf, filesOf, type Hub, type Repo, serveHub } from "../hub/hub.mjs";
import { isNative, models, onEachIsa, refused } from "./backends.js";
import { writtenIds } from "./language-models.js";

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const llama = filesOf(path("test/models/llama"));
const entry = path("packages/diffattn/dist/models-node.js");
/** A file of the size of some blocks of what is sent at once. */
const large = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 31) & 0xff));

const sharded: Record<string, string | Buffer> = {
  ...filesOf(path("test/models/diffllama_gqa")),
  "README.md": "# A card",
  "pytorch_model.bin": "no one reads this",
  "onnx/model.onnx": "nor this",
};
const gguf = { "model.gguf": readFileSync(path("test/models/gguf/q4_1/model.gguf")) };

const main = commitOf({ ...llama, "tokenizer.json": readFileSync(path("examples/model/tokenizer.json")) });
const older = commitOf({ ...llama, "older.txt": "an older commit" });

const repos = (): Record<string, Repo> => ({
  "org/llama": { revisions: { main, "v1.0": older, "feature/x": older, "refs/pr/7": older } },
  "org/gguf": { revisions: { main: commitOf({ ...gguf, "sub/other.gguf": gguf["model.gguf"] }) } },
  "org/diff": { revisions: { main: commitOf(sharded) } },
  "org/adapter": { revisions: { main: commitOf(filesOf(path("test/models/diffattn_llama/adapter"))) } },
  "org/large": { revisions: { main: commitOf({ "data.bin": large, "notes.txt": large }) } },
  "org/private": { isPrivate: true, revisions: { main } },
  "org/gated": { isGated: true, revisions: { main } },
});

let hub: Hub;
let folder: string;
let cache: string;
const settings = Object.entries(process.env).filter(([name]) => /^(HF_|HUGGING|TRANSFORMERS_OFFLINE)/.test(name));

beforeAll(async () => {
  hub = await serveHub({});
});
afterAll(async () => {
  await hub.close();
});
beforeEach(() => {
  for (const name of Object.keys(process.env))
    if (/^(HF_|HUGGING|TRANSFORMERS_OFFLINE)/.test(name)) Reflect.deleteProperty(process.env, name);
  folder = mkdtempSync(join(tmpdir(), "diffattn-hub-"));
  Object.assign(process.env, { HF_HOME: folder, HF_ENDPOINT: hub.address });
  cache = join(folder, "hub");
  Object.assign(hub, { repos: repos(), requests: [], cuts: {}, answers: {}, contents: {}, moved: {}, delay: 0 });
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  for (const name of ["HF_HOME", "HF_ENDPOINT"]) Reflect.deleteProperty(process.env, name);
  Object.assign(process.env, Object.fromEntries(settings));
});

const told = async (body: () => unknown): Promise<string> => {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
};
const asked = (origin: "hub" | "store"): string[] =>
  hub.requests.filter((one) => one.origin === origin).map(({ method, path }) => `${method} ${path.replace(/\?.*$/, "")}`);
const blobs = (repo: string): string[] => readdirSync(join(cache, `models--${repo.replace("/", "--")}`, "blobs")).sort();
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const offline = (): void => {
  process.env["HF_HUB_OFFLINE"] = "1";
};

onEachIsa(() => {
  test("a model by its name writes as one of a folder does, the second time without the hub", async () => {
    using here = await models.LanguageModel.load(path("test/models/llama"));
    const expected = await writtenIds(here, [1, 2, 3], { maxNewTokens: 8 });
    const ids = async (): Promise<number[]> => {
      using model = await models.LanguageModel.load("org/llama");
      expect(model.tokenizer).not.toBeNull();
      return await writtenIds(model, [1, 2, 3], { maxNewTokens: 8 });
    };
    expect(await ids()).toEqual(expected);
    expect(asked("store")).toHaveLength(1);
    // The list alone is asked for again.
    hub.requests.length = 0;
    expect(await ids()).toEqual(expected);
    expect([...asked("hub"), ...asked("store")]).toEqual(["GET /api/models/org/llama/revision/main"]);
    hub.requests.length = 0;
    offline();
    expect(await ids()).toEqual(expected);
    expect(hub.requests).toEqual([]);
  });
});

// (What follows is the same on every backend.)
describe.runIf(isNative)("the hub", () => {
  test("the cache is laid out as the hub's own tools have it", async () => {
    await models.downloadCheckpoint("org/llama");
    const root = join(cache, "models--org--llama");
    expect(readFileSync(join(root, "refs/main"), "utf8")).toBe(main.sha);
    const snapshot = join(root, "snapshots", main.sha);
    expect(readdirSync(snapshot).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    for (const name of readdirSync(snapshot)) {
      expect(lstatSync(join(snapshot, name)).isSymbolicLink()).toBe(true);
      expect(readlinkSync(join(snapshot, name))).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]+$/);
      expect(readFileSync(join(snapshot, name)).equals(main.files[name] ?? Buffer.of())).toBe(true);
    }
    expect(readlinkSync(join(snapshot, "model.safetensors"))).toContain(sha256(llama["model.safetensors"] ?? Buffer.of()));
    expect(blobs("org/llama").map((name) => name.length)).toEqual(expect.arrayContaining([40, 40, 64]));
  });

  test("another revision shares what is the same", async () => {
    await models.downloadCheckpoint("org/llama");
    hub.requests.length = 0;
    for (const source of [
      "org/llama@v1.0",
      "hf:org/llama@feature/x".replace("/x", "%2Fx"),
      "hf:org/llama@refs/pr/7",
      `hf:org/llama@${older.sha}`,
    ]) {
      const { commit } = await models.downloadCheckpoint(source);
      expect(commit).toBe(older.sha);
    }
    expect((await models.downloadCheckpoint("org/llama", { revision: "v1.0" })).commit).toBe(older.sha);
    expect(asked("store")).toEqual([]);
    expect(readFileSync(join(cache, "models--org--llama/refs/refs/pr/7"), "utf8")).toBe(older.sha);
    expect(readFileSync(join(cache, "models--org--llama/refs/feature/x"), "utf8")).toBe(older.sha);
    offline();
    expect((await models.downloadCheckpoint("org/llama@v1.0")).commit).toBe(older.sha);
    expect((await models.downloadCheckpoint(`org/llama@${older.sha}`)).commit).toBe(older.sha);
  });

  test("every way to name it", async () => {
    const expected = (await models.inspectCheckpoint(path("test/models/llama"))).parameters;
    const pages = ["", "/", "/tree/main", "/tree/main/", "/resolve/main/", "?library=x", "#files"];
    const names = ["org/llama", "hf:org/llama", "hf://org/llama", "hf://models/org/llama", "hf:org/llama@main", "hf:org/llama/"];
    for (const source of [
      ...names,
      ...pages.flatMap((page) => [`${hub.address}/org/llama${page}`, `https://huggingface.co/org/llama${page}`]),
    ]) {
      const { parameters } = await models.inspectCheckpoint(source);
      expect(parameters, source).toBe(expected);
    }
    expect((await models.inspectCheckpoint(new URL("https://hf.co/org/llama"))).architecture).toBe("llama");
    for (const source of [
      "org/gguf",
      "hf:org/gguf/model.gguf",
      "hf:org/gguf@main/sub/other.gguf",
      "hf:org/gguf@main/sub",
      "https://huggingface.co/org/gguf/blob/main/model.gguf",
      "https://huggingface.co/org/gguf/resolve/main/sub/other.gguf?download=true",
      "https://huggingface.co/org/gguf/tree/main/sub",
    ]) {
      using model = await models.LanguageModel.load(source);
      expect(model.family, source).toBe("llama");
    }
  });

  test("a file or a folder of this machine wins", async () => {
    const before = process.cwd();
    mkdirSync(join(folder, "org/llama"), { recursive: true });
    for (const [name, bytes] of Object.entries(llama)) writeFileSync(join(folder, "org/llama", name), bytes);
    process.chdir(folder);
    try {
      expect((await models.inspectCheckpoint("org/llama")).architecture).toBe("llama");
      expect(hub.requests).toEqual([]);
      expect(await told(() => models.inspectCheckpoint("org/llama", { revision: "main" }))).toBe(
        'OPTION revision: expected none for what is no model of the hub, got "main"',
      );
      expect((await models.inspectCheckpoint("hf:org/llama")).architecture).toBe("llama");
      expect(hub.requests).not.toEqual([]);
    } finally {
      process.chdir(before);
    }
  });

  test("shards in folders, adapters and conversions take names, too", async () => {
    const bytes = Buffer.from(sharded["model.safetensors"] ?? "");
    const rest = Object.fromEntries(Object.entries(sharded).filter(([name]) => name !== "model.safetensors"));
    const names = (await models.openSafetensors(bytes)).names;
    const index = { metadata: {}, weight_map: Object.fromEntries(names.map((name) => [name, "parts/all.safetensors"])) };
    const files = { ...rest, "parts/all.safetensors": bytes, "model.safetensors.index.json": JSON.stringify(index) };
    hub.repos["org/diff"] = { revisions: { main: commitOf(files) } };
    const found = await models.downloadCheckpoint("org/diff");
    expect([...found.files].sort()).toEqual(
      ["README.md", "config.json", "generation_config.json", "model.safetensors.index.json", "parts/all.safetensors"].sort(),
    );
    expect(readlinkSync(join(found.path, "parts/all.safetensors"))).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\//);
    using model = await models.LanguageModel.load("org/diff");
    expect(model.family).toBe("diffllama");
    using adapted = await models.LanguageModel.load("org/llama", { adapter: "hf:org/adapter" });
    expect(adapted.family).toBe("diffattn_llama");
    const { files: written } = await models.convertModel("hf:org/llama", { to: "v2" });
    expect(Object.keys(written ?? {})).toContain("model.safetensors");
  });

  test("an inspection reads headers, and brings no weights", async () => {
    hub.requests.length = 0;
    const { architecture } = await models.inspectCheckpoint("org/diff");
    expect(architecture).toBe("diffllama");
    expect(blobs("org/diff").every((name) => name.length === 40)).toBe(true);
    using open = await models.openSafetensors("hf:org/diff");
    expect(open.names.length).toBeGreaterThan(10);
    expect(blobs("org/diff").every((name) => name.length === 40)).toBe(true);
  });

  test("a download of some files", async () => {
    const files = async (include: string | string[]): Promise<readonly string[]> =>
      [...(await models.downloadCheckpoint("org/diff", { include })).files].sort();
    expect(await files("*.json")).toEqual(["config.json", "generation_config.json"]);
    expect(await files(["onnx/", "README.??"])).toEqual(["README.md", "onnx/model.onnx"]);
    expect(await files("*")).toEqual(Object.keys(sharded).sort());
    expect(await told(() => files("*.gguf"))).toMatch(/^FILE include: expected names of files of hf:org\/diff, got none of 7 that fits$/);
    expect(await told(() => files([]))).toContain("OPTION include");
    const { path: file } = await models.downloadCheckpoint("hf:org/gguf/model.gguf");
    expect(file).toMatch(/snapshots\/[0-9a-f]{40}\/model\.gguf$/);
    expect(await told(() => models.downloadCheckpoint(path("test/models/llama")))).toMatch(/^OPTION source: expected a model of the hub/);
  });

  test("progress tells what comes", async () => {
    const progress: { done: number; total: number }[] = [];
    await models.downloadCheckpoint("hf:org/large", { include: "data.bin", onProgress: (one) => progress.push(one) });
    expect(progress.at(-1)).toEqual({ done: large.length, total: large.length });
    expect(progress.every(({ done }, i) => done >= (progress[i - 1]?.done ?? 0))).toBe(true);
  });

  describe("a connection that breaks", () => {
    const get = (name: string, signal?: AbortSignal): Promise<unknown> =>
      models.downloadCheckpoint("hf:org/large", { include: name, signal });
    const whole = (name: string): boolean => {
      const [commit = ""] = readdirSync(join(cache, "models--org--large/snapshots"));
      return readFileSync(join(cache, "models--org--large/snapshots", commit, name)).equals(large);
    };

    test.each(["data.bin", "notes.txt"])("is gone on with where it ended: %s", async (name) => {
      hub.cuts[name] = [100_000, 70_000];
      await get(name);
      expect(whole(name)).toBe(true);
      const from = name === "data.bin" ? "store" : "hub";
      const ranges = hub.requests.flatMap(({ origin, path, range }) => (origin === from && !path.startsWith("/api/") && range) || []);
      expect(ranges).toHaveLength(2);
      for (const range of ranges) expect(range).toMatch(/^bytes=[1-9]\d*-$/);
      expect(blobs("org/large").filter((one) => one.includes("incomplete"))).toEqual([]);
    });

    test("again and again ends in one sentence, and the next call goes on", async () => {
      hub.cuts["data.bin"] = Array<number>(6).fill(30_000);
      expect(await told(() => get("data.bin"))).toMatch(
        /^FILE data\.bin: expected 300000 bytes, got \d+ of them after 6 tries, from where the next call goes on \(.+\)$/,
      );
      const [left = ""] = blobs("org/large");
      expect(left).toMatch(/^[0-9a-f]{64}\..*\.incomplete$/);
      const size = statSync(join(cache, "models--org--large/blobs", left)).size;
      expect(size).toBeGreaterThan(0);
      hub.requests.length = 0;
      await get("data.bin");
      expect(hub.requests.find(({ origin }) => origin === "store")?.range).toBe(`bytes=${size}-`);
      expect(whole("data.bin")).toBe(true);
    });

    test("by an abort, which leaves what came", async () => {
      const stop = new AbortController();
      const options = { include: "data.bin", signal: stop.signal, onProgress: () => stop.abort() };
      expect(await told(() => models.downloadCheckpoint("hf:org/large", options))).toBe("ABORTED signal: the call was aborted");
      expect(blobs("org/large")).toHaveLength(1);
      await get("data.bin");
      expect(whole("data.bin")).toBe(true);
    });

    test("what older tools of the hub left is gone on with, and so is what is wrong in it", async () => {
      const name = sha256(large);
      const left = join(cache, "models--org--large/blobs", `${name}.incomplete`);
      for (const bytes of [large.subarray(0, 1000), Buffer.alloc(1000)]) {
        rmSync(join(cache, "models--org--large"), { recursive: true, force: true });
        mkdirSync(join(left, ".."), { recursive: true });
        writeFileSync(left, bytes);
        utimesSync(left, 1, 1);
        hub.requests.length = 0;
        await get("data.bin");
        expect(hub.requests.find(({ origin }) => origin === "store")?.range).toBe("bytes=1000-");
        expect(whole("data.bin")).toBe(true);
      }
    });

    test("and a store that knows no ranges begins anew", async () => {
      hub.cuts["notes.txt"] = [100_000];
      let tries = 0;
      const file = `/org/large/resolve/${hub.repos["org/large"]?.revisions["main"]?.sha}/notes.txt`;
      const etag = createHash("sha1").update(`blob ${large.length}\0`).update(large).digest("hex");
      hub.answers[file] = ({ method }, response) => {
        response.writeHead(200, { "Content-Length": large.length, ETag: `"${etag}"` });
        if (method === "HEAD") return response.end();
        tries += 1;
        return tries > 1 ? response.end(large) : response.write(large.subarray(0, 5000), () => setTimeout(() => response.destroy(), 20));
      };
      await get("notes.txt");
      expect(whole("notes.txt")).toBe(true);
      expect(tries).toBe(2);
    });
  });

  test("two processes at once: both read it, and one of them brings it", async () => {
    hub.delay = 500;
    const script = `import { LanguageModel } from ${JSON.stringify(entry)};
    using model = await LanguageModel.load("org/llama");
    const ids = [];
    for await (const { id } of model.generate([1, 2, 3], { maxNewTokens: 4 })) ids.push(id);
    console.log(JSON.stringify(ids));`.replace("using model", "const model");
    writeFileSync(join(folder, "load.mjs"), script);
    const load = promisify(execFile);
    const both = await Promise.all([1, 2, 3].map(() => load(process.execPath, [join(folder, "load.mjs")], { env: process.env })));
    expect(new Set(both.map(({ stdout }) => stdout)).size).toBe(1);
    expect(blobs("org/llama").filter((name) => name.includes("incomplete"))).toEqual([]);
    expect(asked("store")).toHaveLength(1);
  });

  test("where there can be no links, files lie in the snapshot themselves", async () => {
    process.env["HF_HUB_DISABLE_SYMLINKS"] = "1";
    const { path: at } = await models.downloadCheckpoint("org/llama");
    expect(lstatSync(join(at, "model.safetensors")).isFile()).toBe(true);
    offline();
    expect((await models.downloadCheckpoint("org/llama")).path).toBe(at);
  });

  describe("the token", () => {
    test("goes to the hub, and to no other origin", async () => {
      process.env["HF_TOKEN"] = "hf_good";
      await models.downloadCheckpoint("org/private");
      expect(new Set(hub.requests.filter(({ origin }) => origin === "hub").map(({ token }) => token))).toEqual(new Set(["Bearer hf_good"]));
      expect(new Set(hub.requests.filter(({ origin }) => origin === "store").map(({ token }) => token))).toEqual(new Set([undefined]));
      expect(asked("store").length).toBeGreaterThan(0);
    });
    test("is the option's, the environment's, or the one that was kept", async () => {
      expect((await models.inspectCheckpoint("org/private", { token: "hf_good" })).architecture).toBe("llama");
      writeFileSync(join(folder, "token"), "hf_good\n");
      expect((await models.inspectCheckpoint("org/private")).architecture).toBe("llama");
      hub.requests.length = 0;
      await told(() => models.inspectCheckpoint("org/private", { token: null }));
      process.env["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1";
      await told(() => models.inspectCheckpoint("org/private"));
      expect(hub.requests.map(({ token }) => token)).toEqual([undefined, undefined]);
    });
    test("is not for sources of strangers, nor is the cache", async () => {
      process.env["HF_TOKEN"] = "hf_good";
      await models.downloadCheckpoint("org/private");
      hub.requests.length = 0;
      const allowedOrigins = [hub.address, hub.storeAddress];
      expect(await told(() => models.inspectCheckpoint("hf:org/private", { allowedOrigins }))).toContain(
        "FILE source: expected a model that may be read",
      );
      expect(hub.requests.map(({ token }) => token)).toEqual([undefined]);
      expect((await models.inspectCheckpoint("hf:org/llama", { allowedOrigins })).architecture).toBe("llama");
      expect(readdirSync(cache)).toEqual(["models--org--private"]);
      expect(await told(() => models.inspectCheckpoint("org/llama", { allowPrivate: false }))).toMatch(/expected a public address/);
    });
    test("is in no error", async () => {
      for (const token of ["hf_secret", "hf secret", "hf_secret\n"])
        expect(await told(() => models.inspectCheckpoint("org/private", { token }))).not.toContain("secret");
      process.env["HF_TOKEN"] = "hf secret";
      expect(await told(() => models.inspectCheckpoint("org/private"))).toBe(
        "OPTION HF_TOKEN: expected a token of the hub, got another text",
      );
    });
  });

  describe("one sentence for what the hub refuses", () => {
    const why = (source: string, options = {}): Promise<string> => told(() => models.LanguageModel.load(source, options));
    const page = (repo: string): string => `${hub.address}/${repo}`;

    test("401: none, or one that wants a token", async () => {
      expect(await why("hf:org/private")).toBe(
        `FILE source: expected a model that may be read at ${page("org/private")}, got none of that name, or one that wants a token (option token, HF_TOKEN)`,
      );
      expect(await why("hf:org/private", { token: "hf_bad" })).toBe(
        `FILE source: expected a model that may be read at ${page("org/private")}, got a token that is not taken`,
      );
      expect(await why("org/none")).toMatch(/\(nor is there a file or folder of that name here\)$/);
    });
    test("403: gated", async () => {
      expect(await why("org/gated", { token: "hf_good" })).toBe(
        `FILE config.json: expected leave to read ${page("org/gated")}, which is asked for there, got the status 403 with the token's owner`,
      );
      expect(await why("org/gated")).toMatch(/which is asked for there, got the status 401 with no token \(option token, HF_TOKEN\)$/);
    });
    test("404: repository, revision, file", async () => {
      expect(await why("hf:org/none", { token: "hf_good" })).toBe(
        `FILE source: expected a model at ${page("org/none")}, got none of that name`,
      );
      expect(await why("org/llama@v9")).toBe(`FILE revision: expected a branch, a tag or a commit of ${page("org/llama")}, got "v9"`);
      expect(await why("hf:org/llama/none.gguf")).toBe(
        `FILE source: expected a file of org/llama, commit ${main.sha.slice(0, 8)}, got none called none.gguf`,
      );
      hub.answers["config.json"] = (_, response) => response.writeHead(404, { "X-Error-Code": "EntryNotFound" }).end();
      expect(await why("org/llama")).toMatch(/^FILE config\.json: expected the file at .*, got the status 404$/);
    });
    test("offline without a cache, and a hub that does not answer", async () => {
      offline();
      expect(await why("org/llama")).toBe(
        `FILE source: expected org/llama, revision main, in the cache (${join(cache, "models--org--llama/snapshots")}), got none, and HF_HUB_OFFLINE is set; nor is there a file or folder of that name here`,
      );
      process.env["HF_HUB_OFFLINE"] = "0";
      process.env["HF_ENDPOINT"] = "http://127.0.0.1:9";
      expect(await why("hf:org/llama")).toMatch(
        /^FILE source: expected an answer from http:\/\/127\.0\.0\.1:9, or org\/llama, revision main, in the cache \(.*\), got .*\S$/,
      );
    });
    test("a hub that does not answer, or is not well, and a cache", async () => {
      await models.downloadCheckpoint("org/llama");
      hub.answers["/api/models/org/llama/revision/main"] = (_, response) => response.writeHead(503).end();
      expect((await models.downloadCheckpoint("org/llama")).commit).toBe(main.sha);
      process.env["HF_HUB_ETAG_TIMEOUT"] = "0.2";
      hub.answers["/api/models/org/llama/revision/main"] = () => {};
      expect((await models.downloadCheckpoint("org/llama")).commit).toBe(main.sha);
      process.env["HF_ENDPOINT"] = "http://127.0.0.1:9";
      expect((await models.downloadCheckpoint("org/llama")).commit).toBe(main.sha);
      // What it never had is told as what it is.
      expect(await told(() => models.downloadCheckpoint("org/llama", { include: "*.txt" }))).toContain(
        "hf:org/llama as it is in the cache",
      );
    });
    test("an address of the hub that is none, which no path minds", async () => {
      process.env["HF_ENDPOINT"] = "nowhere";
      expect(await why("hf:org/llama")).toBe('OPTION HF_ENDPOINT: expected the address of a hub, got "nowhere"');
      expect((await models.inspectCheckpoint(path("test/models/llama"))).architecture).toBe("llama");
    });
    test("a repository that was renamed is found", async () => {
      hub.moved["org/old"] = "org/llama";
      expect((await models.inspectCheckpoint("org/old")).architecture).toBe("llama");
    });
    test.each([
      "hf:",
      "hf:a/b/../c",
      "hf:../x",
      "hf:a--b/c",
      "hf:.a/b",
      "hf:a/b.",
      "hf:a b/c",
      "hf:a/b@",
      "hf:a/b@../x",
      "hf:a/b@v1/../../x",
      "hf:a/b/c\\d",
      "hf:datasets/a/b",
      `hf:a/${"b".repeat(100)}`,
    ])("a wrong name: %s", async (name) => {
      expect(await why(name)).toMatch(/^OPTION (source|revision): expected /);
      expect(hub.requests).toEqual([]);
    });
  });

  describe("a server that lies", () => {
    const list = (files: unknown, sha: unknown = main.sha): void => {
      const siblings = Array.isArray(files) ? files.map((rfilename: unknown) => ({ rfilename })) : files;
      hub.answers["/api/models/org/llama/revision/main"] = (_, response) => response.end(JSON.stringify({ sha, siblings }));
    };
    const get = (include = "*"): Promise<string> => told(() => models.downloadCheckpoint("org/llama", { include }));
    const file = (headers: Record<string, string>, body: Uint8Array = Buffer.from("{}")): void => {
      hub.answers["config.json"] = ({ method }, response) => {
        response.writeHead(200, headers);
        response.end(method === "HEAD" ? undefined : body);
      };
    };
    const sha1 = (text: string): string => createHash("sha1").update(`blob ${text.length}\0${text}`).digest("hex");

    test.each(["../x", "a/../../x", "/etc/x", "a//b", "", "..", "a\\..\\b", "C:x", "a\u0000b", "a/..", "a.", "a".repeat(300)])(
      "of names, which are none: %j",
      async (name) => {
        list(["config.json", name]);
        expect((await models.downloadCheckpoint("org/llama", { include: "*" })).files).toEqual(["config.json"]);
        expect(readdirSync(folder)).toEqual(["hub"]);
        expect(asked("hub")).toHaveLength(3);
      },
    );
    test("of commits, and of what a list is", async () => {
      list(["config.json"], "../../x");
      expect(await get()).toBe('FILE the list of org/llama: expected a commit, got "../../x"');
      list(["config.json", 5]);
      expect(await get()).toBe("FILE the list of org/llama: expected names of files, got 5");
      list(5);
      expect(await get()).toMatch(/^FILE the list of org\/llama: expected a list of at most 100000 files, got 5/);
      hub.answers["/api/models/org/llama/revision/main"] = (_, response) => response.end("<html>");
      expect(await get()).toMatch(/^FILE the list of org\/llama: expected /);
      file({ ETag: `"${sha1("{}")}"`, "X-Repo-Commit": older.sha });
      Reflect.deleteProperty(hub.answers, "/api/models/org/llama/revision/main");
      expect(await get("config.json")).toBe(`FILE config.json: expected the file of commit ${main.sha}, got that of ${older.sha}`);
    });
    test.each(['"../../../x"', '"/etc/x"', '".."', '""', '"a/b"', "W/", `"${"a".repeat(200)}"`])("of ETags: %s", async (ETag) => {
      file({ ETag });
      expect(await get("config.json")).toMatch(/^FILE config\.json: expected an ETag of the file at .*, got none that names its content$/);
    });
    test("of contents: what came is not kept", async () => {
      file({ ETag: `"${"0".repeat(40)}"` });
      expect(await get("config.json")).toBe(`FILE config.json: expected bytes of the SHA-1 (Git's) ${"0".repeat(40)}, got ${sha1("{}")}`);
      const weights = main.files["model.safetensors"] ?? Buffer.of();
      hub.contents[sha256(weights)] = Buffer.alloc(weights.length);
      expect(await get("model.safetensors")).toMatch(
        /^FILE model\.safetensors: expected bytes of the SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}$/,
      );
      expect(blobs("org/llama")).toEqual([]);
    });
    test("of lengths", async () => {
      const weights = main.files["model.safetensors"] ?? Buffer.of();
      hub.contents[sha256(weights)] = Buffer.concat([weights, weights]);
      expect(await get("model.safetensors")).toBe(`FILE model.safetensors: expected ${weights.length} bytes, got more`);
      expect(blobs("org/llama")).toEqual([]);
      file({ ETag: `"${sha1("{}")}"`, "X-Linked-Size": String(2 ** 40) });
      expect(await get("config.json")).toBe(`FILE config.json: expected at most ${2 ** 26} bytes (option maxFileBytes), got ${2 ** 40}`);
      // One that is not said is counted.
      file({ ETag: `"${sha1("{}")}"`, "Transfer-Encoding": "chunked" }, Buffer.alloc(2000, 32));
      expect(await told(() => models.downloadCheckpoint("org/llama", { include: "config.json", maxFileBytes: 1500 }))).toBe(
        "FILE config.json: expected at most 1500 bytes (option maxFileBytes), got more",
      );
      file({ ETag: `"${sha1("{}")}"`, "X-Linked-Size": String(2 ** 52) });
      list(["config.bin"]);
      hub.answers["config.bin"] = hub.answers["config.json"] ?? (() => {});
      expect(await get()).toMatch(/^FILE config\.bin: expected \d+ bytes of room in .*blobs, got \d+$/);
    });
    test("of where it lies", async () => {
      for (const Location of ["file:///etc/passwd", "data:,x"]) {
        hub.answers["config.json"] = (_, response) => response.writeHead(302, { Location }).end();
        expect(await get("config.json")).toMatch(/^FILE config\.json: expected a redirect to an address of http or https, got /);
      }
    });
  });
});
