// Pages and workers of browsers as they are met without a bundler's help, or against it: a CDN's
// import map, workers of every kind, a Content-Security-Policy, a file that is opened. Chromium and
// Firefox.
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { application, copied, copyFiles, esbuild, INLINE } from "../lib/bundles.mjs";
import { expectedAlone, expectedOf, inBrowsers, pageOf, programOf, rowOf } from "../lib/pages.mjs";

const group = "Browsers";

/** The package's own files and the tokenizers', from `base`. */
const importMap = (base) =>
  `<script type="importmap">${JSON.stringify({
    imports: {
      diffattn: `${base}diffattn/dist/browser.js`,
      "diffattn/models": `${base}diffattn/dist/models.js`,
      "@huggingface/tokenizers": `${base}@huggingface/tokenizers/dist/tokenizers.min.mjs`,
    },
  })}</script>\n`;

/** A page that imports what lies at `base`, in page/. */
const mapped = (context, base) =>
  context.write({
    "page/index.html": pageOf("main.js", { head: importMap(base) }),
    "page/main.js": programOf(),
    "page/check.mjs": readFileSync(context.path("check.mjs")),
  });

/** A page whose import map names the package on another origin, as a CDN is. */
const cdn = (name, { names, offline, short }) => ({
  name,
  group,
  short,
  async run(context) {
    await context.install([], { offline });
    const { address } = await context.serve("node_modules", { headers: { "Access-Control-Allow-Origin": "*" } });
    mapped(context, address);
    return rowOf(context, "page", { names });
  },
});

const plain = {
  name: "files of the page's own origin, by an import map",
  group,
  async run(context) {
    await context.install();
    mapped(context, "./node_modules/");
    cpSync(context.path("node_modules"), context.path("page/node_modules"), { recursive: true });
    return rowOf(context, "page", {});
  },
};

/** Bundles a program by esbuild into this place's page/, under a name. */
async function bundled(context, name, { format = "iife", ...program }) {
  const app = await application(context, ["esbuild"]);
  app.write({ [name]: programOf(program) });
  await esbuild(app, name, context.path("page"), format);
  return app;
}

/** A page that starts something and shows what it answers, `done(outcome)`. */
const page = (script) => ({
  "page/index.html": pageOf("page.js", { kind: "classic" }),
  "page/page.js": `const source = new URL("model/", document.baseURI).href;
const done = (outcome) => { globalThis.matrix = outcome; };
const failed = (event) => done({ error: event.message || "the worker did not load" });
${script}`,
});

const ownWorker = {
  name: "a module worker of the page's own",
  group,
  async run(context) {
    const main = "self.onmessage = async ({ data }) => self.postMessage(await run(data));\n";
    const app = await bundled(context, "worker.js", { format: "esm", ...copied("self.location"), main });
    copyFiles(app, context.path("page/diffattn"));
    context.write(
      page(`const worker = new Worker("worker.js", { type: "module" });
worker.onerror = failed;
worker.onmessage = ({ data }) => done(data);
worker.postMessage(source);\n`),
    );
    return rowOf(context, "page", { note: "bundled by esbuild, `init({ wasm: folder })`" });
  },
};

const ofShared = (_, browser) => ({
  ...(browser === "chromium" ? expectedAlone() : expectedOf(false)),
  threads: "Chromium has no Worker there, and Firefox no isolation",
});

const sharedWorker = {
  name: "a Shared Worker",
  group,
  async run(context) {
    const main = `self.onconnect = ({ ports: [port] }) => {
  port.onmessage = async ({ data }) => port.postMessage(await run(data));
};\n`;
    await bundled(context, "worker.js", { ...INLINE, main });
    context.write(
      page(`const { port } = Object.assign(new SharedWorker("worker.js"), { onerror: failed });
port.onmessage = ({ data }) => done(data);
port.postMessage(source);\n`),
    );
    return rowOf(context, "page", { expected: ofShared, note: "bundled by esbuild with `diffattn/inline`" });
  },
};

/** The program of a Service Worker. */
const SERVICE = `self.oninstall = () => self.skipWaiting();
self.onmessage = (event) => event.waitUntil(run(event.data).then((outcome) => event.ports[0].postMessage(outcome)));\n`;

/** A page whose Service Worker is worker.js, registered with those options. */
const servicePage = (options) =>
  page(`const { port1, port2 } = new MessageChannel();
port1.onmessage = ({ data }) => done(data);
navigator.serviceWorker.register("worker.js", ${JSON.stringify(options)}).then(async () => {
  const { active } = await navigator.serviceWorker.ready;
  active.postMessage(source, [port2]);
}).catch(failed);\n`);

const serviceWorker = {
  name: "a Service Worker",
  group,
  async run(context) {
    await bundled(context, "worker.js", { ...INLINE, main: SERVICE });
    context.write(servicePage({}));
    return rowOf(context, "page", { expected: expectedAlone, note: "bundled by esbuild with `diffattn/inline`" });
  },
};

const PROMPT_IDS = [825, 266, 826, 307];

const moduleServiceWorker = {
  name: "a Service Worker of modules, not bundled",
  group,
  async run(context) {
    await context.install();
    const program = programOf({
      imports: `import "diffattn/in-thread";\n`,
      // The tokenizers are imported by name, and while it runs.
      given: `load: { tokenizer: null }, prompt: ${JSON.stringify(PROMPT_IDS)}`,
      main: SERVICE,
    });
    // No import map reaches a worker.
    const fileOf = (name) => `"./node_modules/diffattn/dist/${name === "diffattn" ? "browser" : name.replace("diffattn/", "")}.js"`;
    context.write({
      ...servicePage({ type: "module" }),
      "page/worker.js": program.replaceAll(/"(diffattn(?:\/[\w-]+)?)"/g, (_, name) => fileOf(name)),
      "page/check.mjs": readFileSync(context.path("check.mjs")),
    });
    cpSync(context.path("node_modules"), context.path("page/node_modules"), { recursive: true });
    return rowOf(context, "page", { expected: expectedAlone, note: '`import "diffattn/in-thread"`' });
  },
};

const policy = (name, { value, how, expected, note }) => ({
  name,
  group,
  async run(context) {
    const app = await bundled(context, "main.js", { format: "esm", ...how });
    if (how.init) copyFiles(app, context.path("page/diffattn"));
    context.write({ "page/index.html": pageOf("main.js") });
    return rowOf(context, "page", { headers: { "Content-Security-Policy": value }, expected, note });
  },
});

const STRICT = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self'";

const opened = {
  name: "a page that is opened as a file (file://)",
  group,
  async run(context) {
    // Nothing beside such a page can be asked for, so the model comes as a script.
    const files = {};
    for (const name of ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
      files[name] = readFileSync(join(context.modelFolder, name)).toString("base64");
    const main = `const source = {};
for (const [name, text] of Object.entries(globalThis.modelFiles)) source[name] = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
run(source).then((outcome) => {
  globalThis.matrix = outcome;
});\n`;
    await bundled(context, "main.js", { ...INLINE, main });
    context.write({
      "page/index.html": pageOf("main.js", { kind: "classic", head: `<script defer src="model.js"></script>\n` }),
      "page/model.js": `globalThis.modelFiles = ${JSON.stringify(files)};\n`,
    });
    const expected = expectedOf(false);
    const { report, agents } = await inBrowsers(context, pathToFileURL(context.path("page/index.html")).href, () => expected);
    return { version: agents, report, expected, note: "a classic script with `diffattn/inline`; the model comes as bytes" };
  },
};

export const places = [
  // The first without a registry.
  cdn("an import map of another origin, of the workspace's own, in Chromium", { short: true, offline: true, names: ["chromium"] }),
  cdn("an import map of another origin (a CDN)", {}),
  plain,
  ownWorker,
  sharedWorker,
  serviceWorker,
  moduleServiceWorker,
  policy("a strict Content-Security-Policy, files of its own origin", {
    value: STRICT,
    how: copied("document.baseURI"),
    note: `\`${STRICT}\``,
  }),
  policy("a strict Content-Security-Policy, with diffattn/inline", {
    value: STRICT,
    how: INLINE,
    expected: () => ({
      backend: "wasm",
      isa: "relaxed-simd",
      threads: "no worker starts from a text there",
      says: /^no worker starts here/,
    }),
    note: "without `worker-src blob:` calls run in slices on the page's thread",
  }),
  opened,
];
