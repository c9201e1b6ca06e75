// A subject: our package in a page of Chromium, cross-origin isolated or not. This process serves the page and hands requests
// over; page-client.js answers them. "sync…" variants run on the page's main thread, "async…" through the package's worker.
//
//   node bench/subjects/page.mjs isolated|plain
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { chromium } from "playwright-core";
import { browsers, root } from "../../scripts/tools.mjs";
import { serve } from "./protocol.mjs";

const isolated = process.argv[2] === "isolated";
/** All that a page may ask for. */
const FOLDERS = [join("packages", "diffattn", "dist"), join("bench", "subjects"), join(".cache", "bench-limits")];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const FLAGS = ["--no-first-run", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function respond(request, response) {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname)).slice(1);
  try {
    if (!FOLDERS.some((folder) => path.startsWith(folder + sep))) throw new Error("not served");
    const body = await readFile(join(root, path));
    const headers = { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" };
    if (isolated) Object.assign(headers, { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" });
    response.writeHead(200, headers).end(body);
  } catch {
    response.writeHead(404).end();
  }
}

let page;

async function open() {
  const executablePath = browsers.chromium();
  if (!executablePath) throw new Error("Chromium is missing; node scripts/setup.mjs --browsers installs it");
  const server = createServer((request, response) => void respond(request, response));
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  const browser = await chromium.launch({ executablePath, chromiumSandbox: false, args: FLAGS });
  page = await browser.newPage();
  await page.goto(`http://localhost:${server.address().port}/bench/subjects/page.html`);
  await page.waitForFunction("typeof answer === 'function'");
  if ((await page.evaluate("crossOriginIsolated")) !== isolated) throw new Error(`the page is ${isolated ? "not " : ""}isolated`);
}

const version = async () => JSON.parse(await readFile(join(root, "packages/diffattn/package.json"), "utf8")).version;

async function handOver(request) {
  if (!page) await open();
  const reply = await page.evaluate((request) => globalThis.answer(request), request);
  if (reply.error) throw new Error(reply.error);
  return reply;
}

const names = ["variants", "load", "run", "answer", "limit"];
serve({
  ...Object.fromEntries(names.map((name) => [name, handOver])),
  info: async (request) => ({
    ...(await handOver(request)),
    name: `diffattn (page${isolated ? ", isolated" : ""})`,
    version: await version(),
  }),
});
