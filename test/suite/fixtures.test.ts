// Every reference case through the public API: sync against float64, async with the bits of sync,
// layout bshd with the bits of bhsd.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { api, onEachIsa } from "./backends.js";
import { largest, rms, sameBits, values, within } from "./compare.js";
import { checksOf } from "./fixture-cases.js";
import { readFixture } from "./safetensors.js";

const folder = fileURLToPath(new URL("../fixtures/", import.meta.url));
/**
 * Folders of cases of what the public API has no operator for: codes of weights and caches, kernels
 * and layers of the crates, whose tests read them.
 */
const ofCrates = JSON.parse(readFileSync(`${folder}of-crates.json`, "utf8")) as string[];
const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .map((name) => name.replaceAll("\\", "/"))
  .filter((name) => name.endsWith(".safetensors") && !ofCrates.some((other) => name.startsWith(`${other}/`)))
  .sort();

test("the cases are there", () => {
  expect(files.length).toBeGreaterThanOrEqual(160);
});

onEachIsa(() => {
  describe.each(files)("%s", (file) => {
    const fixture = readFixture(readFileSync(folder + file));
    test.each(checksOf(fixture, file).map((check) => [check.name, check] as const))("%s", async (_, check) => {
      const sync = check.runSync(api);
      const actual = values(sync);
      within(actual, check.expected, check.bound);
      const tolerance = Math.max(check.bound(largest(check.expected), 0), Number.MIN_VALUE);
      expect(rms(actual, check.expected)).toBeLessThanOrEqual(tolerance);
      sameBits(await check.run(api), sync);
    });
  });
});
