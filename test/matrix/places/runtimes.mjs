// Runtimes beside Node: Deno, Bun, and workerd by wrangler, as Cloudflare's developers run it.
// Their binaries are npm packages.
import { symlinkSync } from "node:fs";
import { fallback, native } from "../lib/judge.mjs";
import { nodeOf } from "./node.mjs";

const group = "Deno, Bun, workerd";

/** A runtime whose binary is an npm package, installed in one folder for all of its places. */
export const runtime = (context, name) =>
  context.shared(name, async (inner) => {
    await inner.install([name]);
    inner.write({ "main.mjs": inner.program() });
    return inner;
  });

const deno = (name, args, expected, note) => ({
  name,
  group,
  async run(context) {
    const { report, path, versionOf } = await runtime(context, "deno");
    // The package's own program; the script beside it in .bin starts it.
    const program = [path("node_modules/deno/bin.cjs"), "run", "--no-prompt", ...args, "main.mjs"];
    return { version: versionOf("deno"), report: await report(process.execPath, program), expected, note };
  },
});

const bun = {
  name: "Bun",
  group,
  async run(context) {
    const { report, path, versionOf } = await runtime(context, "bun");
    return { version: versionOf("bun"), report: await report(path("node_modules/bun/bin/bun.exe"), ["main.mjs"]), expected: native };
  },
};

const wrangler = {
  name: "wrangler dev (workerd)",
  group,
  async run(context) {
    const { node } = await nodeOf(context, 24);
    await context.install(["wrangler"]);
    symlinkSync(context.modelFolder, context.path("model"), "junction");
    context.write({
      "wrangler.json": {
        name: "place",
        main: "main.mjs",
        compatibility_date: "2026-01-01",
        assets: { directory: "model", binding: "ASSETS" },
      },
      "main.mjs": `import * as library from "diffattn";
import * as models from "diffattn/models";
import { check } from "./check.mjs";
export default {
  async fetch(request, env) {
    try {
      const load = { fetch: (address, init) => env.ASSETS.fetch(address, init) };
      return Response.json(await check({ library, models, source: new URL("/", request.url).href, load }));
    } catch (error) {
      return Response.json({ error: error.stack });
    }
  },
};\n`,
    });
    const args = [
      context.path("node_modules/wrangler/bin/wrangler.js"),
      "dev",
      "--port",
      "0",
      "--ip",
      "127.0.0.1",
      "--show-interactive-dev-session=false",
    ];
    const { match, printed } = await context.start(node, args, {
      until: /Ready on (http:\S+)/,
      env: { WRANGLER_SEND_METRICS: "false" },
    });
    const response = await fetch(new URL("/run", match[1]));
    const text = await response.text();
    if (!response.ok) throw new Error(`${response.status} ${text}\n${printed()}`);
    return {
      version: context.versionOf("wrangler"),
      report: JSON.parse(text),
      expected: { backend: "wasm", threads: "workerd has no threads", says: /./ },
      note: "the models by `fetch` of the binding for assets",
    };
  },
};

export const places = [
  deno("Deno", ["-A"], native),
  deno(
    "Deno without --allow-ffi",
    ["--allow-read", "--allow-env", "--allow-sys"],
    { backend: "wasm", threads: true, says: fallback },
    "WebAssembly",
  ),
  bun,
  wrangler,
];
