// A subject: our package in a page of Chromium, cross-origin isolated or not. This process serves
// the page and hands requests over; page-client.js answers them. "sync…" variants run on the page's
// main thread, "async…" through the package's worker.
//
//   node bench/subjects/page.mjs isolated|plain
import { readFile } from "node:fs/promises";
import { extname, join, sep } from "node:path";
import { chromium } from "playwright-core";
import { ISOLATION, serveFiles } from "../../scripts/file-server.mjs";
import { browsers, root } from "../../scripts/tools.mjs";
import { serve } from "./protocol.mjs";

const isolated = process.argv[2] === "isolated";
/** All that a page may ask for. */
const FOLDERS = [join("packages", "diffattn", "dist"), join("bench", "subjects"), join(".cache", "bench-limits")];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const FLAGS = ["--no-first-run", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Read at once: what is measured is the page. */
async function find(path) {
  const file = path.slice(1);
  if (!FOLDERS.some((folder) => file.startsWith(folder + sep))) return undefined;
  const body = await readFile(join(root, file)).catch(() => undefined);
  return body && { type: TYPES[extname(file)] ?? "application/octet-stream", body };
}

let page;

async function open() {
  const executablePath = browsers.chromium();
  if (!executablePath) throw new Error("Chromium is missing; node scripts/setup.mjs --browsers installs it");
  const { address } = await serveFiles({ find, headers: isolated ? ISOLATION : {} });
  const browser = await chromium.launch({ executablePath, chromiumSandbox: false, args: FLAGS });
  page = await browser.newPage();
  await page.goto(`${address}bench/subjects/page.html`);
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
