// Frameworks that make pages and servers of one source: Next (by both of its bundlers), SvelteKit,
// Astro. Built and started as they are for production; what runs in the browser is opened in
// Chromium.
import { cpSync } from "node:fs";
import { native } from "../lib/judge.mjs";
import { nodeOf } from "./node.mjs";

const group = "Frameworks";
const inPage = { backend: "wasm", threads: "the page is not isolated", says: /isolated/ };

/** The text of a program in a page: its report in `globalThis.matrix`, for `context.page`. */
const pageProgram = (report) =>
  `${report}.then((report) => (globalThis.matrix = report), (error) => (globalThis.matrix = { error: String(error?.stack ?? error) }));`;

const imports = `import * as library from "diffattn";
import * as models from "diffattn/models";
`;

/** The report that a route gives as JSON. */
async function routeReport(address, printed) {
  const response = await fetch(address, { signal: AbortSignal.timeout(60_000) }).catch((error) => {
    throw new Error(`${address}: ${error.message}\n${printed()}`);
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${address}: ${response.status} ${text.slice(0, 300)}\n${printed()}`);
  return JSON.parse(text);
}

// In a folder of the application's own, as its sources are.
const nextFiles = (model) => ({
  "app/layout.js": `export default ({ children }) => <html lang="en"><body>{children}</body></html>;\n`,
  "app/client/page.js": `"use client";
import { useEffect } from "react";
${imports}import { check } from "../../check.mjs";
export default function Page() {
  useEffect(() => {
    ${pageProgram(`check({ library, models, source: "/model/", isSync: false })`)}
  }, []);
  return <p>client</p>;
}\n`,
  "app/route/route.js": `${imports}import { check } from "../../check.mjs";
export const dynamic = "force-dynamic";
export const GET = async () => Response.json(await check({ library, models, source: ${model} }));\n`,
  "app/edge/route.js": `${imports}import { check } from "../../check.mjs";
export const runtime = "edge";
export const GET = async (request) => Response.json(await check({ library, models, source: new URL("/model/", request.url).href }));\n`,
  "app/action/actions.js": `"use server";
${imports}import { check } from "../../check.mjs";
export const run = async () => check({ library, models, source: ${model} });\n`,
  "app/action/page.js": `"use client";
import { useEffect } from "react";
import { run } from "./actions.js";
export default function Page() {
  useEffect(() => {
    ${pageProgram("run()")}
  }, []);
  return <p>action</p>;
}\n`,
});

/**
 * Next built by one of its bundlers, once for the places of both kinds: what is for the edge
 * runtime is an application of its own.
 */
const next = (context, bundler, hasEdge) =>
  context.shared(`next ${bundler} ${hasEdge}`, async (inner) => {
    const { node, env } = await nodeOf(inner, 24);
    // Next 16.4 builds no edge route by webpack, whatever is in it
    // (route_client-reference-manifest.js is missing); 15 has no other bundler by default.
    const isOld = hasEdge && bundler === "webpack";
    const major = isOld ? 15 : 16;
    await inner.install([`next@${major}`, "react", "react-dom"]);
    const { "app/edge/route.js": edge, ...others } = nextFiles(JSON.stringify(inner.modelFolder));
    inner.write(
      hasEdge
        ? { "app/layout.js": others["app/layout.js"], "app/page.js": "export default () => <p>page</p>;\n", "app/edge/route.js": edge }
        : others,
    );
    cpSync(inner.modelFolder, inner.path("public/model"), { recursive: true });
    const program = inner.path("node_modules/next/dist/bin/next");
    await inner.exec(node, [program, "build", ...(isOld ? [] : [`--${bundler}`])], { env, timeout: 400 });
    return {
      ...inner,
      version: inner.versionOf("next", major),
      command: [node, [program, "start", "--port", "0"], { until: /(http:\/\/localhost:\d+)/, env }],
    };
  });

const nextPlaces = ["turbopack", "webpack"].flatMap((bundler) => {
  const place = (name, path, expected, note, hasEdge = false) => ({
    name: `Next (${bundler === "webpack" ? "webpack" : "Turbopack"}), ${name}`,
    group,
    async run(context) {
      const { command, folder, version } = await next(context, bundler, hasEdge);
      const [program, args, options] = command;
      const { match, printed } = await context.start(program, args, { cwd: folder, ...options });
      const address = `${match[1]}/${path}`;
      const isPage = path === "client" || path === "action";
      const report = isPage ? await context.page("chromium", address) : await routeReport(address, printed);
      return { version, report, expected, note };
    },
  });
  return [
    place("client component in Chromium", "client", inPage),
    place("route handler", "route", native),
    place("server action", "action", native),
    place(
      "route handler of the edge runtime",
      "edge",
      { backend: "wasm", threads: "the edge runtime has no threads", says: /./ },
      bundler === "webpack" ? "Next 16.4 itself builds no edge route by webpack" : "",
      true,
    ),
  ];
});

const svelteKit = (context) =>
  context.shared("sveltekit", async (inner) => {
    const { node, env } = await nodeOf(inner, 24);
    await inner.install(["@sveltejs/kit", "@sveltejs/adapter-node", "@sveltejs/vite-plugin-svelte", "svelte", "vite@8"]);
    inner.write({
      "vite.config.js": `import adapter from "@sveltejs/adapter-node";
import { sveltekit } from "@sveltejs/kit/vite";
export default { plugins: [sveltekit({ adapter: adapter() })] };\n`,
      "src/app.html": `<!doctype html><html lang="en"><head>%sveltekit.head%</head><body>%sveltekit.body%</body></html>\n`,
      "src/routes/client/+page.svelte": `<script>
  import { onMount } from "svelte";
  ${imports}  import { check } from "../../../check.mjs";
  onMount(() => {
    ${pageProgram(`check({ library, models, source: "/model/", isSync: false })`)}
  });
</script>
<p>client</p>\n`,
      "src/routes/route/+server.js": `${imports}import { check } from "../../../check.mjs";
export const GET = async () => Response.json(await check({ library, models, source: ${JSON.stringify(inner.modelFolder)} }));\n`,
    });
    cpSync(inner.modelFolder, inner.path("static/model"), { recursive: true });
    await inner.exec(node, [inner.path("node_modules/vite/bin/vite.js"), "build"], { env, timeout: 240 });
    return inner;
  });

const astro = (context) =>
  context.shared("astro", async (inner) => {
    const { node, env } = await nodeOf(inner, 24);
    await inner.install(["astro", "@astrojs/node"]);
    inner.write({
      "astro.config.mjs": `import node from "@astrojs/node";
export default { adapter: node({ mode: "standalone" }) };\n`,
      "src/pages/client.astro": `<html lang="en"><head><title>client</title></head><body><p>client</p>
<script>
  ${imports}  import { check } from "../../check.mjs";
  ${pageProgram(`check({ library, models, source: "/model/", isSync: false })`)}
</script>
</body></html>\n`,
      "src/pages/route.js": `${imports}import { check } from "../../check.mjs";
export const prerender = false;
export const GET = async () => Response.json(await check({ library, models, source: ${JSON.stringify(inner.modelFolder)} }));\n`,
    });
    cpSync(inner.modelFolder, inner.path("public/model"), { recursive: true });
    await inner.exec(node, [inner.path("node_modules/astro/bin/astro.mjs"), "build"], { env, timeout: 240 });
    return inner;
  });

/** A place of an application that is built and whose server is one program. */
const served = (name, packageName, build, program, { path, expected, env, until, note }) => ({
  name,
  group,
  async run(context) {
    const [{ node }, { folder, versionOf }] = [await nodeOf(context, 24), await build(context)];
    const port = await context.freePort();
    const { printed } = await context.start(node, [program], {
      cwd: folder,
      env: { ...env, HOST: "127.0.0.1", PORT: String(port) },
      until,
    });
    const address = `http://localhost:${port}/${path}`;
    const report = path === "route" ? await routeReport(address, printed) : await context.page("chromium", address);
    return { version: versionOf(packageName), report, expected, note };
  },
});

const kitServer = ["@sveltejs/kit", svelteKit, "build/index.js"];
const astroServer = ["astro", astro, "dist/server/entry.mjs"];

export const places = [
  ...nextPlaces,
  served("SvelteKit, page in Chromium", ...kitServer, { path: "client", expected: inPage, until: /Listening/ }),
  served("SvelteKit, server route (adapter-node)", ...kitServer, { path: "route", expected: native, until: /Listening/ }),
  served("Astro, static page in Chromium", ...astroServer, { path: "client", expected: inPage, until: /listening/ }),
  served("Astro, server route (node adapter)", ...astroServer, { path: "route", expected: native, until: /listening/ }),
];
