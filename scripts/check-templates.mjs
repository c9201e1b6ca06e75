// npm run check:templates: what chat does with published templates, beside transformers. Nine chat
// templates of other models, as the Python package trl carries them (fetched into .cache once), are
// rendered by transformers in Python and by applyChatTemplate here, over the same conversations:
// every character must be the same, and what one refuses the other must. Needs built outputs,
// Python and PyPI.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { python as peersPython } from "../bench/peers/setup.mjs";
import { cache, launch, onPath, root, run } from "./tools.mjs";

const TRL = "1.16.0";
const TRANSFORMERS = ["transformers==5.24.0", "jinja2==3.1.6"];
const NAMES = ["llama3", "llama3_1", "qwen2_5", "qwen3", "phi3", "gemma3", "deepseekv3", "cohere2", "gptoss"];
const folder = join(cache, "chat-templates");
const templates = join(folder, "trl", "chat_templates");
const tokens = { bos_token: "<s>", eos_token: "</s>", pad_token: "<pad>" };

/** A Python with transformers: that of the benchmark where it is there, else one of its own. */
function pythonWithTransformers() {
  if (existsSync(peersPython)) return peersPython;
  const environment = join(folder, "python");
  const own = join(environment, ...(process.platform === "win32" ? ["Scripts", "python.exe"] : ["bin", "python"]));
  if (!existsSync(own)) {
    const system = onPath("python3", "python");
    if (!system) throw new Error("there is no python3");
    run(system, ["-m", "venv", environment], { quiet: true });
    run(own, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...TRANSFORMERS], { quiet: true });
  }
  return own;
}

/** Fetches the templates, once: a wheel, of which nothing is installed. */
function fetchTemplates(python) {
  if (existsSync(templates)) return;
  const wheels = join(folder, "wheels");
  mkdirSync(wheels, { recursive: true });
  const pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"];
  run(python, [...pip, "--dest", wheels, `trl==${TRL}`], { quiet: true });
  const wheel = readdirSync(wheels).find((name) => name.startsWith(`trl-${TRL}`));
  run(python, ["-m", "zipfile", "-e", join(wheels, wheel), folder], { quiet: true });
}

const tool = {
  type: "function",
  function: {
    name: "weather",
    description: "The weather of a place, in °C.",
    parameters: { type: "object", properties: { place: { type: "string", description: 'Where "it" is' } }, required: ["place"] },
  },
};
const turns = [
  { role: "user", content: "Hello" },
  { role: "assistant", content: "Hi there." },
  { role: "user", content: "  Say <b>&'\"é\n\n漢字</b>  " },
];
const conversations = [
  { name: "one message", messages: turns.slice(0, 1) },
  { name: "without an answer's beginning", messages: turns.slice(0, 2), addGenerationPrompt: false },
  { name: "several turns", messages: turns },
  { name: "what is said first", messages: [{ role: "system", content: "Be brief." }, ...turns] },
  { name: "a tool", messages: turns.slice(0, 1), variables: { tools: [tool] } },
  { name: "two users in a row", messages: [turns[0], turns[0]] },
];

const python = pythonWithTransformers();
fetchTemplates(python);
const cases = NAMES.flatMap((name) =>
  conversations.map((conversation) => ({ ...conversation, template: readFileSync(join(templates, `${name}.jinja`), "utf8"), of: name })),
);
const input = JSON.stringify({ tokens, cases });
const expected = JSON.parse(
  execFileSync(...launch(python, [join(root, "scripts/check-templates.py")]), { input, encoding: "utf8", maxBuffer: 1 << 26 }),
);

const { LanguageModel } = createRequire(import.meta.url)("../packages/diffattn/dist/models-node.js");
const model = join(root, "examples/model");
let failed = 0;
for (const [at, { of, name, template, messages, addGenerationPrompt, variables }] of cases.entries()) {
  const loaded = await LanguageModel.load(model, { chatTemplate: template });
  const options = { addGenerationPrompt, variables: { ...tokens, ...variables } };
  const made = await loaded.applyChatTemplate(messages, options).then(
    (text) => ({ text }),
    (error) => ({ error: error.message, code: error.code }),
  );
  loaded.dispose();
  const { text, error } = expected[at];
  const same = text === undefined ? made.code === "OPTION" : made.text === text;
  if (same) continue;
  failed += 1;
  console.error(
    `${of}, ${name}: transformers has\n${JSON.stringify(text ?? error)}\nand here it is\n${JSON.stringify(made.text ?? made.error)}`,
  );
}
console.log(`${cases.length - failed} passed, ${failed} failed (${NAMES.length} templates of trl ${TRL}: ${NAMES.join(", ")})`);
process.exitCode = failed > 0 ? 1 : 0;
