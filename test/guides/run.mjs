// Runs the code of docs/guides as it stands there, in an empty folder in which the packed package
// is installed: blocks with a title are files, others are programs or shell lines that must print
// the `text` block below them. What is for a page is built by Vite and opened in Chromium. Closes
// with "N passed, N failed". Needs built outputs (npm run build).
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { PNG } from "pngjs";
import { targetOf, thisMachine } from "../../packages/native/loader.js";
import { serveFiles } from "../../scripts/file-server.mjs";
import { pack } from "../../scripts/pack.mjs";
import { browsers, root } from "../../scripts/tools.mjs";
import { env, run } from "../run-command.mjs";
import { blocks } from "./blocks.mjs";

const guides = join(root, "docs/guides");

const folder = mkdtempSync(join(tmpdir(), "diffattn-guides-"));

/** A picture of edges and slopes. */
function picture() {
  const side = 96;
  const png = new PNG({ width: side, height: side });
  for (let y = 0; y < side; y += 1)
    for (let x = 0; x < side; x += 1) png.data.set([2 * x, (x ^ y) & 64 ? 200 : 20, 255 - 2 * y, 255], 4 * (y * side + x));
  return PNG.sync.write(png);
}

/** An imitation of the hub, as a process of its own: a block's program is waited for. */
async function startHub() {
  const repos = join(folder, "hub/repos/example");
  for (const [name, from] of [
    ["model", "examples/model"],
    ["gguf", "test/models/gguf/q4_1"],
    ["llama", "test/models/llama"],
  ])
    cpSync(join(root, from), join(repos, name), { recursive: true });
  const server = spawn(process.execPath, [join(root, "test/hub/hub.mjs"), dirname(repos)], { stdio: ["ignore", "pipe", "inherit"] });
  const [address] = await once(createInterface({ input: server.stdout }), "line");
  Object.assign(env, { HF_ENDPOINT: address, HF_HOME: join(folder, "hub/home") });
  return server;
}

/** What the guides say that there is. Packages of others are copied, since no registry is asked. */
function prepare() {
  const tarballs = pack();
  // (Of the binaries that of this machine: npm refuses others.)
  const ours = ["diffattn", "@diffattn/native", `@diffattn/native-${targetOf(thisMachine())}`].filter((name) => name in tarballs);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "guides", private: true, type: "module" }));
  const options = ["--offline", "--omit=optional", "--omit=peer", "--legacy-peer-deps", "--no-audit", "--no-fund"];
  run("npm", ["install", ...options, ...ours.map((name) => tarballs[name])], folder);
  for (const name of ["@huggingface/tokenizers", "@huggingface/jinja", "pngjs"])
    cpSync(join(root, "node_modules", name), join(folder, "node_modules", name), { recursive: true, dereference: true });
  cpSync(join(root, "examples/model"), join(folder, "model"), { recursive: true });
  cpSync(join(root, "examples/model"), join(folder, "instruct"), { recursive: true });
  cpSync(join(root, "test/models/chat/tokenizer_config.json"), join(folder, "instruct/tokenizer_config.json"));
  cpSync(join(root, "test/models/diff_vit"), join(folder, "vit"), { recursive: true });
  cpSync(join(root, "test/models/same_s"), join(folder, "codec"), { recursive: true });
  cpSync(join(root, "test/models/llama"), join(folder, "llama"), { recursive: true });
  for (const [name, as] of [
    ["dex_trained", "dex"],
    ["adapter", "adapter"],
  ])
    cpSync(join(root, "test/models/diffattn_llama", name), join(folder, as), { recursive: true });
  writeFileSync(join(folder, "picture.png"), picture());
}

const same = (printed, expected) => assert.equal(printed.trimEnd(), expected.trimEnd());

/** The tests of one guide: `[name, body]`. */
function testsOf(guide) {
  const found = blocks(readFileSync(join(guides, guide), "utf8"));
  const tests = [];
  const files = found.filter(({ title, language }) => title && language !== "text");
  for (const [index, { language, title, code, line }] of found.entries()) {
    const name = `${guide}, line ${line}`;
    const next = found[index + 1];
    const expected = next?.language === "text" && !next.title ? next.code : undefined;
    if (title && language === "text") tests.push([name, () => shows(files, title, code)]);
    else if (title || language === "text") continue;
    else if (language === "js") {
      tests.push([
        name,
        () => {
          for (const { title, code } of files) writeFileSync(join(folder, title), code);
          writeFileSync(join(folder, "block.mjs"), code);
          same(run(process.execPath, ["block.mjs"], folder), expected ?? "");
        },
      ]);
    } else if (language === "sh") tests.push([name, () => same(run("sh", ["-ec", code], folder), expected ?? "")]);
    else throw new Error(`${name}: no one runs ${language}`);
  }
  for (const { title, code, line } of files)
    if (code.includes("createServer")) tests.push([`${guide}, line ${line}: ${title} outlives any request`, () => outlives(files, title)]);
  return tests;
}

/** The server of a guide outlives requests that hold anything at all. */
async function outlives(files, name) {
  for (const { title, code } of files) writeFileSync(join(folder, title), code);
  const server = spawn(process.execPath, [name], { cwd: folder, env, stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [address] = await once(createInterface({ input: server.stdout }), "line");
    const { port } = new URL(address);
    for (const target of [
      "//",
      "/%",
      "/?prompt=%&n=%00",
      "http://",
      "*",
      "/?n=1&prompt=a&n=NaN",
      "/?n=-1&prompt=a",
      `/?n=1&prompt=${"%ff".repeat(99)}`,
    ]) {
      const socket = connect(port, "localhost");
      socket.on("error", () => {}).write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
      await once(socket.resume(), "close");
    }
    assert.equal((await fetch(`${address}?n=1&prompt=Returns`)).status, 200);
    assert.equal(server.exitCode, null);
  } finally {
    server.kill();
  }
}

/** Vite as vitest has it. */
const fromVitest = createRequire(createRequire(import.meta.url).resolve("vitest/package.json"));
const vite = join(dirname(fromVitest.resolve("vite/package.json")), "bin/vite.js");

const served = (place) => serveFiles({ find: (path) => join(place, path.endsWith("/") ? `${path}index.html` : path) });

/**
 * Builds the pages of a guide and compares what an element shows once the page's title is "done".
 * `what`: "#id" or "#id of page.html".
 */
async function shows(files, what, expected) {
  const [, selector, page = "index.html"] = /^(#\S+)(?: of (\S+))?$/.exec(what);
  const app = join(folder, "app");
  if (!existsSync(join(app, "dist"))) {
    mkdirSync(join(app, "public"), { recursive: true });
    for (const { title, code } of files) writeFileSync(join(app, title), code);
    cpSync(join(folder, "model"), join(app, "public/model"), { recursive: true });
    // Every page of the guide is one of the application's.
    const pages = readdirSync(app).filter((name) => name.endsWith(".html"));
    const build = `import config from "./vite.config.js";
      export default { ...config, base: "./", build: { ...config.build, rollupOptions: { input: ${JSON.stringify(pages)} } } };`;
    writeFileSync(join(app, "test.config.js"), build);
    run(process.execPath, [vite, "build", "--config", "test.config.js", "--logLevel", "error"], app);
  }
  const executablePath = browsers.chromium();
  assert.ok(executablePath, "Chromium is missing; node scripts/setup.mjs --browsers installs it");
  const server = await served(join(app, "dist"));
  const browser = await chromium.launch({ executablePath, chromiumSandbox: false, args: ["--disable-gpu"] });
  try {
    const tab = await browser.newPage();
    const complaints = [];
    tab.on("pageerror", (error) => complaints.push(error.message));
    tab.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    await tab.goto(`${server.address}${page}`);
    await tab.waitForFunction(`document.title === "done"`, undefined, { timeout: 60_000 }).catch((error) => {
      throw new Error(`${error.message}\n${complaints.join("\n")}`);
    });
    same(await tab.evaluate(`document.querySelector(${JSON.stringify(selector)}).textContent`), expected);
  } finally {
    await browser.close();
    await server.close();
  }
}

let passed = 0;
let failed = 0;
let hub;
try {
  prepare();
  hub = await startHub();
  const only = process.argv[2];
  for (const guide of readdirSync(guides)
    .filter((name) => name.endsWith(".md") && (!only || name === only))
    .sort())
    for (const [name, body] of testsOf(guide))
      try {
        await body();
        passed += 1;
        console.log(`ok      ${name}`);
      } catch (error) {
        failed += 1;
        console.error(`FAILED  ${name}\n${error instanceof Error ? error.message : error}`);
      }
} finally {
  hub?.kill();
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
