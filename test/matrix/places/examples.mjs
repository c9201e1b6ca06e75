// The examples that are to be copied (examples/): each installed as its package.json says, its
// types checked, built and started by its own scripts, used as a person would, and its text
// compared. What an example promises beside the text (limits, an end without a cut, a stop that
// stops) is tried as well.
import assert from "node:assert/strict";
import { cpSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cache, root } from "../../../scripts/tools.mjs";
import { nodeOf } from "./node.mjs";
import { runtime } from "./runtimes.mjs";

const group = "Examples";
const PROMPT = "Returns the number of";
const TOKENS = 6;
/** More than are written before someone can stop it. */
const MANY = 4096;

/** Waits until `body` gives something that is not false; `what` it is in the error. */
async function until(what, body, timeout = 60) {
  for (const end = Date.now() + timeout * 1000; Date.now() < end; await sleep(50)) {
    const found = await body();
    if (found) return found;
  }
  throw new Error(`no ${what} after ${timeout} s`);
}

/**
 * A place that runs an example: `body` gets the context, Node, and a function that runs one of the
 * example's scripts.
 */
const example = (name, folder, tool, model, body) => ({
  name,
  group,
  async run(context) {
    const { node, env, version } = await nodeOf(context, 24);
    await context.example(folder, { model });
    const script = (script) => context.exec("npm", ["run", script], { env, timeout: 400 });
    const row = await body(context, { node, env, script });
    return { version: tool ? `${tool} ${context.manifestOf(context.path("node_modules", tool)).version}` : `Node ${version}`, ...row };
  },
});

/**
 * The Dockerfile's commands, once a parser of Dockerfiles and its checks have nothing to say; what
 * it copies is there.
 */
async function dockerfile(context, file) {
  const tools = await context.shared("dockerfile tools", async (inner) => {
    await inner.install(["dockerfile-ast", "dockerfile-utils"], { tokenizers: false });
    inner.write({
      "read.cjs": `const { readFileSync } = require("node:fs");
const { DockerfileParser } = require("dockerfile-ast");
const { validate } = require("dockerfile-utils");
const text = readFileSync(process.argv[2], "utf8");
const parsed = DockerfileParser.parse(text);
const json = (instruction) => JSON.parse(instruction.getRawArgumentsContent().replace(/\\\\\\s*\\n/g, " ").replace(/^[^[]*/, ""));
console.log(JSON.stringify({
  problems: validate(text).map(({ message, range }) => \`line \${range.start.line + 1}: \${message}\`),
  from: parsed.getFROMs().map((from) => from.getImage()),
  copied: parsed.getCOPYs().flatMap((copy) => copy.getArguments().slice(0, -1).map((argument) => argument.getValue())),
  command: json(parsed.getCMDs()[0]),
  health: json(parsed.getHEALTHCHECKs()[0]),
}));\n`,
    });
    return inner;
  });
  const read = JSON.parse(await tools.exec(process.execPath, ["read.cjs", context.path(file)]));
  assert.deepEqual(read.problems, [], file);
  for (const name of read.copied) readFileSync(context.path(name === "model" ? "model/config.json" : name));
  return read;
}

const service = example(
  "a service of Node, with Dockerfiles",
  "node-service",
  undefined,
  "model",
  async (context, { node, env, script }) => {
    await script("check");
    const [slim, alpine] = [await dockerfile(context, "Dockerfile"), await dockerfile(context, "Dockerfile.alpine")];
    assert.deepEqual([...slim.from, ...alpine.from], ["node:24-slim", "node:24-alpine"]);
    assert.deepEqual({ ...alpine, from: slim.from }, slim);

    // What a container would run, without one.
    const port = await context.freePort();
    const inContainer = { ...env, NODE_ENV: "production", HOST: "127.0.0.1", PORT: String(port), GRACE_SECONDS: "60" };
    const program = ([command, ...args]) => [command === "node" ? node : command, args];
    const running = await context.start(...program(slim.command), { env: inContainer, until: /listening on port \d+/ });
    await context.exec(...program(slim.health), { env: inContainer });
    await assert.rejects(
      context.exec(...program(slim.health), { env: { ...inContainer, PORT: String(await context.freePort()) } }),
      /exit 1/,
    );

    const address = `http://127.0.0.1:${port}`;
    const ask = (body, options) => fetch(`${address}/generate`, { method: "POST", body: JSON.stringify(body), ...options });
    const health = async () => (await fetch(`${address}/health`)).json();
    const text = await (await ask({ prompt: PROMPT, maxNewTokens: TOKENS })).text();

    for (const [status, body] of [
      [400, { prompt: 3 }],
      [400, { prompt: PROMPT, maxNewTokens: 1e9 }],
      [413, { prompt: "x".repeat(1 << 17) }],
      [413, { prompt: "a b ".repeat(2000) }],
    ])
      assert.equal((await ask(body)).status, status, JSON.stringify(body).slice(0, 60));
    assert.equal((await fetch(`${address}/elsewhere`)).status, 404);

    // Whoever goes away is not written for any more.
    const reader = new AbortController();
    const left = await ask({ prompt: "A thread is", maxNewTokens: MANY }, { signal: reader.signal });
    await left.body.getReader().read();
    assert.equal((await health()).running, 1);
    reader.abort();
    await until("end of a text that nobody reads", async () => (await health()).running === 0);
    const { tokens } = await health();
    assert.ok(tokens > TOKENS && tokens < MANY, `${tokens} tokens`);

    // As many as may run, and one more; then the end, for which the texts are awaited.
    const texts = await Promise.all(Array.from({ length: 4 }, () => ask({ prompt: "A thread is", maxNewTokens: 256 })));
    const busy = await ask({ prompt: PROMPT });
    assert.equal(busy.status, 503);
    assert.equal(busy.headers.get("retry-after"), "1");
    running.terminate();
    const whole = await Promise.all(texts.map((response) => response.text()));
    assert.equal(new Set(whole).size, 1, "texts that run at once are the same");
    assert.ok(whole[0].length > 256, whole[0]);
    assert.equal(await running.ended, "", "the service ends by itself");
    return { text, note: "Docker is not run: both files are checked, and their commands are started" };
  },
);

/**
 * Counts what the page's workers are sent, from the page's beginning on: a generation that goes on
 * goes on asking.
 */
const countMessages = (page) =>
  page.addInitScript(`{
    globalThis.sent = 0;
    const post = Worker.prototype.postMessage;
    Worker.prototype.postMessage = function (...all) { globalThis.sent += 1; return post.apply(this, all); };
  }`);

/** Whether nothing is sent to a worker any more. */
const isSilent = async (page) => {
  const before = await page.evaluate("globalThis.sent");
  await sleep(500);
  return (await page.evaluate("globalThis.sent")) === before;
};

const worker = example(
  "a web worker of one's own (Vite), in Chromium",
  "web-worker",
  "vite",
  "public/model",
  async (context, { script }) => {
    await script("build");
    const { address } = await context.serve("dist");
    const text = await context.browse("chromium", 60, async (page) => {
      await page.goto(address);
      const status = (wanted) => until(`status ${wanted}`, async () => (await page.textContent("#status")) === wanted);
      const output = () => page.textContent("output");
      await status("Ready");
      await page.fill("[name=tokens]", String(MANY));
      await page.click("text=Write");
      await until("text", output);
      await page.click("#stop");
      await status("Ready");
      const stopped = await output();
      assert.ok(stopped.length < MANY, "a stop ends it early");
      await page.fill("[name=tokens]", String(TOKENS));
      await page.click("text=Write");
      await until("end", () => page.evaluate(`document.querySelector("#status").textContent === "Ready"`));
      return output();
    });
    return { text };
  },
);

const react = example("a React hook and component (Vite), in Chromium", "react", "react", "public/model", async (context, { script }) => {
  await script("build");
  const { address } = await context.serve("dist");
  const text = await context.browse("chromium", 60, async (page) => {
    await countMessages(page);
    await page.goto(address);
    const ready = () => until("ready", async () => (await page.textContent("[role=status]")) === "Ready");
    await ready();
    // A component that goes takes its text with it; the model stays.
    await page.fill("[type=number]", String(MANY));
    await page.click("text=Write");
    await until("text", () => page.textContent("output"));
    assert.equal(await isSilent(page), false, "a text is on its way");
    await page.click("text=Close");
    await until("end of a text whose component went", () => isSilent(page), 10);
    await page.click("text=Open");
    assert.equal(await page.textContent("[role=status]"), "Ready");
    assert.equal(await page.textContent("output"), "");
    await page.fill("[type=number]", String(TOKENS));
    await page.click("text=Write");
    await page.waitForSelector("figure svg");
    assert.match(await page.textContent("figure svg title"), /Layer 0, head 0/);
    await page.fill("figcaption label:first-child input", "3");
    await until("maps of another layer", async () => (await page.textContent("figure svg title")).includes("Layer 3, head 0"));
    return page.textContent("output");
  });
  return { text };
});

const next = example(
  "a Next application with streaming, in Chromium",
  "next",
  "next",
  "public/model",
  async (context, { node, env, script }) => {
    await script("build");
    const program = [context.path("node_modules/next/dist/bin/next"), "start", "--port", "0"];
    const { match, printed } = await context.start(node, program, { until: /(http:\/\/localhost:\d+)/, env });
    const ask = (body, options) => fetch(`${match[1]}/api/generate`, { method: "POST", body: JSON.stringify(body), ...options });
    assert.equal((await ask({ prompt: "" })).status, 400);
    assert.equal((await ask({ prompt: PROMPT, maxNewTokens: 1e9 })).status, 400);
    const pieces = [];
    for await (const piece of (await ask({ prompt: PROMPT, maxNewTokens: TOKENS })).body.pipeThrough(new TextDecoderStream()))
      pieces.push(piece);
    assert.ok(pieces.length > 1, `it comes in pieces: ${JSON.stringify(pieces)}`);
    const reader = new AbortController();
    const left = await ask({ prompt: PROMPT, maxNewTokens: MANY }, { signal: reader.signal });
    await left.body.getReader().read();
    reader.abort();
    const counts = () => [...printed().matchAll(/generated (\d+) tokens/g)].map(([, count]) => Number(count));
    const [all, some] = await until("end of a text that nobody reads", () => counts().length === 2 && counts());
    assert.equal(all, TOKENS);
    assert.ok(some < MANY, `${some} tokens`);
    const texts = await context.browse("chromium", 60, async (page) => {
      await page.goto(match[1]);
      const written = [];
      for (const place of ["On the server", "In this browser"]) {
        await page.selectOption("select", place);
        await page.click("text=Write");
        await until(
          `text: ${place}`,
          async () => (await page.textContent("[role=status]")) === "Ready" && (await page.textContent("output")),
        );
        written.push(await page.textContent("output"));
      }
      return written;
    });
    assert.deepEqual(texts, [pieces.join(""), pieces.join("")]);
    return { text: texts[0], note: "by the route handler, and by the model in the page" };
  },
);

const deno = example("Deno, with the least permissions", "deno", undefined, "model", async (context) => {
  const { path } = await runtime(context, "deno");
  const program = path("node_modules/deno/bin.cjs");
  await context.exec(process.execPath, [program, "check", "main.ts"]);
  const text = await context.exec(process.execPath, [program, "task", "--quiet", "start", PROMPT, String(TOKENS)]);
  // With the same permissions, which build runs: less would do for WebAssembly.
  const permissions = context.manifestOf(context.folder).scripts.start.split(" ").slice(1, -1);
  context.write({ "which.ts": `import { info, init } from "npm:diffattn";\nawait init();\nconsole.log(info().backend);\n` });
  assert.equal((await context.exec(process.execPath, [program, ...permissions, "which.ts"])).trim(), "native");
  return { text, version: `deno ${context.versionOf("deno")}` };
});

const rust = {
  name: "a program in Rust",
  group,
  async run(context) {
    // The crates as they would be published, in the place of the registry's.
    const target = join(cache, "matrix-rust");
    const cargo = (args, options) => context.exec("cargo", args, { ...options, env: { CARGO_TARGET_DIR: target } });
    const crates = ["diffattn", "diffattn-nn"];
    const chosen = crates.flatMap((crate) => ["--package", crate]);
    await cargo(["package", ...chosen, "--no-verify", "--allow-dirty", "--exclude-lockfile"], { cwd: root });
    cpSync(join(root, "examples/rust"), context.folder, { recursive: true, filter: (path) => basename(path) !== "target" });
    const { version } = context.manifestOf(join(root, "packages/diffattn"));
    for (const crate of crates) await context.exec("tar", ["-xzf", join(target, "package", `${crate}-${version}.crate`)]);
    const patches = crates.map((crate) => `${crate} = { path = ${JSON.stringify(context.path(`${crate}-${version}`))} }\n`);
    context.write({ ".cargo/config.toml": `[patch.crates-io]\n${patches.join("")}` });
    // What both need, in the version that is tested here.
    cpSync(join(root, "Cargo.lock"), context.path("Cargo.lock"));
    const printed = await cargo(["run", "--quiet", "--", context.modelFolder, PROMPT, String(TOKENS)], { timeout: 470 });
    const tree = await cargo(["tree", "--offline", "--depth", "1"]);
    for (const crate of crates) assert.ok(tree.includes(`${crate} v${version} (${context.folder}`), tree);
    const rustc = await context.exec("rustc", ["--version"]);
    return { version: `Rust ${rustc.split(" ")[1]}`, text: printed.replace(/\n$/, ""), note: "built without optimisation" };
  },
};

export const places = [react, next, service, worker, deno, rust];
