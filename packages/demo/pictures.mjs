// Takes the pictures of the page that the README shows, in Chromium, into docs/images. The page
// must be built. Checks nothing.
//
//   node packages/demo/pictures.mjs
import { join } from "node:path";
import { createRequire } from "node:module";
import { browsers, root } from "../../scripts/tools.mjs";
import { serve } from "./serve.mjs";

// The root's, which tests use too.
const { chromium } = createRequire(join(root, "package.json"))("playwright-core");
const WIDE = 1000;
const NARROW = { width: 360, height: 900 };

const server = await serve({ port: 0 });
const browser = await chromium.launch({ executablePath: browsers.chromium(), chromiumSandbox: false });
const file = (name) => join(root, `docs/images/demo-${name}.png`);

async function open(colorScheme, viewport) {
  const page = await browser.newPage({ colorScheme, viewport });
  await page.goto(server.address);
  // The page's own prompt.
  await page.locator("#tokens").evaluate((field) => (field.value = "40"));
  await page.click("#write");
  await page.waitForSelector("#attention:not([hidden])");
  await page.locator(".token.question").last().hover();
  await page.waitForTimeout(300);
  return page;
}

for (const scheme of ["light", "dark"]) {
  const page = await open(scheme, { width: WIDE, height: 900 });
  // From the tabs to the maps.
  const [y, end] = await page.evaluate(() => [
    document.getElementById("tab-write").getBoundingClientRect().top + scrollY - 12,
    document.getElementById("maps").getBoundingClientRect().bottom + scrollY + 12,
  ]);
  await page.screenshot({ path: file(scheme), fullPage: true, clip: { x: 0, y, width: WIDE, height: end - y } });
  if (scheme === "light") {
    await page.click("#tab-bench");
    await page.click("#bench-start");
    await page.getByText("Done.", { exact: true }).waitFor({ timeout: 120_000 });
    const height = await page.evaluate(() => document.getElementById("bench-about").getBoundingClientRect().bottom + scrollY + 12);
    await page.screenshot({ path: file("bench"), fullPage: true, clip: { x: 0, y: 0, width: WIDE, height } });
  }
}
const page = await open("light", NARROW);
await page.evaluate(() => scrollTo(0, 0));
await page.screenshot({ path: file("narrow") });
await browser.close();
await server.close();
