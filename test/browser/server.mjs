// Serves the built package, the reference cases, models (by range) and the suite's own modules to a
// browser, with or without the headers that isolate a page. Runs no test.
import { existsSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import typescript from "typescript";
import { ISOLATION, serveFiles } from "../../scripts/file-server.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folders = {
  dist: "packages/diffattn/dist",
  suite: "test/suite",
  fixtures: "test/fixtures",
  browser: "test/browser",
  models: "test/models",
  trained: "examples/model",
  tokenizers: "node_modules/@huggingface/tokenizers/dist",
};
/** What stands in the place of a file. */
const html = (status) => ({ status, type: "text/html", body: "<!doctype html><title>not found</title>" });

/** A module of the suite, which is TypeScript there. */
async function moduleOf(path) {
  const source = await readFile(path.replace(/\.js$/, ".ts"), "utf8");
  const options = { target: "ES2022", module: "ESNext", verbatimModuleSyntax: true };
  return { type: "text/javascript", body: typescript.transpileModule(source, { compilerOptions: options }).outputText };
}

/** Spaces until their reader is gone. */
function endless(response) {
  const more = () => {
    while (!response.destroyed && response.write(" ".repeat(2 ** 16)));
  };
  response.writeHead(200, { "Content-Type": "application/octet-stream" }).on("drain", more);
  more();
}

/**
 * Starts a server on a free port. Below /html/ it serves the package with a page in the place of
 * every WASM file, as a single-page application's server does; below /once/ only the first request
 * for one is answered so. Below /to/ it sends on to the same files of another origin; what lies
 * below /key/ wants the header X-Key; below /endless/ are files without an end.
 */
export async function serve({ isolated }) {
  const refusedOnce = new Set();
  const find = async (path) => {
    const [, first = "", ...rest] = path.split("/");
    const broken = first === "html" || first === "once";
    const [folder = "", ...names] = first === "key" ? rest : [broken ? "dist" : first, ...rest];
    const name = names.join("/");
    if (broken && extname(name) === ".wasm" && !(first === "once" && refusedOnce.has(name))) {
      if (first === "once") refusedOnce.add(name);
      return html(200);
    }
    if (!Object.hasOwn(folders, folder)) return html(404);
    const file = join(root, folders[folder], name);
    if (folder === "suite") return moduleOf(file).catch(() => html(404));
    return existsSync(file) && statSync(file).isFile() ? file : html(404);
  };
  const first = (request, response, path) => {
    const [, where, ...rest] = path.split("/");
    if (where === "to") response.writeHead(307, { Location: elsewhere.address + rest.join("/") }).end();
    else if (where === "endless") endless(response);
    else if (where === "key" && request.headers["x-key"] === undefined) response.writeHead(401).end();
    else return false;
    return true;
  };
  const headers = {
    "Cache-Control": "no-store",
    ...(isolated && ISOLATION),
  };
  const shared = Object.fromEntries(["Allow-Origin", "Allow-Headers", "Expose-Headers"].map((name) => [`Access-Control-${name}`, "*"]));
  const elsewhere = await serveFiles({
    find,
    first: (request, response, path) => {
      if (request.method !== "OPTIONS") return first(request, response, path);
      response.writeHead(204).end();
      return true;
    },
    headers: { ...headers, ...shared },
  });
  const { address, close } = await serveFiles({ find, first, headers });
  return { origin: new URL(address).origin, close: () => Promise.all([close(), elsewhere.close()]) };
}
