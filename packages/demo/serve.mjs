// Serves the built page (dist) on this machine: right types, a strict Content-Security-Policy, and the headers that isolate the page,
// unless they are not wanted. Builds nothing.
//
//   node packages/demo/serve.mjs [--port N] [--no-isolation]
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import sirv from "sirv";

const folder = fileURLToPath(new URL("dist", import.meta.url));
export const DEFAULT_PORT = 8788;

/** Scripts, styles and workers from here alone; WebAssembly may be compiled; pictures that the page itself makes may be shown. */
export const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob: data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** Types that servers do not know by the name. */
const TYPES = { ".safetensors": "application/octet-stream", ".onnx": "application/octet-stream" };

/**
 * Starts the server. A port that is taken is an error when it was asked for; the default one then gives way to any free one.
 * Returns its address and how to end it.
 */
export async function serve({ port, isolated = true } = {}) {
  if (!existsSync(`${folder}/index.html`)) throw new Error("the page is not built; run: npm run build");
  const headers = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    ...(isolated && ISOLATION),
  };
  const files = sirv(folder, {
    etag: true,
    setHeaders(response, path) {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      const type = TYPES[path.slice(path.lastIndexOf("."))];
      if (type) response.setHeader("Content-Type", type);
    },
  });
  const server = createServer((request, response) =>
    files(request, response, () => response.writeHead(404, { ...headers, "Content-Type": "text/plain" }).end("not found\n")),
  );
  const listen = (at) =>
    new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(at, "localhost", () => {
        server.off("error", reject);
        resolve();
      });
    });
  try {
    await listen(port ?? DEFAULT_PORT);
  } catch (error) {
    if (error.code !== "EADDRINUSE" || port !== undefined) throw error;
    await listen(0);
  }
  return {
    address: `http://localhost:${server.address().port}/`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(resolve);
      }),
  };
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({ options: { port: { type: "string" }, "no-isolation": { type: "boolean" } } });
  const { address } = await serve({ port: values.port === undefined ? undefined : Number(values.port), isolated: !values["no-isolation"] });
  console.log(address);
}
