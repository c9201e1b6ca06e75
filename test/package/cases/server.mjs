// Server-side rendering: all entries are imported where any use of a page, a worker or the network
// throws.
import assert from "node:assert/strict";
import dns from "node:dns";
import http from "node:http";
import net from "node:net";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const touched = [];
const names = "window document self location fetch XMLHttpRequest WebSocket Worker SharedWorker caches indexedDB localStorage".split(" ");
for (const name of names)
  Object.defineProperty(globalThis, name, {
    configurable: true,
    get() {
      touched.push(name);
      throw new Error(`${name} was touched`);
    },
  });
for (const [module, name] of [
  [net.Socket.prototype, "connect"],
  [http, "request"],
  [dns, "lookup"],
])
  module[name] = () => {
    touched.push(name);
    throw new Error(`${name} was called`);
  };

const node = await import("diffattn");
// What a bundler takes for browsers.
const browser = await import(pathToFileURL(join(import.meta.dirname, "node_modules/diffattn/dist/browser.js")).href);
await import("diffattn/viz");
const nodeModels = await import("diffattn/models");
const browserModels = await import(pathToFileURL(join(import.meta.dirname, "node_modules/diffattn/dist/models.js")).href);
assert.deepEqual(touched, []);
assert.deepEqual(Object.keys(browser).sort(), Object.keys(node).sort());
assert.deepEqual(Object.keys(browserModels).sort(), Object.keys(nodeModels).sort());
// Nothing may keep this process alive: it ends by itself, or the test times out.
