// A subject: a page of Chromium that loads our trained model and generates one token. Each run is a
// page of its own, with nothing kept from the one before; the time is the page's, from the start of
// its navigation. Files come from this machine, without a network between.
//
//   node bench/subjects/model-page.mjs
import { readFile } from "node:fs/promises";
import { extname, join, sep } from "node:path";
import { chromium } from "playwright-core";
import { serveFiles } from "../../scripts/file-server.mjs";
import { browsers, root } from "../../scripts/tools.mjs";
import { serve } from "./protocol.mjs";
import { pick } from "./measuring.mjs";

/** All that the page may ask for. */
const FOLDERS = [join("packages", "diffattn", "dist"), join("examples", "model")];
const TYPES = { ".js": "text/javascript", ".json": "application/json", ".wasm": "application/wasm" };
const FLAGS = ["--no-first-run", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const PATIENCE = 120_000;

/** The least that a page which generates can be. */
const pageOf = ({ model, prompt }) => `<!doctype html><meta charset="utf-8"><title>model</title>
<script type="module">
try {
  const { DiffLlama } = await import("/packages/diffattn/dist/models.js");
  const model = await DiffLlama.load("/${model}/", { tokenizer: null });
  for await (const { id } of model.generate(${JSON.stringify(prompt)}, { maxNewTokens: 1, stopIds: [] }))
    globalThis.first = { id, milliseconds: performance.now() };
} catch (error) {
  globalThis.first = { error: String(error?.message ?? error) };
}
</script>`;

let test;
let browser;
let address;
let result;

/** Read at once: what is measured is the page. */
async function find(path) {
  const file = path.slice(1);
  if (file === "") return { type: "text/html", body: pageOf(test) };
  if (!FOLDERS.some((folder) => file.startsWith(folder + sep))) return undefined;
  const body = await readFile(join(root, file)).catch(() => undefined);
  return body && { type: TYPES[extname(file)] ?? "application/octet-stream", body };
}

async function start() {
  const executablePath = browsers.chromium();
  if (!executablePath) throw new Error("Chromium is missing; node scripts/setup.mjs --browsers installs it");
  ({ address } = await serveFiles({ find }));
  browser = await chromium.launch({ executablePath, chromiumSandbox: false, args: FLAGS });
}

async function run() {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.goto(address);
    await page.waitForFunction("globalThis.first", undefined, { timeout: PATIENCE });
    const { id, milliseconds, error } = await page.evaluate("globalThis.first");
    if (error) throw new Error(error);
    result = Float32Array.of(id);
    return { seconds: milliseconds / 1000 };
  } finally {
    await context.close();
  }
}

serve({
  info: async () => ({
    name: "diffattn (models, page)",
    version: JSON.parse(await readFile(join(root, "packages/diffattn/package.json"), "utf8")).version,
  }),
  variants: ({ case: { op } }) => ({ variants: op === "model_first" ? ["generate"] : [] }),
  async load(request) {
    test = request.case;
    if (!browser) await start();
    await run();
  },
  run,
  answer: ({ at }) => ({ values: pick(result, at) }),
});
