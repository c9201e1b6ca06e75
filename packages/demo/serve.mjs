// Serves the built page (dist) on this machine: right types, a strict Content-Security-Policy, and
// the headers that isolate the page, unless they are not wanted. Builds nothing.
//
//   node packages/demo/serve.mjs [--port N] [--no-isolation]
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ISOLATION, serveFiles } from "../../scripts/file-server.mjs";
import { isMain } from "../../scripts/tools.mjs";

const built = fileURLToPath(new URL("dist", import.meta.url));
export const DEFAULT_PORT = 8788;

/**
 * Scripts, styles and workers from here alone; WebAssembly may be compiled; pictures that the page
 * itself makes may be shown.
 */
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

/**
 * Starts the server. A port that is taken is an error when it was asked for; the default one then
 * gives way to any free one. Returns its address and how to end it. `folder`: what is served, the
 * built page by default.
 */
export async function serve({ port, isolated = true, folder = built } = {}) {
  if (!existsSync(`${folder}/index.html`)) throw new Error("the page is not built; run: npm run build");
  const headers = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    ...(isolated && ISOLATION),
  };
  // Names without a folder's end are files; a folder shows its index.
  const find = (path) => join(folder, path.endsWith("/") ? `${path}index.html` : path);
  try {
    return await serveFiles({ find, headers, port: port ?? DEFAULT_PORT });
  } catch (error) {
    if (error.code !== "EADDRINUSE" || port !== undefined) throw error;
    return serveFiles({ find, headers });
  }
}

if (isMain(import.meta)) {
  const { values } = parseArgs({ options: { port: { type: "string" }, "no-isolation": { type: "boolean" } } });
  const { address } = await serve({ port: values.port === undefined ? undefined : Number(values.port), isolated: !values["no-isolation"] });
  console.log(address);
}
