// What a place works with: a folder of its own outside of the project, npm with the packed
// tarballs, programs, servers, browsers. Knows no place, and judges nothing.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { serveFiles } from "../../../scripts/file-server.mjs";
import { browsers as programs, root } from "../../../scripts/tools.mjs";
import { browsers } from "../../browser/launch.mjs";
import { endAll, exec, start } from "./processes.mjs";

const versions = JSON.parse(readFileSync(new URL("../versions.json", import.meta.url), "utf8"));
const checkSource = readFileSync(new URL("check.mjs", import.meta.url), "utf8");
/** What texts of models need; its version is the workspace's. */
const TOKENIZERS = "@huggingface/tokenizers";
const MARK = "MATRIX ";

/** lib/check.mjs as a module, or as CommonJS. */
const checks = {
  "check.mjs": checkSource,
  "check.cjs": checkSource.replace(/^export \{ check \};$/m, "module.exports = { check };"),
};

/** The pinned version of a package; of those with several, the one that begins with `major`. */
export function versionOf(name, major) {
  const pinned = [versions[name] ?? []].flat();
  const found = major === undefined && pinned.length === 1 ? pinned[0] : pinned.find((version) => version.startsWith(`${major}.`));
  if (!found) throw new Error(`test/matrix/versions.json pins no ${name}${major === undefined ? "" : ` ${major}`}`);
  return found;
}

/** The folder of one of the workspace's packages; `owner` names the one that brings it. */
export function ofWorkspace(name, owner) {
  if (!owner) return realpathSync(join(root, "node_modules", name));
  return dirname(createRequire(join(ofWorkspace(owner), "package.json")).resolve(`${name}/package.json`));
}

const manifest = (folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));

/** `{ path: text }` as files of a folder. */
function writeFiles(folder, files) {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), typeof text === "string" || text instanceof Uint8Array ? text : JSON.stringify(text, null, 2));
  }
}

/** What lib/check.mjs reported by `context.report`, the last line of its kind. */
export function reported(printed) {
  const line = printed.split("\n").findLast((text) => text.startsWith(MARK));
  if (!line) throw new Error(`the program reported nothing; it printed:\n${printed}`);
  return JSON.parse(line.slice(MARK.length));
}

/**
 * A run's contexts. `packed`: tarballs' paths by package name. Each place gets one by `fresh()`,
 * whose `close` ends and removes all that it made; what several places build once (`shared`) stays
 * until `close()` of the run.
 */
export function contexts(packed) {
  const shared = new Map();
  const remove = (folder) => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  const newFolder = () => mkdtempSync(join(tmpdir(), "diffattn-matrix-"));
  // Copies, so that whoever packs meanwhile changes nothing here.
  const own = newFolder();
  const keptFolders = [own];
  const tarballs = Object.fromEntries(
    Object.entries(packed).map(([name, path]) => {
      const copy = join(own, basename(path));
      cpSync(path, copy);
      return [name, copy];
    }),
  );

  function make(folder) {
    const closing = [];
    const context = {
      folder,
      tarballs,
      modelFolder: join(root, "examples/model"),
      versionOf,
      ofWorkspace,
      /** What stands before a report in what a program prints. */
      mark: MARK,
      /** Files of this place's folder: `{ path: text, bytes, or an object as JSON }`. */
      write: (files) => writeFiles(folder, files),
      manifestOf: manifest,
      /** A copy of a folder of this place where nothing of npm's is found above it. */
      elsewhere(name) {
        const to = join(newFolder(), "copy");
        cpSync(join(folder, name), to, { recursive: true });
        closing.push(() => remove(dirname(to)));
        return to;
      },
      /** A file of what is installed here, such as a package's program. */
      path: (...names) => join(folder, ...names),

      /**
       * Installs the tarballs and pinned packages ("next", "typescript@7": a version of
       * versions.json that begins so) with npm, as an application has them: the native package and
       * those of the platforms are optional. lib/check.mjs is written beside them, as check.mjs and
       * check.cjs. `type`: of the folder's package.json, with `manifest` added to it.
       * `tokenizers: false` leaves that package out. `args`: more for npm. `offline`: no registry
       * is asked, and `packages` must be empty.
       */
      async install(packages = [], { type = "module", manifest: more = {}, tokenizers = true, offline = false, args = [] } = {}) {
        const wanted = packages.map((name) => {
          const [, bare, major] = /^(.+?)(?:@([^@/]+))?$/.exec(name);
          return [bare, bare === TOKENIZERS ? manifest(ofWorkspace(TOKENIZERS)).version : versionOf(bare, major)];
        });
        const { diffattn, ...optional } = Object.fromEntries(Object.entries(tarballs).map(([name, path]) => [name, `file:${path}`]));
        delete optional["@diffattn/wasm"];
        if (tokenizers && !offline) wanted.push([TOKENIZERS, manifest(ofWorkspace(TOKENIZERS)).version]);
        context.write({
          ...checks,
          "package.json": {
            name: "place",
            private: true,
            type,
            ...more,
            dependencies: { diffattn, ...Object.fromEntries(wanted) },
            optionalDependencies: optional,
          },
        });
        const how = offline ? ["--offline", "--omit=peer", "--legacy-peer-deps"] : ["--prefer-offline"];
        await exec("npm", ["install", "--no-audit", "--no-fund", ...how, ...args], { cwd: folder, timeout: 300 });
        if (tokenizers && offline)
          cpSync(ofWorkspace(TOKENIZERS), join(folder, "node_modules", TOKENIZERS), { recursive: true, dereference: true });
      },

      /**
       * A copy of one of the examples, installed as its package.json says, but for the tarballs,
       * and for packages in their pinned version: it must ask for "^" and that. `model`: where the
       * model is put.
       */
      async example(name, { model }) {
        const left = /^(node_modules|dist|target|\.next)$/;
        cpSync(join(root, "examples", name), folder, { recursive: true, filter: (path) => !left.test(basename(path)) });
        cpSync(context.modelFolder, join(folder, model), { recursive: true });
        const { dependencies, devDependencies = {}, ...more } = manifest(folder);
        const { diffattn, ...others } = { ...dependencies, ...devDependencies };
        const { version } = manifest(join(root, "packages/diffattn"));
        if (diffattn !== `^${version}`) throw new Error(`examples/${name} asks for diffattn ${diffattn}, expected ^${version}`);
        const packages = Object.entries(others).map(([bare, range]) => (bare === TOKENIZERS ? bare : `${bare}@${/\d+/.exec(range)}`));
        await context.install(packages, { type: more.type, manifest: more, tokenizers: false });
        for (const [bare, installed] of Object.entries(manifest(folder).dependencies))
          if (bare in others && others[bare] !== `^${installed}`)
            throw new Error(`examples/${name} asks for ${bare} ${others[bare]}, but what is tried is ^${installed}`);
      },

      /**
       * The text of a program that runs `check` with the model's folder and prints its report.
       * `print`: what prints a line; `header`: what stands before.
       */
      program: ({ commonjs = false, print = "console.log", header = "" } = {}) =>
        `${header}${
          commonjs
            ? `const library = require("diffattn"), models = require("diffattn/models"), { check } = require("./check.cjs");`
            : `import * as library from "diffattn";\nimport * as models from "diffattn/models";\nimport { check } from "./check.mjs";`
        }\ncheck({ library, models, source: ${JSON.stringify(context.modelFolder)} }).then((report) => ${print}("\\n${MARK}" + JSON.stringify(report) + "\\n"));\n`,

      exec: (command, args, options) => exec(command, args, { cwd: folder, ...options }),
      /** A program that reports by `program`: its report. */
      report: async (command, args, options) => reported(await exec(command, args, { cwd: folder, ...options })),
      start: (command, args, options) => start(command, args, { cwd: folder, ...options }),

      /** A port that nothing listens on, for servers that cannot choose one by themselves. */
      freePort: () =>
        new Promise((resolve, reject) => {
          const server = createServer().once("error", reject);
          server.listen(0, "127.0.0.1", () => {
            const { port } = server.address();
            server.close(() => resolve(port));
          });
        }),

      /**
       * Serves a folder of this place ("" is all of it), and before it what `find` has; more
       * options are those of scripts/file-server.mjs.
       */
      async serve(from, { find = () => undefined, ...options } = {}) {
        const at = resolve(folder, from);
        const lying = (path) => {
          const file = join(at, path.endsWith("/") ? `${path}index.html` : path);
          return existsSync(file) && statSync(file).isFile() ? file : undefined;
        };
        const server = await serveFiles({ find: (path) => find(path) ?? lying(path), ...options });
        closing.push(server.close);
        return server;
      },

      /**
       * Opens an address in a browser ("chromium", "firefox") and waits for `globalThis.matrix`: a
       * report, or `{ error }` with what the page threw. Without one it fails with the page's
       * complaints.
       */
      page: (name, address, { timeout = 60 } = {}) =>
        context.browse(name, timeout, async (page) => {
          await page.goto(address);
          for (const end = Date.now() + timeout * 1000; Date.now() < end; await sleep(100)) {
            // A page that is just being replaced cannot be asked.
            const text = await page.evaluate("JSON.stringify(globalThis.matrix)").catch(() => undefined);
            if (!text) continue;
            const { error, ...report } = JSON.parse(text);
            if (error !== undefined) throw new Error(error);
            return report;
          }
          throw new Error(`${address} in ${name}: no report after ${timeout} s`);
        }),

      /**
       * What `body` makes of a new page of a browser, as its driver has pages; when it fails, with
       * the page's complaints.
       */
      async browse(name, timeout, body) {
        if (!programs[name]()) throw new Error(`${name} is missing; node scripts/setup.mjs --browsers installs it`);
        const browser = await browsers[name](timeout * 1000);
        const complaints = [];
        try {
          const page = await browser.newPage();
          page.on("pageerror", (error) => complaints.push(error.message));
          page.on("console", (message) => /^(?:error|warning)$/.test(message.type()) && complaints.push(message.text()));
          page.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
          return await body(page);
        } catch (error) {
          throw new Error([error.message, ...complaints].join("\n"), { cause: error });
        } finally {
          await browser.close();
        }
      },

      /**
       * What several places use and one of them makes: `make` gets a context of its own, whose
       * folder stays until the run ends.
       */
      shared(key, body) {
        if (!shared.has(key)) {
          const at = newFolder();
          keptFolders.push(at);
          const inner = make(at);
          shared.set(key, Promise.resolve(body(inner.context)).finally(inner.close));
        }
        return shared.get(key);
      },
    };
    const close = async () => {
      for (const body of closing) await body();
      closing.length = 0;
    };
    return { context, close };
  }

  return {
    fresh() {
      const folder = newFolder();
      const { context, close } = make(folder);
      return {
        context,
        async close() {
          await close();
          endAll();
          remove(folder);
        },
      };
    },
    close() {
      for (const folder of keptFolders) remove(folder);
    },
  };
}
