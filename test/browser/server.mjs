// Serves the built package, the reference cases, models (by range) and the suite's own modules to a browser, with or without the
// headers that isolate a page. Runs no test.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import typescript from "typescript";

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
const types = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const htmlAnswer = "<!doctype html><title>not found</title>";

/** The file behind a path; a module of the suite is TypeScript there. */
async function fileOf(folder, name) {
  const path = join(root, folders[folder], normalize(`/${name}`));
  if (folder !== "suite") return readFile(path);
  const source = await readFile(path.replace(/\.js$/, ".ts"), "utf8");
  const options = { target: "ES2022", module: "ESNext", verbatimModuleSyntax: true };
  return typescript.transpileModule(source, { compilerOptions: options }).outputText;
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
 * Starts a server on a free port. Below /html/ it serves the package with a page in the place of every WASM file, as a
 * single-page application's server does; below /once/ only the first request for one is answered so. Below /to/ it sends on to the
 * same files of another origin; what lies below /key/ wants the header X-Key; below /endless/ are files without an end.
 */
export async function serve({ isolated }) {
  const refusedOnce = new Set();
  const answer = (request, response) =>
    void (async () => {
      const [, first = "", ...rest] = decodeURIComponent(new URL(request.url, "http://localhost").pathname).split("/");
      if (first === "to") return response.writeHead(307, { Location: `${origin(elsewhere)}/${rest.join("/")}` }).end();
      if (first === "endless") return endless(response);
      if (first === "key" && request.headers["x-key"] === undefined) return response.writeHead(401).end();
      const broken = first === "html" || first === "once";
      const [folder = "", ...names] = first === "key" ? rest : [broken ? "dist" : first, ...rest];
      const name = names.join("/");
      const wasm = extname(name) === ".wasm";
      if (isolated) {
        response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
        response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
      }
      response.setHeader("Cache-Control", "no-store");
      const refusedNow = first === "html" || (first === "once" && !refusedOnce.has(name));
      if (wasm && refusedNow) {
        if (first === "once") refusedOnce.add(name);
        return response.writeHead(200, { "Content-Type": "text/html" }).end(htmlAnswer);
      }
      try {
        const body = await fileOf(folder, name);
        const headers = { "Content-Type": types[extname(name)] ?? "application/octet-stream" };
        const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
        if (from === undefined) return response.writeHead(200, headers).end(body);
        const end = Math.min(Number(to) + 1, body.length);
        response.writeHead(206, { ...headers, "Content-Range": `bytes ${from}-${end - 1}/${body.length}` }).end(body.subarray(from, end));
      } catch {
        response.writeHead(404, { "Content-Type": "text/html" }).end(htmlAnswer);
      }
    })();
  const server = createServer(answer);
  const elsewhere = createServer((request, response) => {
    for (const what of ["Allow-Origin", "Allow-Headers", "Expose-Headers"]) response.setHeader(`Access-Control-${what}`, "*");
    if (request.method === "OPTIONS") response.writeHead(204).end();
    else answer(request, response);
  });
  const origin = (of) => `http://localhost:${of.address().port}`;
  for (const each of [server, elsewhere]) await new Promise((resolve) => each.listen(0, "localhost", resolve));
  const close = (each) =>
    new Promise((resolve) => {
      each.closeAllConnections();
      each.close(resolve);
    });
  return { origin: origin(server), close: () => Promise.all([server, elsewhere].map(close)) };
}
