// What a browser downloads, gzip -9: each WebAssembly module, and the scripts that operators and
// layers need, worker and pool with wasm-bindgen's glue included. Reads the built package, builds
// nothing.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const dist = fileURLToPath(new URL("../packages/diffattn/dist/", import.meta.url));

const gzipped = (name) => gzipSync(readFileSync(join(dist, name)), { level: 9 }).length;

/** A script and all that it imports, starts as a worker or names as a file beside it. */
function reached(name, found = new Set()) {
  // The glue names what it gives a module as if that were a file.
  if (found.has(name) || !existsSync(join(dist, name))) return found;
  found.add(name);
  for (const [, next] of readFileSync(join(dist, name), "utf8").matchAll(/["']\.\/([\w.-]+\.js)["']/g)) reached(next, found);
  return found;
}

/** `{ wasm: { file: bytes }, script: bytes }` */
export function sizes() {
  const modules = readdirSync(dist).filter((name) => name.endsWith(".wasm"));
  const scripts = [...reached("browser.js")];
  return {
    wasm: Object.fromEntries(modules.map((name) => [name, gzipped(name)])),
    scripts,
    script: scripts.reduce((sum, name) => sum + gzipped(name), 0),
  };
}
