// Serves the built page (dist) on this machine, and models beside it: right types, a strict
// Content-Security-Policy, and the headers that isolate the page, unless they are not wanted. Of a
// model's folder it serves what loads read, and nothing else. Builds nothing.
//
//   node packages/demo/serve.mjs [--port N] [--no-isolation]
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ISOLATION, serveFiles } from "../../scripts/file-server.mjs";
import { isMain } from "../../scripts/tools.mjs";

const built = fileURLToPath(new URL("dist", import.meta.url));
export const DEFAULT_PORT = 8788;

/**
 * Scripts, styles and workers from here alone; WebAssembly may be compiled; pictures that the page
 * itself makes may be shown. Asked may be this server, and others over TLS alone: a visitor may name
 * the address of a model, which is read as data.
 */
export const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob: data:",
  "connect-src 'self' https:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** Files that a load may read. */
const OF_MODELS = /^[^.].*\.(safetensors|gguf|json|jinja)$/;

/** Files of a folder, or the one file, by the paths that they are served under. */
function listed(path, prefix) {
  const isFolder = statSync(path).isDirectory();
  const folder = isFolder ? path : dirname(path);
  const names = isFolder ? readdirSync(folder).filter((name) => OF_MODELS.test(name)) : [basename(path)];
  const files = names
    .map((name) => ({ name, file: join(folder, name) }))
    .map(({ name, file }) => ({ name, file, stat: statSync(file) }))
    .filter(({ stat }) => stat.isFile());
  if (files.length === 0) throw new Error(`${path}: expected the files of a model, got none`);
  // Other files, another address: browsers keep large ones by it.
  const key = createHash("sha256");
  for (const { name, stat } of files) key.update(`${name}/${stat.size}/${stat.mtimeMs}/`);
  const at = `models/${prefix}-${key.digest("hex").slice(0, 8)}/`;
  return {
    path: at,
    files: files.map(({ name }) => name),
    bytes: files.reduce((sum, { stat }) => sum + stat.size, 0),
    served: files.map(({ name, file }) => [`/${at}${name}`, file]),
  };
}

/** What models are served, by path, and what the page is told of them: `models`, then its own. */
function beside(models, folder) {
  const served = new Map();
  const told = models.map(({ name, title, about = "", path, adapter }) => {
    if (!/^[\w.-]+$/.test(name)) throw new Error(`name: expected a name of letters, digits, dots and hyphens, got ${JSON.stringify(name)}`);
    const { served: files, ...model } = listed(path, name);
    const of = adapter && listed(adapter.path, `${name}-adapter`);
    for (const [at, file] of [...files, ...(of?.served ?? [])]) served.set(at, file);
    return { name, title, about, ...model, ...(of && { adapter: { path: of.path, files: of.files, about: adapter.about } }) };
  });
  const own = join(folder, "models.json");
  const { models: rest } = existsSync(own) ? JSON.parse(readFileSync(own, "utf8")) : { models: [] };
  return { served, list: { type: "application/json", body: JSON.stringify({ models: [...told, ...rest] }) } };
}

/**
 * Starts the server. A port that is taken is an error when it was asked for; the default one then
 * gives way to any free one. Returns its address and how to end it. `folder`: what is served, the
 * built page by default. `models`: more of them, each `{ name, title, about, path, adapter: { path,
 * about } }`, its path a folder's or a GGUF file's; the page begins with the first.
 */
export async function serve({ port, isolated = true, folder = built, models = [] } = {}) {
  if (!existsSync(`${folder}/index.html`)) throw new Error("the page is not built; run: npm run build");
  const headers = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    ...(isolated && ISOLATION),
  };
  const { served, list } = beside(models, folder);
  const find = (path) => {
    if (path === "/models.json") return list;
    if (path.startsWith("/models/")) return served.get(path);
    // Names without a folder's end are files; a folder shows its index.
    return join(folder, path.endsWith("/") ? `${path}index.html` : path);
  };
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
