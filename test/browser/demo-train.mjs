// The page's tab that trains, in Chromium and Firefox, isolated and not: a few short steps on a text
// that was dropped, their loss, curve, samples, maps; stopping, an adapter, files to keep, what is
// wrong; digits; names and contrast. Closes with "N passed, N failed". The page must be built (npm run
// build). What is timed needs a quiet machine: npm run check:page-train.
//
//   node test/browser/demo-train.mjs [chromium] [firefox]
import assert from "node:assert/strict";
import { accessible, click, fill, pause, runDemo, textOf, tooWide, until } from "./demo-page.mjs";

/** The longest task that a page which is alive may have, in milliseconds. */
const TASK = 50;
/**
 * Trainings of which one must have none that is longer, where that is looked at. A task of the
 * page's own is there each time; one that waits because the machine has other work is not.
 */
const TRAININGS = process.env.DIFFATTN_CHECK_ALIVE ? 3 : 1;
/** Seconds in which digits are learned, where that is looked at. */
const LEARNED = 120;
const LINE = "The quick brown fox jumps over the lazy dog, and the lazy dog does not mind.\n";

const idle = () => document.getElementById("train-stop").disabled && !document.getElementById("train-start").disabled;
const ended = (page) => until(page, "training has ended", idle);

/** Drops files of text on the tab. */
const drop = (page, files) =>
  page.evaluate((files) => {
    const dataTransfer = new DataTransfer();
    for (const [name, text] of Object.entries(files)) dataTransfer.items.add(new File([text], name, { type: "text/plain" }));
    document.getElementById("train-drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, files);

/** Keeps long tasks from here on, where the browser tells them. */
const observe = (page) =>
  page.evaluate(() => {
    globalThis.tasks = [];
    if (!PerformanceObserver.supportedEntryTypes.includes("longtask")) return;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) globalThis.tasks.push(duration);
    }).observe({ type: "longtask" });
  });

/** Start gives a sentence of what is wrong. */
async function complains(page, wanted) {
  await click(page, "#train-start");
  for (let i = 0; i < 100 && !wanted.test(await textOf(page, "error")); i += 1) await pause(30);
  assert.match(await textOf(page, "error"), wanted);
}

/** A file that is saved: its header, where it is safetensors. */
async function fileOf(page, name) {
  await page.evaluate(() => void (globalThis.saved.length = 0));
  await page.evaluate((name) => {
    const button = Array.from(document.querySelectorAll("#train-save button")).find(({ textContent }) => textContent === name);
    button.click();
  }, name);
  await until(page, `${name} is saved`, () => globalThis.saved.length > 0);
  return page.evaluate(async () => {
    const [{ name, blob }] = globalThis.saved;
    if (name.endsWith(".json")) return { name, json: JSON.parse(await blob.text()) };
    const length = Number(new DataView(await blob.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
    return { name, size: blob.size, length, json: JSON.parse(await blob.slice(8, 8 + length).text()) };
  });
}

/** The bytes of a safetensors file are as many as its header says. */
function isWhole({ size, length, json }) {
  const tensors = Object.fromEntries(Object.entries(json).filter(([name]) => name !== "__metadata__"));
  assert.equal(8 + length + Math.max(...Object.values(tensors).map(({ data_offsets: [, end] }) => end)), size);
  return tensors;
}

/** Facts of a training by their names. */
const facts = (page) =>
  page.evaluate(() =>
    Object.fromEntries(
      Array.from(document.querySelectorAll("#train-figures div"), (pair) => [
        pair.querySelector("dt").textContent,
        pair.querySelector("dd").textContent,
      ]),
    ),
  );

/** Tests in their order: each goes on where the one before ended. */
const tests = {
  async "nothing of training is loaded before its tab opens"({ page, requests }) {
    await until(page, "the model is there", () => document.getElementById("model-state").textContent === "Ready.");
    const of = () => requests.filter((url) => /train/.test(url));
    assert.deepEqual(of(), []);
    await click(page, "#tab-train");
    await until(page, "the tab is ready", idle);
    assert.ok(of().length > 0);
  },

  async "without a text there is a sentence, and for a file that is no text"({ page }) {
    await complains(page, /^text: expected some text, typed or of files, got none$/);
    await page.evaluate(() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([new Uint8Array([0xff, 0xfe, 0x80])], "picture.txt"));
      document.getElementById("train-drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    });
    await complains(page, /^picture\.txt: expected a text in UTF-8/);
    await click(page, "#train-without");
    assert.match(await textOf(page, "train-files-hint"), /^Or drop them here/);
  },

  async "a few steps on a text that was dropped: the loss falls"({ page }) {
    for (const [id, value] of Object.entries({ steps: 8, context: 32, batch: 2, rate: 0.002, every: 4 }))
      await fill(page, `train-${id}`, value);
    await fill(page, "train-prompt", "The quick brown");
    await drop(page, { "fox.txt": LINE.repeat(20), "again.md": LINE.repeat(20) });
    assert.match(await textOf(page, "train-files-hint"), /^2 files \(3\.\d KB\): fox\.txt, again\.md$/);
    assert.equal(await page.evaluate(() => document.getElementById("choice").value), "small", "what is dropped here is no model");
    await observe(page);
    let long;
    for (let training = 0; training < TRAININGS && long?.length !== 0; training += 1) {
      await page.evaluate(() => void (globalThis.tasks = []));
      await click(page, "#train-start");
      await until(page, "the first steps are drawn", () => document.querySelector("#train-curve svg path") !== null);
      await ended(page);
      long = (await page.evaluate(() => globalThis.tasks)).filter((duration) => duration > TASK);
    }
    if (TRAININGS > 1) assert.deepEqual(long, [], "long tasks, in milliseconds");
    assert.equal(await textOf(page, "train-state"), "Done after 8 steps.");
    assert.match(await textOf(page, "said"), /^Done after 8 steps\. The loss was [\d.]+\.$/);
    const { step, loss, "not trained on": measured, "tokens/s": rate } = await facts(page);
    assert.equal(step, "8 of 8");
    assert.ok(Number(rate) > 0, rate);
    const [before, now] = measured.split(" → ").map(Number);
    assert.ok(now < before - 0.1, measured);
    // Of the curve's first step, which is the highest.
    const drawn = await page.evaluate(() => document.querySelector("#train-curve .lc-raw").getAttribute("d"));
    const heights = drawn.match(/[\d.]+,[\d.]+/g).map((point) => Number(point.split(",")[1]));
    assert.equal(heights.length, 8);
    assert.ok(heights.at(-1) > heights[0] + 50, `${drawn}: it ends at ${loss}`);
  },

  async "samples and maps are of before, and of now"({ page }) {
    const samples = await page.evaluate(() => Array.from(document.querySelectorAll("#train-samples li"), (line) => line.innerText));
    assert.deepEqual(
      samples.map((text) => text.split("\n")[0]),
      ["before the first step", "after step 4", "after step 8"],
    );
    for (const text of samples) assert.match(text, /\nThe quick brown.{10,}/s);
    assert.notEqual(samples[0].split("\n").slice(1).join(), samples[2].split("\n").slice(1).join());
    const names = () =>
      page.evaluate(() => Array.from(document.querySelectorAll("#train-maps svg"), (svg) => svg.getAttribute("aria-label")));
    assert.deepEqual(await names(), ["difference, layer 5, head 1, before the first step", "difference, layer 5, head 1, after step 8"]);
    const [before, after] = await page.evaluate(() => Array.from(document.querySelectorAll("#train-maps svg"), (svg) => svg.innerHTML));
    assert.notEqual(before, after);
    await fill(page, "train-layer", 1);
    await fill(page, "train-head", 2);
    await fill(page, "train-map", "map1");
    await until(page, "both are drawn", () => document.querySelectorAll("#train-maps svg").length === 2);
    assert.deepEqual(await names(), ["map 1, layer 2, head 3, before the first step", "map 1, layer 2, head 3, after step 8"]);
    const [was, is] = await page.evaluate(() =>
      Array.from(document.querySelectorAll("#train-lambda tbody tr"), ({ cells }) => Array.from(cells, ({ textContent }) => textContent)),
    );
    assert.deepEqual([was[0], is[0], was.length, is.length], ["before the first step", "after step 8", 9, 9]);
    const moved = was.slice(1).map((lambda, layer) => Math.abs(Number(lambda) - Number(is[layer + 1])));
    assert.ok(Math.max(...moved) > 1e-3 && Math.max(...moved) < 0.2, `λ of before ${was.join()}, and now ${is.join()}`);
  },

  async "what was learned is saved as a checkpoint"({ page }) {
    const tensors = isWhole(await fileOf(page, "model.safetensors"));
    assert.equal(tensors["model.embed_tokens.weight"].dtype, "F32");
    const { json } = await fileOf(page, "config.json");
    assert.deepEqual([json.model_type, json.dtype], ["diffllama", "float32"]);
    assert.ok((await fileOf(page, "tokenizer.json")).json.model);
  },

  async "digits are learned from nothing"({ page }) {
    await click(page, "#digits-start");
    await until(page, "the digits are learned", () => /^Done|^Stopped|^$/.test(document.getElementById("digits-state").textContent));
    const said = await textOf(page, "digits-state");
    const [, seconds, right] = /^Done after 1200 steps, (\d+) s: ([\d.]+) % of 359/.exec(said) ?? [];
    assert.ok(Number(right) >= 97, said);
    if (process.env.DIFFATTN_CHECK_ALIVE) assert.ok(Number(seconds) < LEARNED, said);
    await until(page, "pictures are read", () => document.querySelectorAll("#digits-pictures figure").length === 20);
  },

  async "names, roles and contrast; nothing is wider than a narrow screen"({ page, driver }) {
    await accessible({ page, driver }, "train");
    await driver.resize(page, 320, 640);
    await pause(300);
    assert.deepEqual(await tooWide(page), []);
    await driver.resize(page, 1100, 900);
  },

  async "an adapter learns until it is stopped, and is saved"({ page }) {
    await fill(page, "train-what", "adapter");
    await fill(page, "train-steps", 500);
    await fill(page, "train-every", 500);
    await click(page, "#train-start");
    await until(page, "some steps are made", () =>
      /^([3-9]|\d\d+) of 500$/.test(document.querySelector("#train-figures dd")?.textContent ?? ""),
    );
    await click(page, "#train-stop");
    await ended(page);
    const [, steps] = /^Stopped after (\d+) steps\.$/.exec(await textOf(page, "train-state")) ?? [];
    assert.ok(Number(steps) >= 3 && Number(steps) < 500, steps);
    assert.equal((await facts(page))["time left"], "–");
    assert.equal(await page.evaluate(() => document.activeElement.id), "train-start");
    const samples = await page.evaluate(() => Array.from(document.querySelectorAll("#train-samples .who"), (when) => when.textContent));
    assert.deepEqual(samples, ["before the first step", `after step ${steps}`]);
    const tensors = isWhole(await fileOf(page, "adapter_model.safetensors"));
    assert.ok(
      Object.keys(tensors).some((name) => name.endsWith("q_proj.lora_A.weight")),
      Object.keys(tensors).slice(0, 3).join(),
    );
    assert.equal((await fileOf(page, "adapter_config.json")).json.r, 8);
  },
};

await runDemo({ testsOf: () => tests });
