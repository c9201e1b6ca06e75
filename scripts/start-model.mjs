// The model of `npm start -- --model NAME`: where it lies, what the page says of it, and a
// conversation with it in the terminal, by the built command line. Loads no weights itself, but to
// ask a model whether it has a chat template.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { smollm2Diff } from "./smollm2-diff.mjs";
import { CommandFailed, root } from "./tools.mjs";

const built = (name) => import(pathToFileURL(join(root, "packages/diffattn/dist", name)).href);

/** What is asked where nobody types. */
const QUESTION = "Explain in two sentences why the sky is blue.";
const BEGINNING = "Once upon a time";

async function smollm2() {
  return {
    name: "smollm2",
    title: "SmolLM2-135M-Instruct, made differential",
    about:
      "Every head was made differential: without the adapter both of its maps are the same, and it computes what the Llama does, to rounding.",
    path: await smollm2Diff(),
    adapter: {
      path: join(root, "examples/smollm2"),
      about:
        "Healed on documentation from Debian packages and on text that the base model wrote. It lost some answers (asked for the capital of France it no longer says Paris), and is no evidence that differential attention is better: no plain model was trained beside it.",
    },
  };
}

/** A model as serve.mjs takes it: "smollm2", a path, or a name on the hub, which is brought first. */
export async function namedModel(name) {
  if (name === "smollm2") return smollm2();
  let path = resolve(name);
  if (!existsSync(path)) {
    const { downloadCheckpoint } = await built("models-node.js");
    console.log(`bringing ${name} from the hub, unless it is here`);
    ({ path } = await downloadCheckpoint(name));
  }
  return { name: basename(name).replaceAll(/[^\w.-]/g, "-") || "model", title: name, path };
}

/** Whether there can be a conversation with it. */
async function hasTemplate(path) {
  const { LanguageModel } = await built("models-node.js");
  const { dispose } = await built("node.js");
  const model = await LanguageModel.load(path);
  const has = model.chatTemplate !== undefined;
  model.dispose();
  dispose();
  return has;
}

/** Runs the command line to its end, with what it reads, or with this terminal. */
function diffattn(args, input) {
  return new Promise((done, failed) => {
    const stdio = [input === undefined ? "inherit" : "pipe", "inherit", "inherit"];
    const child = spawn(process.execPath, [join(root, "packages/diffattn/dist/cli.js"), ...args], { stdio });
    child.stdin?.end(input);
    // Ctrl-C is the conversation's, which it stops an answer of.
    const ignore = () => {};
    process.on("SIGINT", ignore);
    child.on("error", failed);
    child.on("close", (code) => {
      process.off("SIGINT", ignore);
      if (code === 0) done();
      else failed(new CommandFailed(`diffattn ${args[0]}: exit ${code}`));
    });
  });
}

/**
 * A conversation in this terminal; where nobody types, one question. A model without a chat
 * template continues a text.
 */
export async function talk({ title, path }) {
  console.log(`\n${title}, on the native backend:\n`);
  if (!(await hasTemplate(path))) return diffattn(["generate", path, BEGINNING, "--verbose"]);
  if (process.stdin.isTTY) return diffattn(["chat", path]);
  console.log(`> ${QUESTION}`);
  return diffattn(["chat", path, "--verbose"], `${QUESTION}\n`);
}
