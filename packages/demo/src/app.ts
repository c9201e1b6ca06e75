// The page: a model that is chosen above, tabs in which it writes and chats, and one that trains,
// whose script comes once it opens. `?prompt=…` in the address writes at once, `?chat=…` asks at
// once, `?model=…` begins with a model of the server's list.

import { Attention, adoptStyles } from "./attention.js";
import { copyOfView } from "./attention-parts.js";
import { startBench } from "./bench.js";
import { listedModels, wantedOf } from "./catalogue.js";
import { ChatTab } from "./chat.js";
import { Chooser } from "./chooser.js";
import { byId, reasonOf } from "./dom.js";
import { forgetOld, prepare } from "./loader.js";
import { startTabs } from "./tabs.js";
import { voiceOf } from "./voice.js";
import { WriteTab } from "./write.js";

performance.mark("script");
prepare();
const voice = voiceOf();
const tabs = startTabs();

// The second view of attention is a copy of the first.
byId("looked", HTMLElement).append(copyOfView("chat-"));
byId("chat-text-heading", HTMLElement).textContent = "Tokens of the conversation";
adoptStyles();

const asked = new URLSearchParams(location.search);
const [prompt, message] = [asked.get("prompt"), asked.get("chat")];
const chooser = new Chooser(voice, ({ model }, isFirst) => {
  // (What waits for the first one goes on with it.)
  if (!isFirst) {
    write.clear();
    chat.changeModel();
  }
  tabs.offer("tab-chat", model.chatTemplate !== undefined, !(isFirst && prompt));
});
const write = new WriteTab(chooser.loader, new Attention("", voice), voice);
const chat = new ChatTab(chooser.loader, new Attention("chat-", voice), voice);

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  write.stop();
  chat.stop();
});
startBench(voice.complain);

const listing = listedModels();
tabs.whenOpened("tab-train", () => {
  // (By its address: an import of a name would be part of this script.)
  const script = import(new URL("train.js", document.baseURI).href) as Promise<typeof import("./train.js")>;
  Promise.all([script, listing]).then(
    ([{ startTrain }, listed]) => startTrain(listed, voice),
    (error: unknown) => voice.complain(reasonOf(error)),
  );
});

listing.then(
  (listed) => {
    chooser.begin(listed, asked.get("model"));
    if (prompt) write.write(prompt);
    if (message) chat.send(message);
    const addresses = listed.flatMap((model) => Object.values(wantedOf(model, true).source as Record<string, URL>));
    forgetOld(new Set(addresses.map(String))).catch(() => {});
  },
  (error: unknown) => voice.complain(reasonOf(error)),
);
