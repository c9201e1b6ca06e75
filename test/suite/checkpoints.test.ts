// Checkpoints through the public API: where they come from, what they hold, files that are no
// checkpoints, what is written.

import { execFileSync } from "node:child_process";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { sameBits } from "./compare.js";

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const gqa = path("test/models/diffllama_gqa");
const NAMES = ["config.json", "generation_config.json", "model.safetensors"];
/** What a language model is asked for besides. */
const TEXTS = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
const fileOf = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(join(gqa, name)));
const tokenizer = path("examples/model/tokenizer.json");

let folder = "";
/**
 * Serves the folder: below /ranges/ by range, below /whole/ not, below /html/ a page for
 * everything, below /spa/ one for what is missing.
 */
const server = createServer(({ url = "", headers }, response) => {
  const [, how = "", ...rest] = decodeURIComponent(new URL(url, "http://localhost").pathname).split("/");
  const file = join(folder, ...rest);
  const page = (status: number): void => {
    response.writeHead(status, { "Content-Type": "text/html" }).end("<!doctype html><title>no</title>");
  };
  if (how === "html" && !file.endsWith("config.json")) {
    page(200);
    return;
  }
  if (!existsSync(file)) {
    page(how === "spa" ? 200 : 404);
    return;
  }
  const body = readFileSync(file);
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? [];
  if (how === "whole" || first === undefined || last === undefined) return void response.writeHead(200).end(body);
  const end = Math.min(Number(last) + 1, body.length);
  response.writeHead(206, { "Content-Range": `bytes ${first}-${end - 1}/${body.length}` }).end(body.subarray(Number(first), end));
});
let origin = "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "diffattn-checkpoints-"));
  for (const name of NAMES) copyFileSync(join(gqa, name), join(folder, name));
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  origin = `http://localhost:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

async function named(body: () => unknown): Promise<string> {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
}

const ids = [1, 5, 9, 3];
const logits = async (
  source: modelTypes.CheckpointSource,
  options?: modelTypes.ModelLoadOptions,
): Promise<Awaited<ReturnType<modelTypes.DiffLlama["forward"]>>> => {
  const model = await models.DiffLlama.load(source, options);
  try {
    return await model.forward(ids);
  } finally {
    model.dispose();
  }
};

/** A safetensors file of this header and these bytes. */
function raw(header: unknown, bytes = 0, length?: bigint): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + bytes);
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  file.set(json, 8);
  return file;
}

onEachIsa(() => {
  test("the same model from a path, addresses, blobs, bytes and shards", async () => {
    const expected = await logits(gqa);
    const sources: modelTypes.CheckpointSource[] = [
      new URL(`file://${folder}/`),
      join(folder, "model.safetensors"),
      `${origin}/ranges/`,
      new URL(`${origin}/whole/`),
      `${origin}/spa/`,
      `${origin}/ranges/model.safetensors`,
      Object.fromEntries(NAMES.map((name) => [name, fileOf(name)])),
      Object.fromEntries(NAMES.map((name) => [name, new Blob([fileOf(name)])])),
      Object.fromEntries(NAMES.map((name) => [name, `${origin}/ranges/${name}`])),
      NAMES.map((name) => new File([fileOf(name)], name)) as Iterable<File>,
    ];
    for (const source of sources) sameBits(await logits(source), expected);
  });

  test("shards, by their index", async () => {
    const expected = await logits(gqa);
    const whole = await models.openSafetensors(gqa);
    const shards = mkdtempSync(join(folder, "shards-"));
    const weightMap: Record<string, string> = {};
    for (const shard of [0, 1]) {
      const name = `model-0000${shard + 1}-of-00002.safetensors`;
      const tensors: Record<string, modelTypes.StoredTensor> = {};
      for (const tensor of whole.names.filter((_, i) => i % 2 === shard)) {
        tensors[tensor] = await whole.read(tensor);
        weightMap[tensor] = name;
      }
      await models.saveSafetensors(tensors, { target: join(shards, name), metadata: { format: "pt", [`shard${shard}`]: "yes" } });
    }
    const index = JSON.stringify({ metadata: { total_size: 1 }, weight_map: weightMap });
    writeFileSync(join(shards, "model.safetensors.index.json"), index);
    copyFileSync(join(gqa, "config.json"), join(shards, "config.json"));
    expect(readdirSync(shards).length).toBe(4);
    const at = shards.slice(folder.length);
    for (const source of [shards, `${origin}/ranges${at}/`, `${origin}/whole${at}/`]) sameBits(await logits(source), expected);

    const open = await models.openSafetensors(join(shards, "model.safetensors.index.json"));
    expect([...open.names].sort()).toEqual([...whole.names].sort());
    expect(open.metadata).toEqual({ format: "pt", shard0: "yes", shard1: "yes" });
    for (const { name, file } of open.tensors) expect(file).toBe(weightMap[name]);
    const [name = ""] = whole.names;
    expect(await open.read(name)).toEqual(await whole.read(name));
    open.dispose();
    whole.dispose();

    rmSync(join(shards, "model-00002-of-00002.safetensors"));
    expect(await named(() => logits(shards))).toMatch(/^FILE model-00002-of-00002.safetensors: expected a file in .*, got none/);
  });

  test("shards in folders beside their index, and none outside", async () => {
    const expected = await logits(gqa);
    const shards = mkdtempSync(join(folder, "folders-"));
    const name = "parts/of 1/model-1.safetensors";
    mkdirSync(join(shards, "parts", "of 1"), { recursive: true });
    copyFileSync(join(gqa, "model.safetensors"), join(shards, name));
    copyFileSync(join(gqa, "config.json"), join(shards, "config.json"));
    const open = await models.openSafetensors(gqa);
    const indexOf = (shard: string): string =>
      JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(open.names.map((tensor) => [tensor, shard])) });
    open.dispose();
    writeFileSync(join(shards, "model.safetensors.index.json"), indexOf(name));
    const record = {
      "config.json": fileOf("config.json"),
      "model.safetensors.index.json": new TextEncoder().encode(indexOf(name)),
      [name]: fileOf("model.safetensors"),
    };
    // As a browser gives the files of a chosen folder: names alone, paths beside.
    const chosen = Object.entries({ ...record, "parts/config.json": new TextEncoder().encode("{}") }).map(([path, bytes]) =>
      Object.defineProperty(new File([bytes], path.split("/").at(-1) ?? ""), "webkitRelativePath", { value: `chosen/${path}` }),
    );
    const at = shards.slice(folder.length);
    for (const source of [
      shards,
      `${origin}/ranges${at}/`,
      record,
      chosen as Iterable<File>,
      Object.entries(record).map(([path, bytes]) => new File([bytes], path)) as Iterable<File>,
    ]) {
      sameBits(await logits(source), expected);
    }
    for (const outside of ["../x.safetensors", "/x.safetensors", "C:x.safetensors", "a\\x.safetensors", "a/../../x.safetensors", "a//x"]) {
      const index = new TextEncoder().encode(indexOf(outside));
      for (const source of [{ ...record, "model.safetensors.index.json": index, [outside]: record[name] }])
        expect(await named(() => logits(source))).toMatch(
          /^FILE model\.safetensors\.index\.json, tensor .*: expected the name of a file beside the index/,
        );
    }
  });

  describe("what is odd is loaded and told", () => {
    const text = (x: unknown): Uint8Array<ArrayBuffer> => new TextEncoder().encode(typeof x === "string" ? x : JSON.stringify(x));
    type Tensors = Record<string, modelTypes.StoredTensor>;
    const TABLE = "model.embed_tokens.weight";
    const HEAD = "lm_head.weight";
    const read = async (name: string): Promise<{ config: Record<string, unknown>; tensors: Tensors }> => {
      const open = await models.openSafetensors(path(`test/models/${name}`));
      const tensors: Tensors = {};
      for (const tensor of open.names) tensors[tensor] = await open.read(tensor);
      open.dispose();
      return { config: JSON.parse(readFileSync(path(`test/models/${name}/config.json`), "utf8")) as Record<string, unknown>, tensors };
    };
    const filesOf = async (config: unknown, tensors: Tensors): Promise<Record<string, Uint8Array>> => ({
      "config.json": text(config),
      "model.safetensors": (await models.saveSafetensors(tensors)) ?? new Uint8Array(),
    });
    const renamed = (tensors: Tensors, rename: (name: string) => string): Tensors =>
      Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [rename(name), tensor]));
    /** Logits, what was told, and what an inspection says. */
    const told = async (
      config: unknown,
      tensors: Tensors,
    ): Promise<{ y: Awaited<ReturnType<typeof logits>>; notices: string[]; found: modelTypes.Inspection }> => {
      const files = await filesOf(config, tensors);
      const notices: string[] = [];
      const y = await logits(files, { onNotice: (notice) => notices.push(notice) });
      return { y, notices, found: await models.inspectCheckpoint(files) };
    };

    test("a sound one: nothing", async () => {
      const { config, tensors } = await read("diffllama_gqa");
      const { notices, found } = await told(config, tensors);
      expect([notices, found.warnings, found.missing, found.unexpected]).toEqual([[], [], [], []]);
    });

    test("a head of the file's own wins over a config that ties it", async () => {
      const { config, tensors } = await read("diffllama_gqa");
      const untied = await told(config, tensors);
      const claimed = await told({ ...config, tie_word_embeddings: true }, tensors);
      sameBits(claimed.y, untied.y);
      expect(claimed.notices).toEqual([expect.stringContaining("the file's own head is used")]);
      expect(claimed.found.warnings).toEqual(claimed.notices);
      // Equal, absent, or the head alone: tied, to the same bits.
      const { [HEAD]: head, ...without } = tensors;
      const table = tensors[TABLE];
      if (!head || !table) throw new Error("no embeddings");
      const tied = await told({ ...config, tie_word_embeddings: true }, without);
      expect([tied.notices, tied.found.warnings]).toEqual([[], []]);
      expect(tied.y.data).not.toEqual(untied.y.data);
      sameBits((await told({ ...config, tie_word_embeddings: true }, { ...without, [HEAD]: table })).y, tied.y);
      const headOnly = renamed(without, (name) => (name === TABLE ? HEAD : name));
      const alone = await told({ ...config, tie_word_embeddings: true }, headOnly);
      sameBits(alone.y, tied.y);
      expect(alone.notices).toEqual([expect.stringContaining("is both")]);
      expect(alone.found).toMatchObject({ warnings: alone.notices, missing: [], unexpected: [] });
    });

    test.each(["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."])("names behind %s", async (prefix) => {
      for (const name of ["diffllama_gqa", "diff_vit"] as const) {
        const { config, tensors } = await read(name);
        const wrapped = renamed(tensors, (tensor) => `${prefix}${tensor}`);
        const found = await models.inspectCheckpoint(await filesOf(config, wrapped));
        expect(found).toMatchObject({ missing: [], unexpected: [], warnings: [expect.stringContaining("prefix")] });
        expect(found.architecture).toBe(name === "diff_vit" ? "diff_vit" : "diffllama");
        const notices: string[] = [];
        const onNotice = (notice: string): void => void notices.push(notice);
        if (name === "diff_vit") {
          (await models.DiffViT.load(await filesOf(config, wrapped), { onNotice })).dispose();
        } else {
          sameBits(await logits(await filesOf(config, wrapped), { onNotice }), await logits(gqa));
        }
        expect(notices).toEqual(found.warnings);
      }
    });

    test("a base model's names", async () => {
      const { config, tensors } = await read("diffllama_mha");
      const whole = await told(config, tensors);
      const base = await told(
        config,
        renamed(tensors, (name) => name.replace(/^model\./, "")),
      );
      sameBits(base.y, whole.y);
      expect(base.found).toMatchObject({ architecture: "diffllama", missing: [], unexpected: [], warnings: base.notices });
      expect(base.notices).toEqual([expect.stringContaining("prefix model.")]);
    });

    test("weights of no use, fewer layers, elements of F64", async () => {
      const { config, tensors } = await read("diffllama_mha");
      const plain = await told(config, tensors);
      const value = { dtype: "F32" as const, shape: [1], data: new Uint8Array(4) };
      const extra = await told(config, { ...tensors, "v_head.summary.weight": value });
      sameBits(extra.y, plain.y);
      expect(extra.notices).toEqual(["tensors that the model has no use for stay unread: v_head.summary.weight"]);
      expect(extra.found.unexpected).toEqual(["v_head.summary.weight"]);
      // What would change the numbers of a module that the model has is no extra.
      expect(await named(() => told(config, { ...tensors, "model.layers.1.self_attn.q_norm.weight": value }))).toMatch(
        /^FILE weights\.model\.layers\.1\.self_attn\.q_norm\.weight: expected only weights that the model has/,
      );

      const two = { ...config, num_hidden_layers: 2 };
      const fewer = await told(two, tensors);
      const cut = Object.fromEntries(Object.entries(tensors).filter(([name]) => !name.startsWith("model.layers.2.")));
      sameBits(fewer.y, (await told(two, cut)).y);
      expect(fewer.notices[0]).toBe("config.json says 2 layers, but the tensors have 3");
      expect(fewer.found.warnings).toContain(fewer.notices[0]);
      expect(fewer.found.unexpected.length).toBe(13);

      const wide = Object.fromEntries(
        Object.entries(tensors).map(([name, { shape, data }]) => {
          const values = Float64Array.from(new Float32Array(data.slice().buffer));
          return [name, { dtype: "F64" as const, shape, data: new Uint8Array(values.buffer) }];
        }),
      );
      const double = await told(config, wide);
      sameBits(double.y, plain.y);
      expect(double.notices).toEqual([expect.stringContaining("elements of F64")]);
      expect(double.found.warnings).toEqual(double.notices);
    });

    test("what tells and what limits is checked", async () => {
      expect(await named(() => models.DiffLlama.load(gqa, { onNotice: 1 as never }))).toMatch(
        /^OPTION onNotice: expected a function, got 1/,
      );
      for (const maxTensors of [-1, 0.5, NaN])
        expect(await named(() => models.openSafetensors(gqa, { maxTensors }))).toMatch(/^OPTION maxTensors: /);
      expect(await named(() => models.openSafetensors(gqa, { maxTensors: "1" as never }))).toMatch(/^OPTION maxTensors: /);
      const open = await models.openSafetensors(gqa);
      const few = { maxTensors: open.names.length - 1 };
      open.dispose();
      (await models.openSafetensors(gqa, { maxTensors: few.maxTensors + 1 })).dispose();
      for (const body of [
        () => models.openSafetensors(gqa, few),
        () => models.inspectCheckpoint(gqa, few),
        () => models.DiffLlama.load(gqa, few),
        () => models.DiffViT.load(path("test/models/diff_vit"), few),
        () => models.convertCheckpoint(gqa, { dtype: "F16", ...few }),
      ]) {
        expect(await named(body)).toMatch(/^FILE model\.safetensors: expected at most \d+ tensors \(maxTensors\), got more/);
      }
      const many = Object.fromEntries(
        Array.from({ length: 65537 }, (_, i) => [`model.layers.${i}.weight`, { dtype: "U8", shape: [0], data_offsets: [0, 0] }]),
      );
      expect(await named(() => models.openSafetensors(raw(many)))).toMatch(/^FILE source: expected at most 65536 tensors/);
    });
  });

  test("progress goes to the end, by range and whole", async () => {
    for (const source of [gqa, `${origin}/ranges/`, `${origin}/whole/`]) {
      const told: { done: number; total: number }[] = [];
      await logits(source, { onProgress: (progress) => told.push(progress) });
      expect(told.length).toBeGreaterThan(1);
      told.forEach(({ done, total }, i) => expect(done <= total && done >= (told[i - 1]?.done ?? 0)).toBe(true));
      const size = fileOf("model.safetensors").length;
      expect(told.at(-1)).toEqual({ done: size, total: size });
    }
  });

  describe("how a load reaches its files", () => {
    const vit = path("test/models/diff_vit");
    /**
     * A door that wants a key and sends on to a store of another origin, as hubs of models do.
     * `?at=` is the folder.
     */
    let seen: { port: "door" | "store"; name: string; authorization: string | undefined; origin: string | undefined }[] = [];
    const note = (port: "door" | "store", { url = "", headers }: IncomingMessage): string => {
      const { pathname, searchParams } = new URL(url, "http://localhost");
      const name = pathname.slice(1);
      const own = headers["x-own"];
      seen.push({ port, name, authorization: headers.authorization, origin: Array.isArray(own) ? own[0] : own });
      return join(searchParams.get("at") ?? "", name);
    };
    const door = createServer((request, response) => {
      const file = note("door", request);
      if (request.headers.authorization !== "Bearer key") return void response.writeHead(401).end();
      if (!existsSync(file)) return void response.writeHead(404).end();
      response.writeHead(307, { Location: `${at.store}${request.url}` }).end();
    });
    const store = createServer((request, response) => {
      const body = readFileSync(note("store", request));
      const [, first = "0", last = ""] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
      const end = Math.min(Number(last) + 1, body.length);
      response.writeHead(206, { "Content-Range": `bytes ${first}-${end - 1}/${body.length}` }).end(body.subarray(Number(first), end));
    });
    const at = { door: "", store: "" };
    beforeAll(async () => {
      for (const [name, server] of [
        ["door", door],
        ["store", store],
      ] as const) {
        await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
        at[name] = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      }
    });
    afterAll(() => {
      for (const server of [door, store]) {
        server.closeAllConnections();
        server.close();
      }
    });
    const of = (folder: string): string => `${at.door}/?at=${encodeURIComponent(folder)}`;

    /** Each way to load, and what it asks for. */
    const loads: [string, (options: modelTypes.LoadOptions) => Promise<unknown>, string[]][] = [
      ["DiffLlama.load", async (options) => (await models.DiffLlama.load(of(gqa), options)).dispose(), [...NAMES, ...TEXTS]],
      ["DiffViT.load", async (options) => (await models.DiffViT.load(of(vit), options)).dispose(), ["config.json", "model.safetensors"]],
      ["openSafetensors", async (options) => (await models.openSafetensors(of(gqa), options)).dispose(), ["model.safetensors"]],
      ["inspectCheckpoint", (options) => models.inspectCheckpoint(of(gqa), options), ["config.json", "model.safetensors"]],
      [
        "convertCheckpoint",
        (options) => models.convertCheckpoint(of(gqa), { ...options, dtype: "BF16" }),
        ["config.json", "model.safetensors"],
      ],
    ];
    test.each(loads)("%s: every request of it, and no request of another origin, carries the headers", async (_, load, names) => {
      seen = [];
      const asked = new Set<unknown>();
      const fetch: modelTypes.LoadOptions["fetch"] = (address, init) => {
        asked.add(init.credentials);
        const headers = { ...(init as { headers: Record<string, string> }).headers, "X-Own": "yes" };
        return globalThis.fetch(address, { ...init, headers });
      };
      await load({ headers: { Authorization: "Bearer key" }, fetch, credentials: "omit" });
      const [first, then] = [seen.filter(({ port }) => port === "door"), seen.filter(({ port }) => port === "store")];
      expect([...new Set(first.map(({ name }) => name))].sort()).toEqual([...names].sort());
      for (const { authorization } of first) expect(authorization).toBe("Bearer key");
      expect(then.length).toBeGreaterThan(0);
      for (const { authorization } of then) expect(authorization).toBeUndefined();
      for (const { origin } of seen) expect(origin).toBe("yes");
      expect([...asked]).toEqual(["omit"]);
      expect(await named(() => load({}))).toMatch(/^FILE .*: expected the file at .*, got the status 401$/);
    });
    test.each(loads)("%s: where it may go", async (_, load) => {
      const headers = { Authorization: "Bearer key" };
      seen = [];
      expect(await named(() => load({ headers, allowedOrigins: [at.door] }))).toMatch(
        new RegExp(`^FILE .*: expected an address of ${at.door} \\(option allowedOrigins\\), got ${at.store}$`),
      );
      expect(seen.filter(({ port }) => port === "store")).toEqual([]);
      await load({ headers, allowedOrigins: [at.door, at.store] });
      seen = [];
      expect(await named(() => load({ headers, allowPrivate: false }))).toMatch(
        /^FILE .*: expected a public address \(option allowPrivate\), got the private one of 127\.0\.0\.1$/,
      );
      expect(await named(() => load({ headers, maxFileBytes: -1 }))).toMatch(/^OPTION maxFileBytes: /);
      expect(seen).toEqual([]);
    });
    test("paths are refused where only addresses are let in", async () => {
      for (const options of [{ allowedOrigins: [at.door] }, { allowPrivate: false }]) {
        for (const source of [gqa, new URL(`file://${gqa}/`), join(gqa, "model.safetensors")])
          expect(await named(() => models.openSafetensors(source, options))).toMatch(/^FILE source: expected an address, no path/);
        const files = Object.fromEntries(NAMES.map((name) => [name, join(gqa, name)]));
        expect(await named(() => logits(files, options))).toMatch(/^FILE .*: expected an address, no path/);
      }
    });
  });

  describe("what a server sends without an end", () => {
    const spaces = new Uint8Array(2 ** 16).fill(32);
    let open = 0;
    /** Each file of the checkpoint but the one that its first part names, which has no end. */
    const endless = createServer(({ url = "", headers }, response) => {
      const [, which = "", name = ""] = url.split("/");
      open += 1;
      response.on("close", () => (open -= 1));
      if (name !== which) {
        const file = join(gqa, name);
        if (existsSync(file)) response.writeHead(200).end(readFileSync(file));
        else response.writeHead(404).end();
        return;
      }
      response.writeHead(200, { "Content-Type": "application/octet-stream", "X-Range": headers.range ?? "" });
      const more = (): void => {
        while (!response.destroyed && response.write(spaces));
      };
      response.on("drain", more);
      more();
    });
    let at = "";
    beforeAll(async () => {
      await new Promise<void>((resolve) => endless.listen(0, "127.0.0.1", resolve));
      at = `http://127.0.0.1:${(endless.address() as AddressInfo).port}`;
    });
    afterAll(() => {
      endless.closeAllConnections();
      endless.close();
    });
    test.each(["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])("%s", async (name) => {
      expect(await named(() => models.DiffLlama.load(`${at}/${name}/`, { maxFileBytes: 2 ** 22 }))).toBe(
        `FILE ${name}: expected at most 4194304 bytes (option maxFileBytes), got more`,
      );
      // No download outlives its load.
      await expect.poll(() => open).toBe(0);
    });
    test("what else is under way ends with the load", async () => {
      // Refused while weights without an end are on their way.
      for (const kind of ["DiffLlama", "DiffViT"] as const) {
        let asked = 0;
        const fetch: modelTypes.LoadOptions["fetch"] = async (address, init) => {
          if (!address.endsWith("config.json")) {
            asked += 1;
            return globalThis.fetch(address, init);
          }
          await expect.poll(() => open).toBe(1);
          return new Response("<html>");
        };
        const weights = `${at}/model.safetensors/model.safetensors`;
        const source = { "config.json": `${at}/config.json`, "model.safetensors": weights };
        expect(await named(() => models[kind].load(source, { fetch }))).toBe("FILE config.json: expected JSON, got an HTML page");
        expect(asked).toBe(1);
        await expect.poll(() => open).toBe(0);
      }
      await expect.poll(() => open).toBe(0);
    });
    test("an index", async () => {
      const index = "model.safetensors.index.json";
      expect(await named(() => models.openSafetensors(`${at}/${index}/${index}`, { maxFileBytes: 2 ** 22 }))).toBe(
        `FILE ${index}: expected at most 4194304 bytes (option maxFileBytes), got more`,
      );
      await expect.poll(() => open).toBe(0);
    });
  });

  test("a length that no file has", async () => {
    const liar = createServer((_, response) => {
      response.writeHead(206, { "Content-Range": "bytes 0-262143/100000000000000000000000" }).end(new Uint8Array(262144));
    });
    await new Promise<void>((resolve) => liar.listen(0, "127.0.0.1", resolve));
    try {
      const address = `http://127.0.0.1:${(liar.address() as AddressInfo).port}/model.safetensors`;
      expect(await named(() => models.openSafetensors(address))).toBe(
        'FILE model.safetensors: expected a range of bytes within a file, got "bytes 0-262143/100000000000000000000000"',
      );
    } finally {
      liar.closeAllConnections();
      liar.close();
    }
  });

  test.skipIf(process.platform === "win32")("a FIFO is no file, neither to be read nor to be written", async () => {
    const odd = mkdtempSync(join(folder, "odd-"));
    for (const name of NAMES) execFileSync("mkfifo", [join(odd, name)]);
    expect(await named(() => logits(odd))).toMatch(/^FILE config\.json: expected a regular file at .*, got a FIFO$/);
    for (const source of [odd, join(odd, "model.safetensors"), { "model.safetensors": join(odd, "model.safetensors") }])
      expect(await named(() => models.openSafetensors(source))).toMatch(/^FILE model\.safetensors: .*, got a FIFO$/);
    const target = join(odd, "model.safetensors");
    const wanted = /^FILE .*: expected .*, got .*\b(FIFO|pipe)\b/;
    expect(await named(() => models.saveSafetensors({}, { target }))).toMatch(wanted);
    expect(await named(() => models.convertCheckpoint(gqa, { dtype: "F16", target }))).toMatch(wanted);
    expect(readdirSync(odd).sort()).toEqual([...NAMES].sort());
  });

  test("an abort ends a load", async () => {
    const reason = new Error("enough");
    for (const source of [path("examples/model"), `${origin}/ranges/`, `${origin}/whole/`]) {
      const controller = new AbortController();
      const load = models.DiffLlama.load(source, { signal: controller.signal, onProgress: () => controller.abort(reason) });
      expect(await refused(() => load)).toMatchObject({ code: "ABORTED", name: "AbortError", cause: reason });
    }
    expect(await refused(() => models.openSafetensors(gqa, { signal: AbortSignal.abort(reason) }))).toMatchObject({ code: "ABORTED" });
  });

  test("a tokenizer of the caller's own, and none", async () => {
    const own: modelTypes.Tokenizer = {
      encode: (text) => Array.from(text, (letter) => letter.charCodeAt(0) - 97),
      decode: (list) => Array.from(list, (id) => `<${id}>`).join(""),
    };
    const model = await models.DiffLlama.load(gqa, { tokenizer: own });
    expect(model.encode("abc")).toEqual([0, 1, 2]);
    let text = "";
    for await (const token of model.generate("abc", { maxNewTokens: 5, stopIds: [] })) text += token.text;
    expect(text).toMatch(/^(<\d+>){5}$/);
    model.dispose();
    const source = { ...Object.fromEntries(NAMES.map((name) => [name, fileOf(name)])), "tokenizer.json": readFileSync(tokenizer) };
    const without = await models.DiffLlama.load(source, { tokenizer: null });
    expect(without.tokenizer).toBeNull();
    expect(await named(() => without.encode("a"))).toMatch(/^UNAVAILABLE tokenizer: /);
    expect(await named(() => without.generate("a").next())).toMatch(/^UNAVAILABLE tokenizer: /);
    without.dispose();
    expect(await named(() => models.DiffLlama.load(gqa, { tokenizer: {} as never }))).toMatch(/^OPTION tokenizer: /);
    const broken = { ...source, "tokenizer.json": new TextEncoder().encode("{") };
    expect(await named(() => models.DiffLlama.load(broken))).toMatch(/^FILE tokenizer.json: expected JSON/);
  });

  describe("what is no checkpoint is named", () => {
    test("files that are missing, pages, cut short", async () => {
      expect(await named(() => logits(join(folder, "nothing")))).toMatch(/^FILE nothing: expected a file or a folder at .*, got none/);
      expect(await named(() => logits(`${origin}/ranges/nothing/`))).toMatch(/^FILE config.json: expected a file in .*, got none/);
      expect(await named(() => logits(`${origin}/html/`))).toMatch(/^FILE model.safetensors: /);
      const files = Object.fromEntries(NAMES.map((name) => [name, fileOf(name)]));
      expect(await named(() => logits({ ...files, "model.safetensors": new TextEncoder().encode("<!doctype html><p>") }))).toBe(
        "FILE model.safetensors: expected a safetensors file, got an HTML page",
      );
      const short = fileOf("model.safetensors").slice(0, -1000);
      expect(await named(() => logits({ ...files, "model.safetensors": short }))).toMatch(/^FILE model.safetensors/);
      expect(await named(() => logits({ ...files, "config.json": new TextEncoder().encode('{"model_type": "llama"}') }))).toMatch(
        /^FILE config/,
      );
      expect(await named(() => logits({ ...files, "config.json": new TextEncoder().encode("<html>") }))).toBe(
        "FILE config.json: expected JSON, got an HTML page",
      );
      delete files["model.safetensors"];
      expect(await named(() => logits(files))).toMatch(/^FILE model.safetensors: expected model.safetensors, /);
    });
    test.each([
      ["an empty file", new Uint8Array()],
      ["a few bytes", new Uint8Array(5)],
      ["a header longer than the file", raw("{}", 0, 1000n)],
      ["a header longer than any file", raw("{}", 0, 2n ** 63n)],
      ["no JSON", raw("{]")],
      ["offsets outside", raw({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4] } })],
      [
        "offsets that overlap",
        raw({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4] }, b: { dtype: "F32", shape: [1], data_offsets: [2, 6] } }, 6),
      ],
      ["a shape that overflows", raw({ a: { dtype: "F32", shape: [2 ** 40, 2 ** 40], data_offsets: [0, 4] } }, 4)],
      ["a shape that does not fit", raw({ a: { dtype: "F32", shape: [2], data_offsets: [0, 4] } }, 4)],
      ["an unknown dtype", raw({ a: { dtype: "F33", shape: [1], data_offsets: [0, 4] } }, 4)],
      ["bytes of nothing", raw({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4] } }, 8)],
    ])("%s", async (_, file) => {
      for (const source of [file, new Blob([file])])
        expect(await refused(() => models.openSafetensors(source))).toMatchObject({ code: "FILE" });
    });
    test("files of other kinds are called what they are", async () => {
      const text = (x: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(x);
      const pointer = text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 14400\n");
      const files = Object.fromEntries(NAMES.map((name) => [name, fileOf(name)]));
      const pack = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff);
      const kinds: [Uint8Array<ArrayBuffer>, RegExp][] = [
        [pointer, /got a Git LFS pointer, .*"git lfs pull"/],
        [Uint8Array.of(0x50, 0x4b, 3, 4, 20, 0, 0, 0, 8, 8), /got a zip archive, .*safetensors/],
        [Uint8Array.of(0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9), /got a Python pickle/],
        [Uint8Array.of(...text("GGUF"), 3, 0, 0, 0, 9, 9), /got a GGUF file/],
        [pack, /got a file that gzip packed: unpack it first/],
        [text("<!doctype html><p>"), /got an HTML page/],
        [text('{"error":"Invalid credentials"}'), /got JSON that begins with "\{\\"error/],
        [text("Entry not found\n"), /got text that begins with "Entry not found"/],
      ];
      for (const [bytes, words] of kinds) {
        const sentence = await named(() => logits({ ...files, "model.safetensors": bytes }));
        expect(sentence).toMatch(/^FILE model\.safetensors: expected a safetensors file, /);
        expect(sentence).toMatch(words);
        expect(await named(() => models.inspectCheckpoint({ ...files, "model.safetensors": bytes }))).toBe(sentence);
      }
      const index = { "config.json": fileOf("config.json"), "model.safetensors.index.json": pointer };
      for (const name of ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]) {
        const sources = { ...files, "tokenizer.json": new Uint8Array(readFileSync(tokenizer)) };
        for (const [bytes, words] of [kinds[0], kinds[4], kinds[3]].filter((kind) => kind !== undefined)) {
          const sentence = await named(() => models.DiffLlama.load({ ...sources, [name]: bytes }));
          expect(sentence).toMatch(words);
          expect(sentence.startsWith(`FILE ${name.replace("config.json", "config")}`)).toBe(true);
        }
      }
      expect(await named(() => logits(index))).toMatch(/^FILE model\.safetensors\.index\.json: .*git lfs pull/);
      expect(await named(() => models.inspectCheckpoint({ ...files, "config.json": pointer }))).toMatch(
        /^FILE config\.json: .*git lfs pull/,
      );
      // A configuration in the place of weights.
      expect(await named(() => models.openSafetensors(join(gqa, "config.json")))).toMatch(
        /^FILE config\.json: .*got the configuration of a model: name its folder or its weights/,
      );
    });
    test("a model of another kind is called what it is, with what loads it", async () => {
      expect(await named(() => models.DiffLlama.load(path("test/models/diff_vit")))).toMatch(
        /^FILE config\.model_type: .* got the configuration of a DIFF vision transformer: DiffViT loads it, and the command classify/,
      );
      expect(await named(() => models.DiffViT.load(gqa))).toMatch(
        /^FILE config\.architecture: .* got the configuration of a DIFF Llama, .*: DiffLlama loads it, and the commands generate and maps/,
      );
    });
    test("a byte order mark is no part of a file", async () => {
      const marked = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
        const file = new Uint8Array(3 + bytes.length);
        file.set([0xef, 0xbb, 0xbf]);
        file.set(bytes, 3);
        return file;
      };
      const expected = await logits(gqa);
      const open = await models.openSafetensors(gqa);
      const map = Object.fromEntries(open.names.map((name) => [name, "a.safetensors"]));
      open.dispose();
      const settings = new TextEncoder().encode("{}");
      const source = {
        "config.json": marked(fileOf("config.json")),
        "generation_config.json": marked(fileOf("generation_config.json")),
        "tokenizer.json": marked(new Uint8Array(readFileSync(tokenizer))),
        "tokenizer_config.json": marked(settings),
        "a.safetensors": fileOf("model.safetensors"),
        "model.safetensors.index.json": marked(new TextEncoder().encode(JSON.stringify({ weight_map: map }))),
      };
      sameBits(await logits(source), expected);
      expect(await models.inspectCheckpoint(source)).toMatchObject({ architecture: "diffllama", warnings: [] });
      const vit = path("test/models/diff_vit");
      const image = { "config.json": marked(new Uint8Array(readFileSync(join(vit, "config.json")))) };
      const weights = new Uint8Array(readFileSync(join(vit, "model.safetensors")));
      (await models.DiffViT.load({ ...image, "model.safetensors": weights })).dispose();
    });
    test("weights that are not the model's", async () => {
      const files = Object.fromEntries(NAMES.map((name) => [name, fileOf(name)]));
      const open = await models.openSafetensors(fileOf("model.safetensors"));
      const tensors: Record<string, modelTypes.StoredTensor> = {};
      for (const name of open.names.slice(1)) tensors[name] = await open.read(name);
      const [missing = ""] = open.names;
      const without = await models.saveSafetensors(tensors);
      expect(await named(() => logits({ ...files, "model.safetensors": without ?? "" }))).toMatch(/^FILE /);
      const stored = await open.read(missing);
      const [rows = 0, ...rest] = stored.shape;
      const other = await models.saveSafetensors({ ...tensors, [missing]: { ...stored, shape: [...rest, rows] } });
      if (rest.length > 0 && rest[0] !== rows)
        expect(await named(() => logits({ ...files, "model.safetensors": other ?? "" }))).toMatch(/^FILE /);
      const found = await models.inspectCheckpoint({ ...files, "model.safetensors": without ?? "" });
      expect(found.missing).toContain(missing);
    });
  });

  test("openSafetensors reads what saveSafetensors wrote", async () => {
    const f32 = {
      data: Float32Array.of(1, -2.5, 3, 1e-30, 5, 6),
      shape: [2, 3],
      dims: [2, 3],
      dtype: "float32" as const,
      type: "float32" as const,
    };
    const bf16 = { dtype: "BF16" as const, shape: [2], data: new Uint8Array(Uint16Array.of(0x3f80, 0xc020).buffer) };
    const f64 = { dtype: "F64" as const, shape: [2], data: new Uint8Array(Float64Array.of(0.1, 1 / 3).buffer) };
    const i64 = { dtype: "I64" as const, shape: [0], data: new Uint8Array() };
    const tensors = { "a.weight": f32, b: bf16, "c/ü": f64, none: i64 };
    const metadata = { format: "pt", note: "änd" };
    const bytes = await models.saveSafetensors(tensors, { metadata });
    const target = join(folder, "written.safetensors");
    expect(await models.saveSafetensors(tensors, { metadata, target })).toBeUndefined();
    expect(new Uint8Array(readFileSync(target))).toEqual(bytes);
    const pieces: Uint8Array[] = [];
    await models.saveSafetensors(tensors, {
      metadata,
      target: new WritableStream<Uint8Array>({ write: (piece) => void pieces.push(piece.slice()) }),
    });
    expect(new Uint8Array(Buffer.concat(pieces))).toEqual(bytes);
    expect(readdirSync(folder).filter((name) => name.includes(".tmp"))).toEqual([]);

    for (const source of [bytes ?? "", target, new Blob([bytes ?? ""])]) {
      const file = await models.openSafetensors(source);
      expect(file.metadata).toEqual(metadata);
      expect([...file.names].sort()).toEqual(Object.keys(tensors).sort());
      expect(file.tensors.find(({ name }) => name === "b")).toMatchObject({ dtype: "BF16", shape: [2], byteLength: 4 });
      expect(await file.read("b")).toEqual(bf16);
      expect(new Float32Array((await file.read("a.weight")).data.buffer)).toEqual(f32.data);
      expect(await file.readFloat32("a.weight")).toEqual(f32);
      expect((await file.readFloat32("b")).data).toEqual(Float32Array.of(1, -2.5));
      expect((await file.readFloat32("c/ü")).data).toEqual(Float32Array.of(0.1, 1 / 3));
      expect(await file.read("none")).toEqual(i64);
      expect(await named(() => file.read("nothing"))).toBe('FILE name: expected the name of a tensor in it, got "nothing"');
      file.dispose();
      file.dispose();
      expect(await refused(() => file.read("b"))).toMatchObject({ code: "DISPOSED" });
    }
  });

  test("what cannot be written is named, and nothing is left of it", async () => {
    const data = new Uint8Array(8);
    expect(await named(() => models.saveSafetensors({ a: { dtype: "F32", shape: [3], data } }))).toMatch(/^SHAPE a: expected 12 bytes/);
    expect(await named(() => models.saveSafetensors({ a: { dtype: "F99" as never, shape: [3], data } }))).toMatch(/^OPTION tensors/);
    expect(await named(() => models.saveSafetensors({ a: 5 as never }))).toMatch(/^DTYPE a: /);
    expect(await named(() => models.saveSafetensors({ __metadata__: { dtype: "U8", shape: [8], data } }))).toMatch(/^OPTION tensors/);
    const good = { a: { dtype: "U8" as const, shape: [8], data } };
    expect(await named(() => models.saveSafetensors(good, { metadata: { a: 1 as never } }))).toMatch(/^OPTION metadata.a/);
    expect(await named(() => models.saveSafetensors(good, { target: join(folder, "no/such/folder") }))).toMatch(/^FILE /);
    // No file takes a device's place, or a folder's; a link is replaced itself.
    for (const target of ["/dev/null", folder])
      expect(await named(() => models.saveSafetensors(good, { target }))).toMatch(
        /^FILE .*: expected a place where a file can be written, got a (folder|device or a pipe)$/,
      );
    writeFileSync(join(folder, "kept"), "mine");
    rmSync(join(folder, "link.safetensors"), { force: true });
    symlinkSync("kept", join(folder, "link.safetensors"));
    await models.saveSafetensors(good, { target: join(folder, "link.safetensors") });
    expect(readFileSync(join(folder, "kept"), "utf8")).toBe("mine");
    const refusing = new WritableStream<Uint8Array>({
      write() {
        throw new Error("full");
      },
    });
    expect(await named(() => models.saveSafetensors(good, { target: refusing }))).toMatch(/^FILE target: .*full/);
    expect(readdirSync(folder).filter((name) => name.includes(".tmp"))).toEqual([]);
  });

  test("inspectCheckpoint says what it is", async () => {
    const found = await models.inspectCheckpoint(gqa);
    expect(found).toMatchObject({ architecture: "diffllama", missing: [], unexpected: [], warnings: [] });
    expect(found.layers.length).toBeGreaterThan(0);
    expect(found.dtypes.reduce((sum, { parameters }) => sum + parameters, 0)).toBe(found.parameters);
    const open = await models.openSafetensors(gqa);
    expect((await models.inspectCheckpoint(open)).parameters).toBe(found.parameters);
    expect(found.dtypes.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(open.tensors.reduce((sum, { byteLength }) => sum + byteLength, 0));
    open.dispose();
    expect((await models.inspectCheckpoint(path("test/models/diff_vit"))).architecture).toBe("diff_vit");
    const nothing = await models.saveSafetensors({ a: { dtype: "U8", shape: [1], data: new Uint8Array(1) } });
    expect(await models.inspectCheckpoint({ "model.safetensors": nothing ?? "" })).toMatchObject({ architecture: null, parameters: 1 });
  });
});
