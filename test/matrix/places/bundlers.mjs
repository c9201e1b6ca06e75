// Bundlers for browsers: those that carry the package's files as they come, and those that do not,
// with diffattn/inline and with the files copied. Each page is opened in Chromium and Firefox,
// isolated and not.
import { cpSync } from "node:fs";
import { join } from "node:path";
import { ISOLATION } from "../../../scripts/file-server.mjs";
import { application, copied, copyFiles, esbuild, INLINE, runs } from "../lib/bundles.mjs";
import { expectedInline, expectedOf, inBrowsers, pageOf, programOf, refuses, rowOf } from "../lib/pages.mjs";

const group = "Bundlers for browsers";

/** What a page that lacks the files says has to name what helps. */
const NAMES_WHAT_HELPS = /diffattn\/inline/;

const programs = {
  "main.js": programOf(),
  "inline.js": programOf(INLINE),
  "copied.js": programOf(copied("document.baseURI")),
};

// The guide's: docs/guides/vite.md.
const viteConfigs = {
  plain: {},
  guide: { optimizeDeps: { exclude: ["diffattn"] }, worker: { format: "es" }, build: { target: "es2022" } },
};
const VITE = ["vite", "bin/vite.js"];

/** The pages, and configurations for development. */
function viteFiles() {
  const pages = Object.keys(programs).map((name) => [name.replace(".js", ".html"), pageOf(name)]);
  const files = { ...programs, ...Object.fromEntries(pages) };
  for (const [name, config] of Object.entries(viteConfigs))
    for (const isolated of [false, true]) {
      const text = JSON.stringify({ ...config, server: { headers: isolated ? ISOLATION : {} } });
      files[`${name}${isolated ? "-isolated" : ""}.config.js`] = `export default ${text};\n`;
    }
  return files;
}

async function viteOf(context, major) {
  const app = await application(context, [`vite@${major}`], { files: viteFiles() });
  return { app, version: context.versionOf("vite", String(major)) };
}

/** Builds a page with one of the configurations by Vite's program at `vite`; returns the folder. */
async function viteBuilt(app, vite, config) {
  const to = `dist-${config}`;
  app.write({
    "build.config.js": `import config from "./${config}.config.js";
export default { ...config, base: "./", build: { ...config.build, rollupOptions: { input: "main.html" } } };\n`,
  });
  await app.exec(process.execPath, [vite, "build", "--config", "build.config.js", "--outDir", to, "--logLevel", "error"]);
  return app.path(to);
}

const viteBuilds = [6, 7, 8].map((major) => ({
  name: `Vite ${major}, build`,
  group,
  async run(context) {
    const { app, version } = await viteOf(context, major);
    const vite = app.path("node_modules", ...VITE);
    const plain = await viteBuilt(app, vite, "plain");
    await rowOf(context, plain, { page: "main.html", names: ["chromium"] });
    const folder = await viteBuilt(app, vite, "guide");
    return rowOf(context, folder, { version, page: "main.html", note: "with the guide's configuration or none" });
  },
}));

/** Vite as vitest brings it: no registry is asked. */
const shortVite = {
  name: "Vite of the workspace's own, build, in Chromium",
  group,
  short: true,
  async run(context) {
    await context.install([], { offline: true });
    context.write(viteFiles());
    const vite = context.ofWorkspace("vite", "vitest");
    const folder = await viteBuilt(context, join(vite, VITE[1]), "plain");
    return rowOf(context, folder, { version: context.manifestOf(vite).version, page: "main.html", names: ["chromium"] });
  },
};

/** The page of a development server, isolated and not. */
async function viteServed(context, { major, config, page, expected = expectedOf, note, before }) {
  const { app, version } = await viteOf(context, major);
  let last;
  cpSync(context.modelFolder, app.path("public/model"), { recursive: true });
  for (const isolated of [false, true]) {
    const args = ["--host", "localhost", "--force", "--config", `${config}${isolated ? "-isolated" : ""}.config.js`];
    const server = await app.start(process.execPath, [app.path("node_modules", ...VITE), ...args], { until: /(http:\/\/localhost:\d+\/)/ });
    try {
      if (!isolated) await before?.(server.match[1]);
      last = await inBrowsers(context, `${server.match[1]}${page}`, () => expected(isolated));
    } finally {
      await server.stop();
    }
  }
  return { version: `${version}; ${last.agents}`, report: last.report, expected: expected(true), note };
}

const viteServers = [6, 7, 8].map((major) => ({
  name: `Vite ${major}, dev`,
  group,
  run: (context) =>
    viteServed(context, { major, config: "guide", page: "main.html", note: "with the guide's configuration: `optimizeDeps.exclude`" }),
}));

const viteServersAsTheyCome = [6, 7, 8].map((major) => ({
  name: `Vite ${major}, dev as it comes`,
  group,
  // Rolldown, which Vite 8 bundles dependencies with, sees the package's files; esbuild before it
  // did not.
  run: (context) =>
    major === 8
      ? viteServed(context, { major, config: "plain", page: "main.html" })
      : viteServed(context, {
          major,
          config: "plain",
          page: "inline.html",
          expected: expectedInline,
          note: "with `diffattn/inline`; without it the page says what helps",
          before: (address) => refuses(context, `${address}main.html`, NAMES_WHAT_HELPS),
        }),
}));

/** webpack, and what reads its configuration. */
const likeWebpack = [
  ["webpack", "webpack", ["webpack", "webpack-cli"], ["webpack-cli", "bin/cli.js"], []],
  ["Rspack", "@rspack/core", ["@rspack/core", "@rspack/cli"], ["@rspack/cli", "bin/rspack.js"], ["build"]],
].map(([name, versioned, packages, cli, command]) => ({
  name: `${name}, build`,
  group,
  async run(context) {
    const config = `import { join } from "node:path";
export default { mode: "production", entry: "./main.js", output: { path: join(import.meta.dirname, "dist"), filename: "main.js" } };\n`;
    const app = await application(context, packages, { files: { ...programs, "bundle.config.mjs": config } });
    await runs(app, cli, [...command, "--config", "bundle.config.mjs"]);
    app.write({ "dist/index.html": pageOf("main.js", { kind: "classic" }) });
    return rowOf(context, app.path("dist"), { version: context.versionOf(versioned) });
  },
}));

/** Those that bundle scripts alone: what makes a bundle of an entry in a folder. */
const ofScripts = {
  esbuild: {
    packages: ["esbuild"],
    bundle: (app, entry, to) => esbuild(app, entry, to, "esm"),
  },
  Rollup: {
    packages: ["rollup", "@rollup/plugin-node-resolve"],
    bundle: (app, entry, to) =>
      runs(app, ["rollup", "dist/bin/rollup"], ["-p", "@rollup/plugin-node-resolve={browser:true}", entry, "-d", to, "--silent"]),
  },
};

const bundles = Object.entries(ofScripts).flatMap(([tool, { packages, bundle }]) => {
  const make = async (context, entry) => {
    const app = await application(context, packages, { files: programs });
    const to = `dist-${tool}-${entry}`;
    await bundle(app, entry, to);
    app.write({ [`${to}/index.html`]: pageOf(entry) });
    return { folder: app.path(to), app, version: context.versionOf(packages[0]) };
  };
  return [
    {
      name: `${tool}, with diffattn/inline`,
      group,
      async run(context) {
        const bare = await make(context, "main.js");
        await refuses(context, bare.folder, NAMES_WHAT_HELPS);
        const { folder, version } = await make(context, "inline.js");
        return rowOf(context, folder, { version, expected: expectedInline, note: "without it the page says what helps" });
      },
    },
    {
      name: `${tool}, with the files copied`,
      group,
      async run(context) {
        const { folder, app, version } = await make(context, "copied.js");
        copyFiles(app, `${folder}/diffattn`);
        return rowOf(context, folder, { version, note: "`init({ wasm: folder })`" });
      },
    },
  ];
});

const classic = {
  name: "a classic script of esbuild (IIFE), with diffattn/inline",
  group,
  async run(context) {
    const app = await application(context, ["esbuild"], { files: programs });
    await esbuild(app, "inline.js", "dist-classic", "iife");
    app.write({ "dist-classic/index.html": pageOf("inline.js", { kind: "classic" }) });
    return rowOf(context, app.path("dist-classic"), { version: context.versionOf("esbuild"), expected: expectedInline });
  },
};

const parcels = [
  ["Parcel, build as it comes", undefined],
  ["Parcel, build with packageExports", { "@parcel/resolver-default": { packageExports: true } }],
].map(([name, manifest]) => ({
  name,
  group,
  async run(context) {
    const app = await application(context, ["parcel"], { files: { ...programs, "index.html": pageOf("main.js") }, manifest });
    await runs(app, ["parcel", "lib/bin.js"], ["build", "index.html", "--dist-dir", "dist", "--public-url", "./", "--no-source-maps"]);
    return rowOf(context, app.path("dist"), { version: context.versionOf("parcel") });
  },
}));

export const places = [shortVite, ...viteBuilds, ...viteServers, ...viteServersAsTheyCome, ...likeWebpack, ...bundles, classic, ...parcels];
