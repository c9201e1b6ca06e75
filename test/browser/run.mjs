// Runs page.js in Chromium and Firefox, isolated and not, and prints one closing line. A browser
// that is missing or does not start is a failure.
//
//   node test/browser/run.mjs [chromium] [firefox]
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { browsers } from "./launch.mjs";
import { serve } from "./server.mjs";

/** One evaluation runs all of a page's tests. */
const TIMEOUT = 600_000;

const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
/** Folders of cases of what the public API has no operator for. */
const ofCrates = JSON.parse(readFileSync(join(folder, "of-crates.json"), "utf8"));
const fixtures = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .map((name) => name.replaceAll("\\", "/"))
  .filter((name) => name.endsWith(".safetensors") && !ofCrates.some((other) => name.startsWith(`${other}/`)))
  .sort();

let passed = 0;
let failed = 0;
function report(where, name, error) {
  if (error === null) return void passed++;
  failed++;
  console.error(`FAILED ${where}: ${name}: ${error}`);
}

const chosen = process.argv.slice(2);
for (const [name, launch] of Object.entries(browsers)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  for (const isolated of [true, false]) {
    const where = `${name}, ${isolated ? "isolated" : "not isolated"}`;
    const server = await serve({ isolated });
    let browser;
    try {
      browser = await launch(TIMEOUT);
      const page = await browser.newPage();
      page.on("pageerror", (error) => report(where, "an uncaught error", error.message));
      await page.goto(`${server.origin}/browser/page.html`);
      await page.waitForFunction("typeof runTests === 'function'");
      const really = await page.evaluate("crossOriginIsolated");
      report(where, "the page's isolation", really === isolated ? null : `it is ${really}`);
      const results = await page.evaluate(`runTests(${JSON.stringify(fixtures)})`);
      for (const { name, error } of results) report(where, name, error);
      console.log(`${where}: ${results.length} tests`);
    } catch (error) {
      report(where, "the run", error.message);
    } finally {
      await browser?.close();
      await server.close();
    }
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
