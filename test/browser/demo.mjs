// The page of packages/demo in Chromium and Firefox, isolated and not, under the strict
// Content-Security-Policy that its server sends: writing, stopping, maps by pointer and by
// keyboard, export, the bench tab, names and contrast for everybody. Compares what the page writes
// and draws with the trained model's reference and with the native backend. Closes with "N passed,
// N failed". The page must be built (npm run build).
//
//   node test/browser/demo.mjs [chromium] [firefox]
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { readSafetensors } from "../../examples/safetensors.mjs";
import { init, dispose } from "../../packages/diffattn/dist/node.js";
import { DiffLlama } from "../../packages/diffattn/dist/models-node.js";
import { attentionNoise, summarizeNoise } from "../../packages/diffattn/dist/viz.js";
import { noisesOf, prompts, tokensOf } from "../../examples/planted-answers.mjs";
import { accessible, click, fill, pause, runDemo, saveAs, textOf, tooWide, until } from "./demo-page.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const [reference] = JSON.parse(readSafetensors(here("../../examples/model/expected.safetensors")).metadata.case);

/** The page's first prompt. */
const TYPICAL = prompts[4].text;

/** All rows of the bench are there, and their answers agree. */
async function benchAgrees(page) {
  const rows = await page.evaluate(() =>
    Array.from(document.querySelectorAll("#bench-table tbody tr"), (row) => ({ agrees: row.dataset.agrees, text: row.innerText })),
  );
  assert.equal(rows.length, 4);
  for (const { agrees, text } of rows) {
    assert.equal(agrees, "true", text);
    assert.equal(text.match(/[\d.e+]+ ms/g)?.length, 2, text);
  }
}

const tokenCount = (page) => page.evaluate(() => document.querySelectorAll(".token").length);
const idle = () => document.getElementById("stop").disabled;
const mapsShown = () => !document.getElementById("attention").hidden && document.getElementById("stop").disabled;

/** The drawing's name in `place`. */
const drawn = (page, place) => page.evaluate((place) => document.querySelector(`#${place} svg`).getAttribute("aria-label"), place);

/** Tests in their order: each goes on where the one before ended. */
const tests = {
  async "the page is isolated or not, and says which build runs"({ page, isolated }) {
    const build = await until(
      page,
      "the build is known",
      () => /thread/.test(document.getElementById("build").textContent) && document.getElementById("build").textContent,
    );
    assert.equal(await page.evaluate(() => crossOriginIsolated), isolated);
    if (isolated) assert.match(build, /relaxed-simd\+threads, \d+ threads?$/);
    else assert.match(build, /^WebAssembly, (relaxed-simd|simd128), 1 thread$/);
  },

  async "the first prompt plants an answer, and the page says what the maps of all heads make of it, as the native ones do"({
    page,
    model,
  }) {
    const prompt = prompts.find(({ text }) => text === TYPICAL);
    assert.equal(await page.evaluate(() => document.getElementById("prompt").value), prompt.text);
    await fill(page, "temperature", 0);
    await fill(page, "tokens", 12);
    await click(page, "#write");
    await until(page, "maps are shown", mapsShown);
    const { ids, rows, relevant } = tokensOf(model, prompt);
    const noises = await noisesOf(model, prompt, attentionNoise);
    const summary = summarizeNoise(noises);
    const shown = await page.evaluate(() => ({
      all: document.getElementById("noise-all").textContent,
      rule: document.getElementById("noise-rule").textContent,
      place: [document.getElementById("layer").value, document.getElementById("head").value].map(Number),
      marked: ["answer", "question"].map((kind) =>
        Array.from(document.querySelectorAll(".token")).flatMap((token, i) => (token.classList.contains(kind) ? [i] : [])),
      ),
      boxes: document.querySelectorAll("#maps svg .span").length,
      curve: document.querySelector("#noise desc").textContent,
    }));
    assert.deepEqual(shown.marked, [relevant, Array.from({ length: rows[1] - rows[0] }, (_, i) => rows[0] + i)]);
    assert.equal(rows[1], ids.length);
    assert.equal(shown.boxes, 3);
    const figures = shown.all.match(/[−\d.]+(?= %| points|\))/g).map((figure) => Number(figure.replace("−", "-")));
    const wanted = [summary.terms[0].mean, summary.terms[0].sd, summary.diff.mean, summary.diff.sd, summary.change.mean, summary.change.sd];
    assert.equal(figures.length, wanted.length, shown.all);
    wanted.forEach((value, i) => assert.ok(Math.abs(figures[i] - 100 * value) <= 0.06, `${shown.all}: ${100 * value} natively`));
    // It is a small model, and the page does not flatter it.
    assert.match(shown.all, /^In the mean over all 32 heads .*: no gain to rely on, .* The model does not go on with the answer\.$/);
    // The view that opens is the head nearest to the means.
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const far = noises.map(({ terms, diff }) => Math.hypot(mean(terms[0]) - summary.terms[0].mean, mean(diff) - summary.diff.mean));
    const typical = far.indexOf(Math.min(...far));
    assert.deepEqual(shown.place, [Math.floor(typical / 4), typical % 4]);
    assert.match(
      shown.rule,
      new RegExp(`layer ${shown.place[0] + 1}, head ${shown.place[1] + 1}: .* question’s ${rows[1] - rows[0]} tokens`),
    );
    const { terms, diff } = noises[typical];
    const [first, last] = [mean(terms[0]), mean(diff)].map((value) => Number((100 * value).toFixed(1)));
    const said = shown.curve.match(/mean ([\d.]+) %/g).map((text) => parseFloat(text.slice(5)));
    assert.ok(Math.abs(said[0] - first) < 0.11 && Math.abs(said[1] - last) < 0.11, shown.curve);
  },

  async "that prompt is a typical one of its kind, and no better than they are"({ model }) {
    const changes = [];
    for (const prompt of prompts)
      changes.push({ prompt, change: summarizeNoise(await noisesOf(model, prompt, attentionNoise)).change.mean });
    changes.sort((a, b) => a.change - b.change);
    const at = changes.findIndex(({ prompt }) => prompt.text === TYPICAL);
    assert.ok(at >= changes.length / 4 && at < (3 * changes.length) / 4, `it is number ${at + 1} of ${changes.length}`);
  },

  async "a typed prompt is written on, as the reference writes"({ page }) {
    for (const [id, value] of [
      ["temperature", 0],
      ["tokens", 48],
      ["penalty", 1],
      ["top-k", 0],
      ["top-p", 1],
    ])
      await fill(page, id, value);
    await fill(page, "prompt", "");
    await page.focus("#prompt");
    await page.keyboard.type(reference.prompt);
    await page.keyboard.down("Control");
    await page.keyboard.press("Enter");
    await page.keyboard.up("Control");
    await until(page, "maps are shown", mapsShown);
    const written = await page.evaluate(() => Array.from(document.querySelectorAll(".token"), (token) => token.dataset.text).join(""));
    assert.equal(written, reference.prompt + reference.continuation);
    assert.match(await textOf(page, "speed"), /^48 tokens, \d+ per second, the first after \d+ ms$/);
    assert.match(await textOf(page, "said"), /^48 tokens, .* bytes\./s);
    assert.ok((await page.evaluate(() => performance.getEntriesByName("first-token").length)) === 1);
  },

  async "its maps are the native ones"({ page, model }) {
    const layer = 3;
    await fill(page, "layer", layer);
    await fill(page, "head", 2);
    await until(page, "the layer is drawn", () =>
      document.querySelector("#maps svg").getAttribute("aria-label").endsWith("layer 4, head 3"),
    );
    const { name, type, text } = await saveAs(page, "json");
    assert.equal(name, "diffattn-layer4-head3-maps.json");
    assert.equal(type, "application/json");
    const { maps, diff, tokens, head, about } = JSON.parse(text);
    assert.deepEqual([head, about.layer, about.text], [2, layer, reference.prompt + reference.continuation]);
    assert.equal(tokens.join(""), about.text);
    const ids = model.encode(reference.prompt).concat(model.encode(reference.continuation));
    assert.equal(ids.length, tokens.length);
    const native = await model.maps(ids, layer);
    const length = ids.length;
    for (const [ours, theirs] of [
      [maps[0], native.map1],
      [maps[1], native.map2],
      [diff, native.diff],
    ])
      ours.flat().forEach((value, i) => {
        const wanted = theirs.data[head * length * length + i];
        assert.ok(Math.abs(value - wanted) <= 2e-5, `${value} at ${i}, natively ${wanted}`);
      });
    for (const row of maps[0]) assert.ok(Math.abs(row.reduce((a, b) => a + b, 0) - 1) < 1e-4);
  },

  async "pointing at a token shows what it attends to"({ page }) {
    const at = 20;
    await page.evaluate((at) => document.querySelectorAll(".token")[at].setAttribute("id", "pointed"), at);
    await page.hover("#pointed");
    const shown = await until(
      page,
      "the token is chosen",
      () => document.getElementById("pointed").getAttribute("aria-selected") === "true",
    );
    assert.ok(shown);
    const token = await page.evaluate(() => document.getElementById("pointed").dataset.text.trim());
    await until(
      page,
      "the heading names it",
      (token) => document.getElementById("attention-heading").textContent.includes(token || "↵"),
      token,
    );
    const headings = await page.evaluate(() => Array.from(document.querySelectorAll("#row .da-heading"), (heading) => heading.textContent));
    assert.deepEqual(headings, ["map 1", "map 2", "difference: map 1 − λ · map 2"]);
    // Blue and orange, in the difference alone.
    const coloured = await page.evaluate(() => document.querySelectorAll(".token.plus, .token.minus").length);
    assert.ok(coloured > 5 && coloured <= at + 1, `${coloured} tokens are coloured`);
    assert.ok(await page.evaluate(() => document.querySelectorAll("#row .da-minus").length > 0));
    assert.equal(await page.evaluate(() => document.querySelectorAll("#strongest tbody tr").length), 6);
    assert.equal(await page.evaluate(() => document.querySelectorAll("#maps svg .mark").length), 3);
  },

  async "the styles of the drawings are on"({ page }) {
    const colours = await page.evaluate(() => {
      const of = (selector) => getComputedStyle(document.querySelector(selector)).stroke;
      return [of("#maps .da-plus"), of("#maps .da-minus")];
    });
    assert.equal(new Set(colours).size, 2);
    for (const colour of colours) assert.match(colour, /^rgb/);
  },

  async "arrow keys choose tokens, and a screen reader hears of it"({ page }) {
    const chosen = () =>
      Array.from(document.querySelectorAll(".token")).findIndex((token) => token.getAttribute("aria-selected") === "true");
    await page.focus('.token[tabindex="0"]');
    const first = await page.evaluate(chosen);
    for (const [key, wanted] of [
      ["ArrowRight", first + 1],
      ["ArrowLeft", first],
      ["Home", 0],
      ["ArrowRight", 1],
      ["End", (await tokenCount(page)) - 1],
    ]) {
      await page.keyboard.press(key);
      assert.equal(await page.evaluate(chosen), wanted, key);
    }
    await page.keyboard.press("ArrowUp");
    assert.ok((await page.evaluate(chosen)) < (await tokenCount(page)) - 1, "ArrowUp leaves the last line");
    assert.equal(await page.evaluate(() => document.querySelectorAll('.token[tabindex="0"]').length), 1);
    await until(page, "it is said", () => /attends to \(layer 4, head 3\): .+[+−]0\.\d+/.test(document.getElementById("said").textContent));
  },

  async "another layer and head are another drawing"({ page }) {
    const before = await page.evaluate(() => document.getElementById("row").innerHTML);
    await fill(page, "head", 0);
    await fill(page, "layer", 0);
    await until(page, "the layer is drawn", () =>
      document.querySelector("#maps svg").getAttribute("aria-label").endsWith("layer 1, head 1"),
    );
    assert.notEqual(await page.evaluate(() => document.getElementById("row").innerHTML), before);
  },

  async "no figure where no one said what matters, and one for what is named"({ page }) {
    const curve = () =>
      page.evaluate(() => Array.from(document.querySelectorAll("#noise .da-line"), (line) => line.getAttribute("d")).join());
    const isThere = () =>
      page.evaluate(() => [
        document.querySelectorAll("#noise svg, .token.answer, #maps .span").length,
        document.getElementById("noise-option").disabled,
      ]);
    // The text of before, of which the page knew the answer, is gone.
    assert.equal(await page.evaluate(() => document.getElementById("answer").value), "");
    assert.deepEqual(await isThere(), [0, true]);
    assert.match(await textOf(page, "noise-rule"), /^Which tokens matter to which is not known here/);
    assert.equal(await textOf(page, "noise-all"), "");
    await fill(page, "answer", "no such words");
    assert.match(await textOf(page, "noise-rule"), /^“no such words” is not in the text\. Which/);
    assert.deepEqual(await isThere(), [0, true]);
    await fill(page, "answer", "number");
    assert.match(await textOf(page, "noise-rule"), /beside the 1 tokens? of the answer/);
    const rest = await curve();
    assert.notEqual(rest, "");
    assert.equal(await drawn(page, "noise"), "Attention on irrelevant tokens");
    await until(page, "all heads are summed up", () =>
      /^In the mean over all 32 heads/.test(document.getElementById("noise-all").textContent),
    );
    const all = await textOf(page, "noise-all");
    await fill(page, "question", "Examples");
    assert.notEqual(await curve(), rest);
    await until(page, "they are summed up anew", (all) => !["", all].includes(document.getElementById("noise-all").textContent), all);
    await fill(page, "question", "no such words");
    assert.match(await textOf(page, "noise-rule"), /^“no such words” does not follow the answer\./);
    assert.deepEqual(await isThere(), [0, true]);
    await fill(page, "question", "");
    assert.equal(await curve(), rest);
  },

  async "pictures are saved as SVG and PNG"({ page }) {
    for (const picture of ["maps", "row", "noise"]) {
      const svg = await saveAs(page, "svg", picture);
      assert.equal(svg.name, `diffattn-layer1-head1-${picture}.svg`);
      assert.match(svg.text, /^<svg [^>]*role="img"/);
      assert.match(svg.text, /<style>/);
      assert.match(svg.text, /layer 1, head 1/);
      const png = await saveAs(page, "png", picture);
      assert.equal(png.name, `diffattn-layer1-head1-${picture}.png`);
      // The bitmap must have the picture's colours: styles of an image are not the page's to
      // forbid.
      const { width, height, colours } = await page.evaluate(async () => {
        const bitmap = await createImageBitmap(globalThis.saved[0].blob);
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        const context = canvas.getContext("2d");
        context.drawImage(bitmap, 0, 0);
        const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
        const colours = { blue: 0, orange: 0, light: 0 };
        for (let i = 0; i < data.length; i += 4) {
          const [r, g, b] = data.subarray(i, i + 3);
          if (b > r + 60) colours.blue += 1;
          else if (r > b + 60) colours.orange += 1;
          else if (r > 250 && g > 250 && b > 250) colours.light += 1;
        }
        return { width: bitmap.width, height: bitmap.height, colours };
      });
      const [, w, h] = /width="(\d+)" height="(\d+)"/.exec(svg.text).map(Number);
      assert.ok(width > w && Math.abs(width / height - w / h) < 0.01, `${width} × ${height} of ${w} × ${h}`);
      for (const [colour, count] of Object.entries(colours)) assert.ok(count > 50, `${picture}: ${count} pixels are ${colour}`);
    }
  },

  async "Stop ends writing, and what is written can be looked at"({ page }) {
    await fill(page, "tokens", 400);
    await fill(page, "temperature", 1);
    await click(page, "#write");
    await until(page, "some tokens are there", () => document.querySelectorAll(".token:not(.prompt)").length > 4);
    await click(page, "#stop");
    await until(page, "it has ended", idle);
    await until(page, "maps are shown", mapsShown);
    const count = await tokenCount(page);
    assert.ok(count < 400, `${count} tokens`);
    assert.match(await textOf(page, "speed"), /; stopped$/);
    await pause(300);
    assert.equal(await tokenCount(page), count);
  },

  async "a second text begins before the first has ended, and Escape ends it"({ page }) {
    await click(page, "#write");
    await until(page, "some tokens are there", () => document.querySelectorAll(".token:not(.prompt)").length > 4);
    await fill(page, "prompt", "This function panics if");
    await click(page, "#write");
    await until(page, "the second has begun", () => document.querySelectorAll(".token:not(.prompt)").length > 4);
    await page.keyboard.press("Escape");
    await until(page, "maps are shown", mapsShown);
    const text = await page.evaluate(() => Array.from(document.querySelectorAll(".token"), (token) => token.dataset.text).join(""));
    assert.ok(text.startsWith("This function panics if"), text);
  },

  async "an empty prompt is a sentence, not a silence"({ page }) {
    await fill(page, "prompt", "");
    await click(page, "#write");
    for (let i = 0; i < 100 && (await textOf(page, "error")) === ""; i += 1) await pause(30);
    assert.match(await textOf(page, "error"), /prompt: expected some text/);
    await fill(page, "prompt", reference.prompt);
    await fill(page, "tokens", 40);
    await click(page, "#write");
    await until(page, "maps are shown", mapsShown);
    assert.equal(await page.evaluate(() => document.getElementById("error").hidden), true);
  },

  async "the Tab key reaches everything"({ page }) {
    await page.evaluate(() => document.activeElement?.blur());
    await page.focus("#tab-write");
    const reached = new Set(["tab-write"]);
    for (let i = 0; i < 40; i += 1) {
      await page.keyboard.press("Tab");
      reached.add(
        await page.evaluate(
          () => document.activeElement.id || document.activeElement.className.split(" ")[0] || document.activeElement.localName,
        ),
      );
    }
    for (const id of ["prompt", "write", "summary", "token", "layer", "head", "answer", "question", "picture", "svg", "png", "json"])
      assert.ok(reached.has(id), `${id} is not among ${[...reached].join(", ")}`);
  },

  async "nothing is wider than a narrow screen"({ page, driver }) {
    await driver.resize(page, 320, 640);
    await pause(300);
    for (const tab of ["bench", "write"]) {
      await click(page, `#tab-${tab}`);
      assert.deepEqual(await tooWide(page), []);
    }
    await driver.resize(page, 1100, 900);
  },

  async "the bench tab runs, and the answers agree"({ page }) {
    await page.focus("#tab-write");
    for (const tab of ["tab-train", "tab-bench"]) {
      await page.keyboard.press("ArrowRight");
      assert.equal(await page.evaluate(() => document.activeElement.id), tab);
    }
    await click(page, "#bench-start");
    await until(page, "the first row is there", () => document.querySelectorAll("#bench-table tbody tr").length > 0);
    await click(page, "#bench-stop");
    assert.equal(await textOf(page, "bench-state"), "Stopped.");
    await click(page, "#bench-start");
    await until(page, "the bench is done", () => document.getElementById("bench-state").textContent === "Done.");
    await benchAgrees(page);
  },

  async "names, roles and contrast"({ page, driver }) {
    for (const tab of ["bench", "write"]) {
      await click(page, `#tab-${tab}`);
      await accessible({ page, driver }, tab);
    }
  },
};

/** Where there are threads. */
const withThreads = {
  async "a bench whose worker falls silent goes on with one thread"({ page }) {
    await click(page, "#tab-bench");
    await page.evaluate(() => {
      globalThis.Worker = class extends Worker {
        constructor(url, options) {
          super(url, options);
          // As one that waits for ever: nothing that it says arrives.
          if (options.name === "") Object.defineProperty(this, "onmessage", { set: () => {} });
        }
      };
    });
    await click(page, "#bench-start");
    await until(page, "the bench is done", () => document.getElementById("bench-state").textContent === "Done.");
    assert.match(await textOf(page, "bench-about"), /^1 thread\./);
    await benchAgrees(page);
  },
};

await init({ backend: "native" });
const model = await DiffLlama.load(here("../../examples/model"));
await runDemo({ testsOf: (isolated) => ({ ...tests, ...(isolated ? withThreads : {}) }), context: { model } });
model.dispose();
dispose();
