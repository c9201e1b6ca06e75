// What the tests of the page share: what is done in it as a user does, what is waited for, and the
// run itself in every browser, isolated and not. Knows no test.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { POLICY, serve } from "../../packages/demo/serve.mjs";
import { browsers } from "./launch.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TIMEOUT = 300_000;

/** Runs before the page's own scripts: keeps violations, and what is saved instead of saving it. */
function watch() {
  globalThis.violations = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    globalThis.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile ?? ""}`);
  });
  const blobs = new Map();
  const createObjectURL = URL.createObjectURL.bind(URL);
  URL.createObjectURL = (blob) => {
    const address = createObjectURL(blob);
    blobs.set(address, blob);
    return address;
  };
  globalThis.saved = [];
  const click = HTMLAnchorElement.prototype.click;
  HTMLAnchorElement.prototype.click = function () {
    if (this.download) globalThis.saved.push({ name: this.download, blob: blobs.get(this.href) });
    else click.call(this);
  };
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Waits until `question` (a function that runs in the page) gives something. Drivers' own waiting
 * evaluates text, which the policy forbids.
 */
export async function until(page, what, question, ...args) {
  const end = Date.now() + 120_000;
  for (;;) {
    const answer = await page.evaluate(question, ...args);
    if (answer) return answer;
    const error = await page.evaluate(() => document.getElementById("error").textContent);
    assert.equal(error, "", `while waiting until ${what}`);
    assert.ok(Date.now() < end, `it never came that ${what}`);
    await pause(30);
  }
}

export const textOf = (page, id) => page.evaluate((id) => document.getElementById(id).textContent, id);

/** Fills a field as a user's input does. */
export const fill = (page, id, value) =>
  page.evaluate(
    ({ id, value }) => {
      const field = document.getElementById(id);
      field.value = value;
      for (const type of ["input", "change"]) field.dispatchEvent(new Event(type, { bubbles: true }));
    },
    { id, value: String(value) },
  );

/** Clicks on something are tried so often. */
const CLICKS = 5;

/** Told by the page: how often the element was clicked on since it was asked first. */
const clicksOf = (page, selector) =>
  page.evaluate((selector) => {
    const element = document.querySelector(selector);
    const seen = (globalThis.clicks ??= new WeakMap());
    if (!seen.has(element)) {
      seen.set(element, 0);
      element.addEventListener("click", () => seen.set(element, seen.get(element) + 1), { capture: true });
    }
    return seen.get(element);
  }, selector);

/**
 * A click as a user's, once the place of what is clicked rests: a driver finds the place first and
 * clicks then, so that what a late drawing moves is missed. A user sees that and clicks again.
 */
export async function click(page, selector) {
  const place = () => page.evaluate((selector) => JSON.stringify(document.querySelector(selector).getBoundingClientRect()), selector);
  for (let tried = 0; tried < CLICKS; tried += 1) {
    for (let before = "", now = await place(); now !== before; now = await place()) {
      before = now;
      await pause(100);
    }
    const before = await clicksOf(page, selector);
    await page.click(selector);
    // (What is clicked away has heard it.)
    for (let waited = 0; waited < 10; waited += 1) {
      if ((await clicksOf(page, selector).catch(() => Infinity)) > before) return;
      await pause(100);
    }
  }
  assert.fail(`no click of ${CLICKS} came to ${selector}`);
}

/** What a button of the export saves; `prefix`: of the ids of the view that has it. */
export async function saveAs(page, kind, picture, prefix = "") {
  if (picture) await fill(page, `${prefix}picture`, picture);
  await page.evaluate(() => void (globalThis.saved.length = 0));
  await click(page, `#${prefix}${kind}`);
  await until(page, `${kind} is saved`, () => globalThis.saved.length > 0);
  return page.evaluate(async () => {
    const [{ name, blob }] = globalThis.saved;
    return { name, type: blob.type, text: blob.type === "image/png" ? "" : await blob.text() };
  });
}

/** Names, roles and contrast of what is open, in every theme that the driver can ask for. */
export async function accessible({ page, driver }, what) {
  await page.evaluate(axe);
  for (const theme of driver.theme ? ["light", "dark"] : [undefined]) {
    if (theme) await driver.theme(page, theme);
    await pause(100);
    const violations = await page.evaluate(async () =>
      (await globalThis.axe.run()).violations.map(
        ({ id, nodes }) =>
          `${id}: ${nodes
            .map(({ html }) => html.slice(0, 120))
            .slice(0, 3)
            .join(" | ")}`,
      ),
    );
    assert.deepEqual(violations, [], `${what}, ${theme}`);
  }
}

/** Elements of the page that are wider than it, a few. */
export const tooWide = (page) =>
  page.evaluate(() =>
    document.documentElement.scrollWidth > innerWidth
      ? Array.from(document.querySelectorAll("body *"))
          .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
          .map((element) => `${element.localName}#${element.id}.${element.className}`)
          .slice(0, 5)
      : [],
  );

let passed = 0;
let failed = 0;
function report(where, name, error) {
  if (error === null) return void passed++;
  failed++;
  console.error(`FAILED ${where}: ${name}: ${error}`);
}

/** One page and its tests, in their order: each goes on where the one before ended. */
async function runPage(where, driver, server, { tests, isolated, address = "", allowed = () => false, context = {} }) {
  const page = await driver.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`an uncaught error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !allowed(message.text())) complaints.push(`the console: ${message.text()}`);
  });
  const requests = [];
  page.on("request", (request) => {
    const url = request.url();
    requests.push(url);
    if (!/^(data|blob):/.test(url) && !url.startsWith(server.address)) complaints.push(`a request to ${url}`);
  });
  await driver.before(page, watch);
  await driver.resize(page, 1100, 900);
  const response = await page.goto(server.address + address);
  report(where, "the policy is sent", response.headers()["content-security-policy"] === POLICY ? null : "it is not");
  for (const [test, body] of Object.entries(tests)) {
    let error = null;
    try {
      await body({ page, driver, isolated, server, requests, ...context });
    } catch (thrown) {
      error = thrown.message;
    }
    report(where, test, error);
  }
  complaints.push(...(await page.evaluate(() => globalThis.violations)).map((violation) => `the policy: ${violation}`));
  report(where, "no errors, no violations, no other origin", complaints.length === 0 ? null : complaints.join("; "));
}

/**
 * Runs tests in the browsers that the command line names, or in all, isolated and not. `testsOf`:
 * of whether a page is isolated; `models`: served beside the page's own; `address`: what follows
 * the page's; `allowed`: which messages of the console are none of an error; `context`: handed to
 * every test. Closes with "N passed, N failed".
 */
export async function runDemo({ testsOf, models, ...more }) {
  const chosen = process.argv.slice(2);
  for (const [name, launch] of Object.entries(browsers)) {
    if (chosen.length > 0 && !chosen.includes(name)) continue;
    for (const isolated of [true, false]) {
      const where = `${name}, ${isolated ? "isolated" : "not isolated"}`;
      const begun = Date.now();
      const server = await serve({ port: 0, isolated, models });
      const tests = testsOf(isolated);
      let driver;
      try {
        driver = await launch(TIMEOUT);
        await runPage(where, driver, server, { tests, isolated, ...more });
        console.log(`${where}: ${Object.keys(tests).length + 2} tests in ${((Date.now() - begun) / 1000).toFixed(1)} s`);
      } catch (error) {
        report(where, "the run", error.message);
      } finally {
        await driver?.close();
        await server.close();
      }
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
}
