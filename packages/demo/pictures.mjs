// Takes the pictures of the page that the README shows, in Chromium, into docs/images: of the small
// model that writes, of the bench, and of a chat with SmolLM2, which is fetched and converted first.
// The page must be built. Checks nothing.
//
//   node packages/demo/pictures.mjs [chat]      (chat: its pictures alone)
import { join } from "node:path";
import { createRequire } from "node:module";
import { namedModel } from "../../scripts/start-model.mjs";
import { browsers, root } from "../../scripts/tools.mjs";
import { serve } from "./serve.mjs";

// The root's, which tests use too.
const { chromium } = createRequire(join(root, "package.json"))("playwright-core");
const WIDE = 1000;
const NARROW = { width: 360, height: 900 };

const QUESTIONS = ["Explain in two sentences why the sky is blue.", "And why is it red in the evening?"];

const server = await serve({ port: 0, models: [await namedModel("smollm2")] });
const browser = await chromium.launch({ executablePath: browsers.chromium(), chromiumSandbox: false });
const file = (name) => join(root, `docs/images/demo-${name}.png`);

async function open(colorScheme, viewport) {
  const page = await browser.newPage({ colorScheme, viewport });
  await page.goto(`${server.address}?model=small`);
  // The page's own prompt.
  await page.locator("#tokens").evaluate((field) => (field.value = "40"));
  await page.click("#write");
  await page.waitForSelector("#attention:not([hidden])");
  await page.locator(".token.question").last().hover();
  await page.waitForTimeout(300);
  return page;
}

/** From the top of one element to the bottom of another. */
const between = (page, first, last) =>
  page.evaluate(
    ([first, last]) => {
      const y = document.querySelector(first).getBoundingClientRect().top + scrollY - 12;
      return { x: 0, y, width: innerWidth, height: document.querySelector(last).getBoundingClientRect().bottom + scrollY + 12 - y };
    },
    [first, last],
  );

/** A conversation, and what one of its tokens looks at. */
async function chat(colorScheme, viewport) {
  const page = await browser.newPage({ colorScheme, viewport });
  await page.goto(`${server.address}?chat=${encodeURIComponent(QUESTIONS[0])}`);
  for (const [i, question] of QUESTIONS.entries()) {
    if (i > 0) {
      await page.fill("#message", question);
      await page.press("#message", "Enter");
    }
    await page.locator(".message.assistant .figures").nth(i).waitFor();
  }
  await page.locator(".look").last().click();
  await page.waitForSelector("#chat-attention:not([hidden])");
  await page
    .locator("#chat-text .token", { hasText: /^ red$/ })
    .last()
    .hover();
  await page.waitForTimeout(300);
  return page;
}

async function writing() {
  for (const scheme of ["light", "dark"]) {
    const page = await open(scheme, { width: WIDE, height: 900 });
    await page.screenshot({ path: file(scheme), fullPage: true, clip: await between(page, "#tab-write", "#maps") });
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
}

async function chats() {
  for (const scheme of ["light", "dark"]) {
    const page = await chat(scheme, { width: WIDE, height: 900 });
    const clip = await between(page, "#model", "#chat-row");
    await page.screenshot({ path: file(`chat-${scheme}`), fullPage: true, clip });
  }
  const page = await chat("light", NARROW);
  await page.evaluate(() => document.getElementById("tab-chat").scrollIntoView());
  await page.screenshot({ path: file("chat-narrow") });
}

if (process.argv[2] !== "chat") await writing();
await chats();
await browser.close();
await server.close();
