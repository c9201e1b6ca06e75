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

/**
 * Starts a server on a free port. Below /html/ it serves the package with a page in the place of every WASM file, as a
 * single-page application's server does; below /once/ only the first request for one is answered so.
 */
export async function serve({ isolated }) {
  const refusedOnce = new Set();
  const server = createServer((request, response) => {
    void (async () => {
      const [, first = "", ...rest] = decodeURIComponent(new URL(request.url, "http://localhost").pathname).split("/");
      const broken = first === "html" || first === "once";
      const [folder, name] = broken ? ["dist", rest.join("/")] : [first, rest.join("/")];
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
  });
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  return {
    origin: `http://localhost:${server.address().port}`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(resolve);
      }),
  };
}
