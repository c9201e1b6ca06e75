// A subject: a page of Chromium or Firefox, cross-origin isolated or not. This process serves the
// page and hands requests over; what answers them there is a script beside this one: page-client.js
// (our operators, "sync…" variants on the page's main thread, "async…" through the package's
// worker), page-models.js (our models) or page-wllama.js (a peer's).
//
//   node bench/subjects/page.mjs isolated|plain client|models|wllama [chromium|firefox]
import { readFile } from "node:fs/promises";
import { extname, join, relative, sep } from "node:path";
import { ISOLATION, serveFiles } from "../../scripts/file-server.mjs";
import { browsers, root } from "../../scripts/tools.mjs";
import { browsers as started } from "../../test/browser/launch.mjs";
import { ensureModel, placeOf } from "../model-files.mjs";
import { serve } from "./protocol.mjs";

const isolated = process.argv[2] === "isolated";
const [, , , script, name = "chromium"] = process.argv;
/** Milliseconds of the longest call, as a browser's driver counts them. */
const PATIENCE = 1_200_000;
/** All that a page may ask for: read at once, for what is measured is the page; */
const FOLDERS = [
  ["packages", "diffattn", "dist"],
  ["bench", "subjects"],
  [".cache", "bench-limits"],
  ["bench", "peers", "node_modules", "@wllama", "wllama", "esm"],
].map((parts) => join(...parts));
/** … and models, by range. */
const MODELS = [join(".cache", "smollm2")];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };

async function find(path) {
  const file = join(...path.slice(1).split("/"));
  const lies = (folder) => file.startsWith(folder + sep);
  if (MODELS.some(lies)) return join(root, file);
  if (!FOLDERS.some(lies)) return undefined;
  const body = await readFile(join(root, file)).catch(() => undefined);
  return body && { type: TYPES[extname(file)] ?? "application/octet-stream", body };
}

let page;

async function open() {
  if (!browsers[name]()) throw new Error(`${name} is missing; node scripts/setup.mjs --browsers installs it`);
  const { address } = await serveFiles({ find, headers: isolated ? ISOLATION : {} });
  const browser = await started[name](PATIENCE);
  const opened = await browser.newPage();
  await opened.goto(`${address}bench/subjects/page.html?page-${script}.js`);
  await opened.waitForFunction("typeof answer === 'function'");
  if ((await opened.evaluate("crossOriginIsolated")) !== isolated) throw new Error(`the page is ${isolated ? "not " : ""}isolated`);
  return opened;
}

const version = async () => JSON.parse(await readFile(join(root, "packages/diffattn/package.json"), "utf8")).version;

async function handOver(request) {
  page ??= await open();
  const reply = await page.evaluate((request) => globalThis.answer(request), request);
  if (reply.error) throw new Error(reply.error);
  return reply;
}

/** A page has a model's address for its place. */
async function load(request) {
  const { case: test } = request;
  if (!test.model) return handOver(request);
  await ensureModel(test, await import("../../packages/diffattn/dist/models-node.js"));
  const place = `/${relative(root, placeOf(test)).split(sep).join("/")}`;
  return handOver({ ...request, place });
}

const names = ["variants", "run", "answer", "limit"];
serve({
  ...Object.fromEntries(names.map((name) => [name, handOver])),
  load,
  async info(request) {
    const reply = await handOver(request);
    const what = [script === "models" && "models", "page", isolated && "isolated"].filter(Boolean).join(", ");
    return script === "wllama" ? reply : { ...reply, name: `diffattn (${what})`, version: await version() };
  },
});
