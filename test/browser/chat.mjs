// The page's chat and its choice of models in Chromium and Firefox, isolated and not: sending,
// stopping, a second turn, what is looked at, an adapter, files that are chosen or dropped,
// addresses that are right and wrong, names and contrast. The models are small: the trained one with
// a chat template and an adapter of random numbers, and a plain Llama in a GGUF file. Answers and
// maps are compared with what the package makes natively. Closes with "N passed, N failed". The page
// must be built (npm run build).
//
//   node test/browser/chat.mjs [chromium] [firefox]
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { init, dispose } from "../../packages/diffattn/dist/node.js";
import { LanguageModel, saveAdapter } from "../../packages/diffattn/dist/models-node.js";
import { accessible, click, fill, pause, runDemo, saveAs, textOf, tooWide, until } from "./demo-page.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const TEMPLATE =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
const TOKENS = 24;
const SYSTEM = "Answer about Rust.";
const FIRST = "What is\na thread?";
const MARKUP = '<img src="none" onerror="globalThis.broken = 1"><b>And</b> a lock?';

const folder = mkdtempSync(join(tmpdir(), "diffattn-chat-"));
const chatty = join(folder, "chatty");
const adapter = join(folder, "adapter");

/** An adapter of numbers that look random, large enough to change what is written. */
async function writeAdapter() {
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647 - 0.5;
  const tensor = (...shape) => ({ data: Float32Array.from({ length: shape[0] * shape[1] }, random), shape });
  const weights = Object.fromEntries(
    [0, 3, 6].map((layer) => [`model.layers.${layer}.mlp.down_proj.weight`, { a: tensor(2, 704), b: tensor(256, 2) }]),
  );
  mkdirSync(adapter);
  await saveAdapter(weights, { target: adapter });
}

const shown = (page) =>
  page.evaluate(() =>
    Array.from(document.querySelectorAll("#messages li"), (item) => ({
      role: item.className.replace("message ", ""),
      text: item.querySelector(".message-text").textContent,
      elements: item.querySelector(".message-text").childElementCount,
      figures: item.querySelector(".figures")?.textContent ?? "",
    })),
  );
const answers = (page) => page.evaluate(() => document.querySelectorAll(".message.assistant .figures").length);

/** Types a message and sends it by Enter; lines are parted by Shift + Enter. */
async function send(page, text) {
  await page.focus("#message");
  for (const [i, line] of text.split("\n").entries()) {
    if (i > 0) {
      await page.keyboard.down("Shift");
      await page.keyboard.press("Enter");
      await page.keyboard.up("Shift");
    }
    await page.keyboard.type(line);
  }
  await page.keyboard.press("Enter");
}

/** Sends, and waits for the whole answer. */
async function ask(page, text) {
  const before = await answers(page);
  await send(page, text);
  await until(page, "the answer is there", (before) => document.querySelectorAll(".message.assistant .figures").length > before, before);
  return (await shown(page)).at(-1);
}

/** Stops the next answer, by `how`, as soon as some of it is seen. */
const stopSoon = (page, how) =>
  page.evaluate((how) => {
    const list = document.getElementById("messages");
    const before = list.children.length;
    const watcher = new MutationObserver(() => {
      const answer = list.children[before + 1]?.querySelector(".message-text").textContent ?? "";
      if (answer === "" || document.getElementById("chat-stop").disabled) return;
      watcher.disconnect();
      if (how === "Escape") document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
      else document.getElementById("chat-stop").click();
    });
    watcher.observe(list, { subtree: true, childList: true, characterData: true });
  }, how);

/** What the package writes natively. */
async function native(model, messages, maxNewTokens = TOKENS) {
  let [text, ids] = ["", []];
  for await (const token of model.chat(messages, { temperature: 0, repetitionPenalty: 1, topP: 1, maxNewTokens })) {
    text += token.text;
    ids.push(token.id);
  }
  return { text, ids };
}

const user = (content) => ({ role: "user", content });
const assistant = (content) => ({ role: "assistant", content });
const system = { role: "system", content: SYSTEM };

const ready = (page) => until(page, "the model is ready", () => document.getElementById("model-state").textContent === "Ready.");
const chosenTab = (page) => page.evaluate(() => document.querySelector('[role="tab"][aria-selected="true"]').id);
/** What the page complains of, once it does. */
async function complaint(page) {
  for (let i = 0; i < 300 && (await textOf(page, "error")) === ""; i += 1) await pause(30);
  return textOf(page, "error");
}

/** Puts files of the page's server into the input, or drops them on the page. */
const give = (page, path, names, dropped) =>
  page.evaluate(
    async ({ path, names, dropped }) => {
      const given = new DataTransfer();
      for (const name of names) given.items.add(new File([await (await fetch(path + name)).blob()], name));
      if (dropped) return void document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
      const input = document.getElementById("files");
      input.files = given.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
    { path, names, dropped },
  );

/** A model of the server's list. */
const listed = (page, name) =>
  page.evaluate(async (name) => (await (await fetch("models.json")).json()).models.find((model) => model.name === name), name);

/** Tests in their order: each goes on where the one before ended. */
const tests = {
  async "the first model of the server's list loads, and as it has a chat template, its tab opens"({ page }) {
    await ready(page);
    assert.equal(await chosenTab(page), "tab-chat");
    assert.match(await textOf(page, "model-about"), /^In use: Chatty \(diffllama\), 7\.\d million parameters in bfloat16, about 14 MB/);
    assert.deepEqual(await page.evaluate(() => Array.from(document.getElementById("choice").options, (option) => option.value)), [
      "chatty",
      "plain",
      "small",
      "address",
      "files",
    ]);
    for (const [id, value] of Object.entries({ tokens: TOKENS, temperature: 0, "top-p": 1, penalty: 1 }))
      await fill(page, `chat-${id}`, value);
    await fill(page, "system", SYSTEM);
  },

  async "Enter sends, Shift + Enter begins a line, and the answer is the native one"({ page, model }) {
    const { text, figures } = await ask(page, FIRST);
    assert.equal(text, (await native(model, [system, user(FIRST)])).text);
    assert.match(figures, /^24 tokens, \d+ per second, the first after \d+ ms$/);
    assert.equal((await shown(page))[0].text, FIRST);
    assert.match(await textOf(page, "said"), /^24 tokens, .*\. ./s);
    assert.equal(await page.evaluate(() => document.getElementById("message").value), "");
    assert.equal(await page.evaluate(() => performance.getEntriesByName("first-token").length), 1);
  },

  async "a second turn computes what is new alone, and what looks like markup is text"({ page, model }) {
    const said = await shown(page);
    const { text, figures } = await ask(page, MARKUP);
    const messages = [system, user(FIRST), assistant(said[1].text), user(MARKUP)];
    assert.equal(text, (await native(model, messages)).text);
    const prompt = model.encode(await model.applyChatTemplate(messages), { addSpecialTokens: false });
    const before = model.encode(await model.applyChatTemplate([system, user(FIRST)]), { addSpecialTokens: false });
    const [, known, of] = /; (\d+) of (\d+) tokens before it were known$/.exec(figures) ?? assert.fail(figures);
    assert.equal(Number(of), prompt.length);
    assert.ok(Number(known) >= before.length && Number(known) < prompt.length, figures);
    const all = await shown(page);
    assert.equal(all[2].text, MARKUP);
    assert.deepEqual(
      all.map(({ role, elements }) => `${role} ${elements}`),
      ["user 0", "assistant 0", "user 0", "assistant 0"],
    );
    assert.equal(await page.evaluate(() => globalThis.broken), undefined);
  },

  async "the tokens of an answer are looked at, and its maps are the native ones"({ page, model }) {
    const said = await shown(page);
    const messages = [system, user(FIRST), assistant(said[1].text), user(MARKUP)];
    const prompt = model.encode(await model.applyChatTemplate(messages), { addSpecialTokens: false });
    const ids = [...prompt, ...(await native(model, messages)).ids];
    await click(page, "#messages li:nth-child(4) .look");
    await until(page, "maps are shown", () => !document.getElementById("chat-attention").hidden);
    assert.equal(await page.evaluate(() => document.activeElement.id), "chat-text-heading");
    const tokens = await page.evaluate(() =>
      Array.from(document.querySelectorAll("#chat-text .token"), ({ dataset, className }) => [dataset.text, className.includes("prompt")]),
    );
    assert.deepEqual(
      tokens.map(([text]) => text),
      ids.map((id) => model.decode([id], { skipSpecialTokens: false })),
    );
    assert.equal(tokens.filter(([, isPrompt]) => isPrompt).length, prompt.length);
    await fill(page, "chat-layer", 2);
    await until(page, "the layer is drawn", () =>
      document.querySelector("#chat-maps svg").getAttribute("aria-label").endsWith("layer 3, head 1"),
    );
    await fill(page, "chat-head", 3);
    const { text } = await saveAs(page, "json", undefined, "chat-");
    const { maps, diff, head } = JSON.parse(text);
    assert.equal(head, 3);
    const wanted = await model.maps(ids, 2);
    for (const [ours, theirs] of [
      [maps[0], wanted.map1],
      [maps[1], wanted.map2],
      [diff, wanted.diff],
    ])
      ours.flat().forEach((value, i) => {
        const native = theirs.data[head * ids.length ** 2 + i];
        assert.ok(Math.abs(value - native) <= 2e-5, `${value} at ${i}, natively ${native}`);
      });
    await page.focus('#chat-text .token[tabindex="0"]');
    await page.keyboard.press("Home");
    await until(page, "the first token is named", () =>
      /\(layer 3, head 4\)$/.test(document.getElementById("chat-attention-heading").textContent),
    );
  },

  async "Escape and the button stop an answer, which stays as far as it came"({ page, model }) {
    await click(page, "#chat-new");
    assert.deepEqual(await shown(page), []);
    assert.equal(await page.evaluate(() => document.getElementById("looked").hidden), true);
    await fill(page, "chat-tokens", 300);
    const whole = await native(model, [system, user("Write a lot.")], 300);
    for (const how of ["Escape", "button"]) {
      await stopSoon(page, how);
      const { text, figures } = await ask(page, "Write a lot.");
      assert.ok(text.length > 0 && text.length < whole.text.length && whole.text.startsWith(text), `${how}: "${text}"`);
      assert.match(figures, /; stopped/, how);
      assert.equal(await page.evaluate(() => document.activeElement.id), "message", how);
      assert.equal(await page.evaluate(() => document.getElementById("chat-stop").disabled), true);
      // What was said goes on behind what was stopped.
      await fill(page, "chat-tokens", 8);
      const next = await ask(page, "Go on.");
      const messages = [system, user("Write a lot."), assistant(text), user("Go on.")];
      assert.equal(next.text, (await native(model, messages, 8)).text);
      await fill(page, "chat-tokens", 300);
      await click(page, "#chat-new");
    }
    await fill(page, "chat-tokens", TOKENS);
  },

  async "nothing said, or too much, is a sentence, and what was typed stays"({ page }) {
    await send(page, "  ");
    assert.match(await complaint(page), /^message: expected some text, got none$/);
    const long = "number of elements ".repeat(300);
    await fill(page, "message", long);
    await click(page, "#send");
    await until(
      page,
      "it is refused",
      (long) => {
        const error = document.getElementById("error");
        const isLong = error.textContent.startsWith("message: expected a conversation of fewer tokens than 512");
        if (isLong && document.getElementById("message").value === long) return (error.textContent = "refused");
        if (isLong) error.textContent = "";
        return false;
      },
      long,
    );
    await fill(page, "message", "");
    assert.equal((await shown(page)).length, 0);
  },

  async "the adapter is switched on and off, and what was asked can be asked again"({ page, model, adapted }) {
    const plain = await ask(page, "What is a vector?");
    await click(page, "#adapter-on");
    await until(page, "the adapter is in use", () => /Chatty, healed/.test(document.getElementById("model-about").textContent));
    assert.equal(await textOf(page, "adapter-about"), "Random.");
    assert.deepEqual(await shown(page), []);
    assert.equal(await page.evaluate(() => document.getElementById("message").value), "What is a vector?");
    await click(page, "#send");
    await until(page, "the answer is there", () => document.querySelectorAll(".message.assistant .figures").length === 1);
    const healed = (await shown(page)).at(-1);
    assert.equal(healed.text, (await native(adapted, [system, user("What is a vector?")])).text);
    assert.notEqual(healed.text, plain.text);
    await click(page, "#adapter-off");
    await until(page, "it is not", () => !/healed/.test(document.getElementById("model-about").textContent));
    await fill(page, "message", "");
    assert.equal((await ask(page, "What is a vector?")).text, (await native(model, [system, user("What is a vector?")])).text);
  },

  async "a model without a chat template has no such tab, and writes"({ page }) {
    await fill(page, "choice", "small");
    await until(page, "it is in use", () => /^In use: 7M/.test(document.getElementById("model-about").textContent));
    assert.equal(await chosenTab(page), "tab-write");
    assert.equal(await page.evaluate(() => document.getElementById("tab-chat").hidden), true);
    await page.focus("#tab-write");
    for (const tab of ["tab-train", "tab-bench", "tab-write"]) {
      await page.keyboard.press("ArrowRight");
      assert.equal(await chosenTab(page), tab);
    }
  },

  async "the last choice is the one that loads"({ page }) {
    await page.evaluate(() => {
      const choice = document.getElementById("choice");
      for (const value of ["chatty", "small", "chatty"]) {
        choice.value = value;
        choice.dispatchEvent(new Event("change", { bubbles: true }));
      }
    });
    await until(page, "it is in use", () => /^In use: Chatty/.test(document.getElementById("model-about").textContent));
    assert.equal(await chosenTab(page), "tab-chat");
  },

  async "files that are chosen are a model"({ page, model }) {
    await fill(page, "message", "");
    const { path, files } = await listed(page, "chatty");
    await fill(page, "choice", "files");
    await give(page, path, files, false);
    await until(page, "it is in use", () => /^In use: model\.safetensors/.test(document.getElementById("model-about").textContent));
    assert.equal((await ask(page, FIRST)).text, (await native(model, [system, user(FIRST)])).text);
  },

  async "a GGUF file that is dropped is one, and a plain Llama's heads have one map"({ page, llama }) {
    const { path, files } = await listed(page, "plain");
    await fill(page, "choice", "chatty");
    await give(page, path, files, true);
    await until(page, "it is in use", () => /^In use: model\.gguf \(llama\)/.test(document.getElementById("model-about").textContent));
    assert.equal(await page.evaluate(() => document.getElementById("choice").value), "files");
    for (const id of ["system", "message"]) await fill(page, id, "");
    await fill(page, "chat-tokens", 4);
    const { text } = await ask(page, "ab");
    const { ids } = await native(llama, [user("ab")], 4);
    assert.equal(text.length > 0, llama.decode(ids) !== "");
    await click(page, "#messages .look");
    await until(page, "maps are shown", () => !document.getElementById("chat-attention").hidden);
    const seen = await page.evaluate(() => ({
      figures: Array.from(document.querySelectorAll("#chat-maps figcaption"), ({ textContent }) => textContent),
      columns: Array.from(document.querySelectorAll("#chat-strongest th[scope=col]"), ({ textContent }) => textContent),
      noise: document.getElementById("chat-noise-part").hidden,
    }));
    assert.deepEqual(seen, { figures: ["map"], columns: ["token", "position", "map"], noise: true });
    for (const kind of ["svg", "json"])
      assert.match((await saveAs(page, kind, undefined, "chat-")).name, /^diffattn-layer\d-head\d-maps\./);
    await fill(page, "system", SYSTEM);
    await fill(page, "chat-tokens", TOKENS);
  },

  async "what is no address, and what is no model, is a sentence, and the model before stays"({ page, server }) {
    const { path } = await listed(page, "chatty");
    await fill(page, "choice", "address");
    for (const [typed, sentence] of [
      ["", /^address: expected a name on the Hugging Face Hub, .* got none$/],
      ["no address at all", /^address: expected .* got "no address at all"$/],
      ["http://example.org/model/", /^address: expected .* got "http:\/\/example\.org\/model\/"$/],
      ["javascript:alert(1)", /^address: expected .* got "javascript:alert\(1\)"$/],
      [`${server.address}none/`, /did not load: /],
      [`${server.address}${path}tokenizer.json`, /did not load: .*tokenizer\.json/],
    ]) {
      await fill(page, "address", typed);
      await click(page, "#address-load");
      assert.match(await complaint(page), sentence, typed);
      assert.match(await textOf(page, "model-about"), /^In use: model\.gguf/, typed);
      await page.evaluate(() => void (document.getElementById("error").textContent = ""));
    }
    assert.equal(await textOf(page, "model-state"), "The model before is still in use.");
    await fill(page, "chat-tokens", 4);
    await ask(page, "ab");
    await fill(page, "chat-tokens", TOKENS);
  },

  async "an address is a model, which the browser keeps"({ page, server, requests }) {
    const { path } = await listed(page, "plain");
    const address = `${server.address}${path}model.gguf`;
    const asked = () => requests.filter((url) => url === address).length;
    const load = async () => {
      await fill(page, "address", address);
      await click(page, "#address-load");
      await until(
        page,
        "it is in use",
        (address) =>
          document.getElementById("model-about").textContent.includes(address) &&
          document.getElementById("model-state").textContent === "Ready.",
        address,
      );
    };
    await load();
    const first = asked();
    assert.ok(first >= 1);
    await load();
    assert.equal(asked(), first);
    const kept = await page.evaluate(async (address) => Boolean(await caches.match(address)), address);
    assert.equal(kept, true);
  },

  async "nothing is wider than a narrow screen"({ page, driver }) {
    await fill(page, "choice", "chatty");
    await until(page, "it is in use", () => /^In use: Chatty/.test(document.getElementById("model-about").textContent));
    await fill(page, "message", "");
    await ask(page, `${"x".repeat(60)} is a word`);
    await click(page, "#messages .look");
    await until(page, "maps are shown", () => !document.getElementById("chat-attention").hidden);
    await driver.resize(page, 320, 640);
    for (const choice of ["address", "files"]) {
      await fill(page, "choice", choice);
      await pause(200);
      assert.deepEqual(await tooWide(page), [], choice);
    }
    await driver.resize(page, 1100, 900);
  },

  async "the Tab key reaches everything"({ page }) {
    await page.focus("#choice");
    const reached = new Set();
    for (let i = 0; i < 30; i += 1) {
      await page.keyboard.press("Tab");
      reached.add(
        await page.evaluate(
          () => document.activeElement.id || document.activeElement.className.split(" ")[0] || document.activeElement.localName,
        ),
      );
    }
    for (const id of ["files", "tab-chat", "messages", "look", "message", "send", "chat-new", "summary", "token", "chat-layer", "chat-svg"])
      assert.ok(reached.has(id), `${id} is not among ${[...reached].join(", ")}`);
  },

  async "names, roles and contrast"({ page, driver }) {
    await page.evaluate(() => (document.querySelector("#panel-chat details").open = true));
    for (const choice of ["address", "files"]) {
      await fill(page, "choice", choice);
      await accessible({ page, driver }, choice);
    }
    await fill(page, "choice", "chatty");
    await ready(page);
    await accessible({ page, driver }, "adapter");
  },
};

await init({ backend: "native" });
cpSync(here("../../examples/model"), chatty, { recursive: true, filter: (path) => !/expected|README/.test(path) });
writeFileSync(join(chatty, "chat_template.jinja"), TEMPLATE);
await writeAdapter();
const model = await LanguageModel.load(chatty);
const adapted = await LanguageModel.load(chatty, { adapter });
const plain = here("../models/gguf/f16/model.gguf");
const llama = await LanguageModel.load(plain);
try {
  await runDemo({
    testsOf: () => tests,
    models: [
      { name: "chatty", title: "Chatty", about: "Small.", path: chatty, adapter: { path: adapter, about: "Random." } },
      { name: "plain", title: "Plain", path: plain },
    ],
    // What an address that leads nowhere is answered with.
    allowed: (text) => /404/.test(text),
    context: { model, adapted, llama },
  });
} finally {
  for (const one of [model, adapted, llama]) one.dispose();
  dispose();
  rmSync(folder, { recursive: true });
}
