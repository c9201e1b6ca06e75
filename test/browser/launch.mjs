// Starts the browsers of the tests, each through its driver. Runs no test.
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";

const chromiumFlags = [
  "--no-first-run",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Each opens a page, whose `evaluate` runs a function in it; and what the drivers do differently.
 * `timeout`: of one evaluation, in milliseconds. `extension`: the folder of one that is loaded.
 */
export const browsers = {
  async chromium(timeout, { extension } = {}) {
    const executablePath = process.env.DIFFATTN_CHROMIUM || "/usr/bin/chromium";
    const options = { executablePath, chromiumSandbox: false, args: chromiumFlags };
    // Extensions live in a profile, here in one that is thrown away.
    const browser = extension
      ? await chromium.launchPersistentContext("", {
          ...options,
          args: [...chromiumFlags, `--load-extension=${extension}`],
          ignoreDefaultArgs: ["--disable-extensions"],
        })
      : await chromium.launch(options);
    return {
      newPage: () => browser.newPage(),
      close: () => browser.close(),
      before: (page, script) => page.addInitScript(script),
      resize: (page, width, height) => page.setViewportSize({ width, height }),
      theme: (page, colorScheme) => page.emulateMedia({ colorScheme }),
    };
  },
  async firefox(timeout, { extension } = {}) {
    const executablePath = process.env.DIFFATTN_FIREFOX || "/usr/bin/firefox-esr";
    const browser = await puppeteer.launch({
      browser: "firefox",
      protocol: "webDriverBiDi",
      executablePath,
      headless: true,
      protocolTimeout: timeout,
    });
    if (extension) await browser.installExtension(extension);
    return {
      newPage: () => browser.newPage(),
      close: () => browser.close(),
      before: (page, script) => page.evaluateOnNewDocument(script),
      resize: (page, width, height) => page.setViewport({ width, height }),
      // Its protocol cannot ask for a theme.
      theme: undefined,
    };
  },
};
