// An extension of browsers (Manifest V3): its background, a Service Worker in Chromium and a page
// in Firefox, and a page of its own, which is isolated in Chromium. Both tell what came out to a
// server of this machine.
import { cpSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { browsers } from "../../browser/launch.mjs";
import { application, copied, copyFiles, esbuild } from "../lib/bundles.mjs";
import { expectedAlone, expectedOf, nameOf, pageOf, programOf } from "../lib/pages.mjs";

const group = "Browsers";
/** In seconds. */
const LIMIT = 60;

/** Both browsers read the same one: Chromium takes the Service Worker, Firefox the scripts. */
const manifest = {
  manifest_version: 3,
  name: "place",
  version: "1",
  background: { service_worker: "background.js", scripts: ["background.js"] },
  browser_specific_settings: { gecko: { id: "place@example.org" } },
  content_security_policy: { extension_pages: "script-src 'self' 'wasm-unsafe-eval'; object-src 'self'" },
  cross_origin_embedder_policy: { value: "require-corp" },
  cross_origin_opener_policy: { value: "same-origin" },
};

/** Runs the extension in a browser; returns the reports of its background and its page. */
async function reports(context, name) {
  const told = {};
  const { address } = await context.serve("", {
    headers: { "Access-Control-Allow-Origin": "*" },
    first(request, response, path) {
      if (request.method !== "POST") return false;
      let text = "";
      request.on("data", (piece) => (text += piece));
      request.on("end", () => {
        told[path.slice(1)] = JSON.parse(text);
        response.end();
      });
      return true;
    },
  });
  // As the one that a person loads unpacked: the package's files and a model lie in its folder.
  const folder = `extension-${name}`;
  const app = await application(context, ["esbuild"]);
  const tell = (what) => `run(new URL("model/", self.location.href).href).then((outcome) =>
  fetch(${JSON.stringify(address + what)}, { method: "POST", body: JSON.stringify(outcome) }),
);\n`;
  const opens = `(globalThis.browser ?? globalThis.chrome).tabs.create({ url: "page.html" });\n`;
  for (const [what, more] of Object.entries({ background: opens, page: "" })) {
    app.write({ [`${what}.js`]: programOf({ ...copied("self.location.href"), main: tell(what) + more }) });
    await esbuild(app, `${what}.js`, context.path(folder), "iife");
  }
  copyFiles(app, context.path(folder, "diffattn"));
  cpSync(context.modelFolder, context.path(folder, "model"), { recursive: true });
  context.write({ [`${folder}/manifest.json`]: manifest, [`${folder}/page.html`]: pageOf("page.js", { kind: "classic" }) });

  const browser = await browsers[name](LIMIT * 1000, { extension: context.path(folder) });
  try {
    for (const end = Date.now() + LIMIT * 1000; Date.now() < end && !(told.background && told.page); await sleep(100));
    return told;
  } finally {
    await browser.close();
  }
}

const place = (title, browser, part, expected, note) => ({
  name: title,
  group,
  async run(context) {
    const told = (await context.shared(`extension in ${browser}`, (inner) => reports(inner, browser)))[part];
    return { version: nameOf(told?.agent ?? ""), report: told, expected, note };
  },
});

export const places = [
  place("an extension's Service Worker (Manifest V3)", "chromium", "background", expectedAlone(), "Chromium; `init({ wasm: folder })`"),
  place("an extension's page (Manifest V3)", "chromium", "page", expectedOf(true), "isolated by its manifest"),
  place("an extension's background page (Manifest V3)", "firefox", "background", expectedOf(false), "Firefox"),
  place("an extension's page (Manifest V3), Firefox", "firefox", "page", expectedOf(false), "Firefox isolates none"),
];
