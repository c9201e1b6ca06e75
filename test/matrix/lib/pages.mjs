// What the places of pages share: the page and its program, how what was built is served, isolated
// or not, and how both browsers are asked. Builds nothing.
import assert from "node:assert/strict";
import { join } from "node:path";
import { ISOLATION } from "../../../scripts/file-server.mjs";
import { judge } from "./judge.mjs";

const BROWSERS = ["chromium", "firefox"];

/** What is expected of a page that loads everything from where it lies. */
export const expectedOf = (isolated) =>
  isolated
    ? { backend: "wasm", isa: "relaxed-simd+threads", threads: true }
    : { backend: "wasm", isa: "relaxed-simd", threads: "the page is not isolated", says: /not cross-origin isolated/ };

/** The same where the modules are part of the script: those have no threads. */
export const expectedInline = (isolated) =>
  isolated
    ? { backend: "wasm", isa: "relaxed-simd", threads: "`diffattn/inline` has no build with threads", says: /build with threads/ }
    : expectedOf(false);

/** The same where a scope has no Worker: calls run in slices on its own thread. */
export const expectedAlone = () => ({ backend: "wasm", isa: "relaxed-simd", threads: "there is no Worker", says: /runtime has no Worker/ });

/** A page with one script: a module, or `kind: "classic"`. */
export const pageOf = (script, { kind = "module", head = "" } = {}) =>
  `<!doctype html>\n<meta charset="utf-8" />\n<title>place</title>\n${head}<script ${kind === "module" ? 'type="module"' : "defer"} src="${script}"></script>\n`;

/** In a page: reports by `run`, with the model beside the page. */
const IN_PAGE = `run(new URL("model/", document.baseURI).href).then((outcome) => {
  globalThis.matrix = outcome;
});\n`;

/**
 * The text of a module in which `run(source)` gives a report or `{ error }`. `imports`: lines
 * before; `init`: an expression, what `init` is given; `given`: more that `check` is given; `main`:
 * what calls `run`.
 */
export const programOf = ({ imports = "", init, given = "", main = IN_PAGE } = {}) =>
  `${imports}import * as library from "diffattn";
import * as models from "diffattn/models";
import { check } from "./check.mjs";

async function run(source) {
  try {${init ? `\n    await library.init(${init});` : ""}
    return { ...(await check({ library, models, source, isSync: false${given && `, ${given}`} })), agent: navigator.userAgent };
  } catch (error) {
    return { error: error.message };
  }
}
${main}`;

/**
 * Serves a folder of a place, with the model in model/. `isolated`: with the headers for that;
 * `headers`: more of them.
 */
export const servePage = (context, from, { isolated = false, headers = {}, find = () => undefined, ...options } = {}) =>
  context.serve(from, {
    headers: { ...(isolated && ISOLATION), ...headers },
    find: (path) => {
      const model = /(?:^|\/)model\/([^/]+)$/.exec(path)?.[1];
      return model ? join(context.modelFolder, model) : find(path);
    },
    ...options,
  });

/** A browser as a person names it, of its own words. */
export const nameOf = (agent) =>
  / (?:Headless)?(Chrome|Firefox)\/(\d+)/.exec(agent)?.slice(1).join(" ").replace("Chrome", "Chromium") ?? agent;

/**
 * Asks both browsers for the report of a page and judges each by `expected(name)`; returns the last
 * report, and what the browsers are called.
 */
export async function inBrowsers(context, address, expected, { names = BROWSERS } = {}) {
  const agents = [];
  let report;
  for (const name of names) {
    try {
      report = await context.page(name, address);
      judge(report, expected(name));
    } catch (error) {
      throw new Error(`${name}, ${address}: ${error.message}`, { cause: error });
    }
    agents.push(nameOf(report.agent));
  }
  return { report, agents: agents.join(", ") };
}

/**
 * A place's row of a folder that is served as it is: isolated in both browsers, and before that
 * without isolation in Chromium. `version`: the tool's. `expected(isolated, browser)`: what each is
 * judged by.
 */
export async function rowOf(context, from, { version, page = "", note, expected = expectedOf, names = BROWSERS, ...serving }) {
  let last;
  for (const isolated of [false, true]) {
    const server = await servePage(context, from, { isolated, ...serving });
    last = await inBrowsers(context, `${server.address}${page}`, (name) => expected(isolated, name), {
      names: isolated ? names : names.slice(0, 1),
    });
  }
  const { report, agents } = last;
  return { version: version ? `${version}; ${agents}` : agents, report, expected: expected(true, names.at(-1)), note };
}

/**
 * What a page says where it cannot work has to match `pattern`, for a person to find in it what
 * helps. `at`: its address, or a folder.
 */
export async function refuses(context, at, pattern) {
  const address = /^https?:/.test(at) ? at : (await servePage(context, at)).address;
  await assert.rejects(context.page("chromium", address), pattern);
}
