// The commands, their arguments and their help. Parsing is commander's; what a command does is in
// its own file, loaded when it runs.

import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { computes, examples, listed, modelArgument, number, textModelArgument, WRITTEN } from "./arguments.js";
import { Exit, sentence, Stopped, UsageError } from "./failure.js";
import type { BenchOptions } from "./bench.js";
import type { ChatOptions } from "./chat.js";
import type { ClassifyOptions } from "./classify.js";
import type { ConvertOptions } from "./convert.js";
import type { DoctorOptions } from "./doctor.js";
import type { DownloadOptions } from "./download.js";
import type { EvaluateOptions } from "./evaluate.js";
import type { GenerateOptions } from "./generate.js";
import type { InspectOptions } from "./inspect.js";
import type { MapsOptions } from "./maps.js";
import type { ServeOptions } from "./serve.js";
import type { Terminal } from "./terminal.js";
import { addTokens, addTrain } from "./program-train.js";

declare const __VERSION__: string;

/** Options of every command that writes. */
function samples(command: Command): Command {
  return computes(command)
    .option("-n, --max-new-tokens <count>", "new tokens at most", number(1), 256)
    .option("-t, --temperature <number>", "what logits are divided by; 0 takes the highest", number(0, Infinity, { whole: false }), 0)
    .option("--top-k <count>", "choose among so many of the highest logits", number(1))
    .option("--top-p <number>", "choose among the most probable tokens that together exceed it", number(0, 1, { whole: false, open: true }))
    .option(
      "--repetition-penalty <number>",
      "above 1: what the text already has is less likely",
      number(0, Infinity, { whole: false, open: true }),
    )
    .option(
      "--min-p <number>",
      "choose among tokens at least so many times as probable as the most probable",
      number(0, 1, { whole: false }),
    )
    .option("--presence-penalty <number>", "above 0: what was written is less likely", number(-Infinity, Infinity, { whole: false }))
    .option(
      "--frequency-penalty <number>",
      "above 0: less likely with each time that it was written",
      number(-Infinity, Infinity, { whole: false }),
    )
    .option("--seed <number>", "where the random numbers begin", number(0, Number.MAX_SAFE_INTEGER))
    .option("--stop <text>", "end before this text; can be given several times", listed);
}

// A function per command.

function addGenerate(root: Command, terminal: Terminal): void {
  samples(
    root
      .command("generate")
      .summary("continue a text")
      .description(
        "Continues a text with a DIFF Llama, a Motif or a plain Llama. Standard output gets the new text alone, as it comes; speed is told to a terminal, on standard error.",
      ),
  )
    .addArgument(textModelArgument("a DIFF Llama, Motif or Llama"))
    .argument("[prompt...]", "the text to continue; standard input by default")
    .option("--window <count>", "tokens that each token sees; all by default", number(1))
    .option("--deterministic", "the same bits on every backend; slower")
    .option("--json", "one JSON object at the end instead of the text")
    .addHelpText(
      "after",
      examples(
        'diffattn generate ./model "A Vec is"',
        "echo -n 'Returns the' | diffattn generate ./model -n 40 > text.txt",
        'diffattn generate ./model "Once" -t 0.8 --top-p 0.95 --seed 7',
        'diffattn generate ./model "# Panics" --stop "# Examples" --json | jq .tokensPerSecond',
      ),
    )
    .action(async (model: string, prompt: string[], options: GenerateOptions) =>
      (await import("./generate.js")).generate(terminal, model, prompt, options),
    );
}

function addChat(root: Command, terminal: Terminal): void {
  samples(
    root
      .command("chat")
      .summary("talk with a model")
      .description(
        'A conversation with a model that has a chat template. A line is a message; one that ends with \\ goes on in the next, and between two lines of """ it has any number. ' +
          "/system TEXT sets what the model is told first, /clear forgets the conversation, /exit ends. Ctrl-C stops an answer. From a pipe each line is a message, too.",
      ),
  )
    .addArgument(textModelArgument("an instruct model"))
    .option("--system <text>", "what the model is told first")
    .option("--json", "one JSON object per answer and line instead of the text")
    .addHelpText(
      "after",
      examples(
        "diffattn chat ./model",
        'diffattn chat ./model.gguf --system "You answer in one sentence." -t 0.7 --min-p 0.05',
        "echo 'What is a norm?' | diffattn chat ./model",
        "diffattn chat ./model --json < questions.txt | jq -r .text",
      ),
    )
    .action(async (model: string, options: ChatOptions) => (await import("./chat.js")).chat(terminal, model, options));
}

function addServe(root: Command, terminal: Terminal): void {
  computes(
    root
      .command("serve")
      .summary("answer the requests of OpenAI's clients")
      .description(
        "Serves a model over HTTP: /v1/models, /v1/completions, /v1/chat/completions, /v1/embeddings, /tokenize, /health, /metrics. " +
          "Texts of all callers are written side by side, and what their prompts begin with in common is computed once. SIGTERM and Ctrl-C finish what is being written.",
      ),
  )
    .addArgument(textModelArgument("a DIFF Llama, Motif or Llama"))
    .option("--host <address>", "where to listen", "127.0.0.1")
    .option("--port <number>", "0 takes any that is free", number(0, 65535), 8080)
    .option("--api-key <key>", "what callers must name; by default the variable DIFFATTN_API_KEY, or none")
    .option("--cors <origin>", "an origin whose pages may call, or *; can be given several times", listed)
    .option("--name <name>", "what the model is called; by default the name of its folder or file")
    .option("--parallel <count>", "texts that are written at once", number(1, 1024), 16)
    .option("--queue <count>", "texts that wait for a place; further ones are refused (429)", number(0, 100_000), 64)
    .option("--prefix-memory <MiB>", "memory for what prompts may begin with in common", number(0, 1e6, { whole: false }), 256)
    .option("--max-body <MiB>", "how large a request may be", number(0, 1024, { whole: false, open: true }), 1)
    .option("--grace <seconds>", "how long what is being written may go on once the server is to stop", number(0, 86_400), 30)
    .addHelpText(
      "after",
      examples(
        "diffattn serve ./model",
        "DIFFATTN_API_KEY=secret diffattn serve ./model.gguf --host 0.0.0.0 --port 80",
        "curl http://127.0.0.1:8080/v1/completions -H 'content-type: application/json' -d '{\"prompt\": \"A Vec is\"}'",
      ),
    )
    .action(async (model: string, options: ServeOptions) => (await import("./serve.js")).serve(terminal, model, options));
}

function addMaps(root: Command, terminal: Terminal): void {
  computes(
    root
      .command("maps")
      .summary("see what a layer attends to")
      .description(
        "The attention maps of a layer, of each head: the first, the second and their difference; of a plain Llama its one map. Llamas read a text, a DIFF vision transformer a picture.",
      ),
  )
    .addArgument(textModelArgument("a DIFF Llama, a Motif, a Llama or a DIFF vision transformer"))
    .argument("[input...]", "the text, or the PNG or JPEG file; standard input by default")
    .option("-l, --layer <number>", "the layer, from 0", number(0), 0)
    .option("--head <number>", "one head, from 0; all by default", number(0))
    .addOption(
      new Option("-f, --format <name>", "by default what the output's name says, else html").choices(["html", "svg", "png", "json"]),
    )
    .option("-o, --output <file>", "where to; standard output by default")
    .option("--force", "replace an output that is there")
    .option("--cell <pixels>", "side of a cell", number(1, 100), 13)
    .addHelpText(
      "after",
      examples(
        'diffattn maps ./model "Returns the number of elements" -o maps.html',
        'diffattn maps ./model "Returns the number" --layer 3 --head 1 -o head.svg',
        "diffattn maps ./vit cat.png --format png --cell 4 > cat-maps.png",
        'diffattn maps ./model "Returns" --format json | jq .diff[0]',
      ),
    )
    .action(async (model: string, input: string[], options: MapsOptions) =>
      (await import("./maps.js")).maps(terminal, model, input, options),
    );
}

function addClassify(root: Command, terminal: Terminal): void {
  computes(
    root
      .command("classify")
      .summary("say what pictures show")
      .description("The likeliest classes of pictures, by a DIFF vision transformer: probability, index, name."),
  )
    .addArgument(modelArgument("a DIFF vision transformer"))
    .argument("<picture...>", "PNG or JPEG files; - is standard input")
    .option("-k, --top <count>", "so many classes", number(1), 5)
    .option("--json", "one JSON object per picture and line")
    .addHelpText(
      "after",
      examples(
        "diffattn classify ./vit cat.png",
        "diffattn classify ./vit --top 1 --json *.jpg",
        "curl -s $URL | diffattn classify ./vit -",
      ),
    )
    .action(async (model: string, pictures: string[], options: ClassifyOptions) =>
      (await import("./classify.js")).classify(terminal, model, pictures, options),
    );
}

/** A share of heads: "1/2", or a number from 0 to 1. */
function share(text: string): number {
  const [, over, under] = /^(\d+)\/(\d+)$/.exec(text.trim()) ?? [];
  const value = over === undefined ? (text.trim() === "" ? NaN : Number(text)) : Number(over) / Number(under);
  if (value >= 0 && value <= 1) return value;
  throw new InvalidArgumentError('Expected a share from 0 to 1, as "1/2" or 0.5.');
}

/** Inputs that share a scale. */
function groupSize(text: string): 32 | 64 {
  if (text === "32") return 32;
  if (text === "64") return 64;
  throw new InvalidArgumentError("Expected 32 or 64.");
}

function addConvert(root: Command, terminal: Terminal): void {
  root
    .command("convert")
    .summary("differential attention, other element types and head layouts")
    .description(
      "Makes heads of a Llama differential, so that it computes at first what it did before; or writes a checkpoint with another element type, or with its attention layers in another layout.",
    )
    .argument("<source>", "a folder, a safetensors or GGUF file, an address, or a model of the hub (org/name)")
    .argument("<target>", "a safetensors file, or a folder, which also gets the configuration and the tokenizer")
    .addOption(
      new Option("--to <name>", "a Llama with differential heads, or Hugging Face's diffllama, which is another model").choices([
        "diff",
        "diffllama",
      ]),
    )
    .addOption(new Option("--kind <name>", "what the heads are; v2 by default").choices(["v2", "v1", "dex"]))
    .option("--share <part>", 'the share of each layer\'s heads; "1/2" by default, with v1 all', share)
    .addOption(new Option("--select <which>", "which heads; the last by default").choices(["last", "first", "entropy", "all"]))
    .option("--text <file>", "a text over which the entropy of heads is measured, and models are compared")
    .addOption(new Option("--start <name>", "what they begin with; mirror by default").choices(["mirror", "zero", "mix"]))
    .option("--lambda <number>", "λ at the beginning; 0.5 by default", number(0, 1, { whole: false }))
    .option("--seed <number>", "where the random numbers of noise begin", number(0, Number.MAX_SAFE_INTEGER))
    .option("--adapter <folder>", "a low-rank adapter that is merged, over the conversion that it names")
    .option("--fold", "make a plain Llama of one with DEX")
    .option("--verify", "compare what was written with the source; fails when an exact start is none")
    .addOption(
      new Option("--dtype <type>", "element type of all weights; q8 and q4 quantise linear maps, embeddings and head").choices(WRITTEN),
    )
    .addOption(new Option("--head <type>", "element type of embeddings and head; q8 with --dtype q4").choices(WRITTEN))
    .option(
      "--group-size <count>",
      "inputs that share a scale with q8 and q4: 32 (F16), or 64 by MLX's rule (BF16); 32 by default",
      groupSize,
    )
    .addOption(new Option("--layout <name>", "Hugging Face's diffllama or unilm's multihead_flashdiff_2").choices(["diffllama", "unilm"]))
    .option("--force", "replace a target that is there")
    .addHelpText(
      "after",
      examples(
        "diffattn convert ./llama ./diff --to diff --share 1/2 --verify",
        "diffattn convert ./llama ./diff --to diff --select entropy --text sample.txt",
        "diffattn convert model.gguf ./diff-q4 --adapter ./adapter --dtype q4",
        "diffattn convert ./dex ./llama --fold",
        "diffattn convert ./model ./model-f32 --dtype f32",
        "diffattn convert model.gguf ./model-q4 --dtype q4",
        "diffattn convert model.safetensors unilm.safetensors --layout unilm",
      ),
    )
    .action(async (source: string, target: string, options: ConvertOptions) =>
      (await import("./convert.js")).convert(terminal, source, target, options),
    );
}

function addDownload(root: Command, terminal: Terminal): void {
  root
    .command("download")
    .summary("bring a model of the Hugging Face Hub to this disk")
    .description(
      "Brings a model of the Hugging Face Hub into the cache of the hub's own tools (HF_HUB_CACHE, HF_HOME): what a load of it reads. Prints where it lies. What was interrupted goes on where it ended.",
    )
    .argument("<name>", "org/name, hf:org/name@revision/file.gguf, or the address of its page")
    .option("--revision <name>", "branch, tag or commit; main by default")
    .option("--token <token>", "for what is private or gated; by default HF_TOKEN, or what hf auth login has kept")
    .option("--include <pattern>", "files of these names instead, as '*.gguf'; can be given several times", listed)
    .option("--json", "one JSON object: path, commit, files")
    .addHelpText(
      "after",
      examples(
        "diffattn download HuggingFaceTB/SmolLM2-135M-Instruct",
        "diffattn download hf:org/name@v1.0/model-q4_0.gguf",
        "diffattn download org/name --include '*.json' --include 'tokenizer*'",
        'HF_HUB_OFFLINE=1 diffattn generate org/name "Once"',
      ),
    )
    .action(async (name: string, options: DownloadOptions) => (await import("./download.js")).download(terminal, name, options));
}

function addInspect(root: Command, terminal: Terminal): void {
  root
    .command("inspect")
    .summary("what a checkpoint is")
    .description(
      "Architecture, head layout, element types and parameters of a checkpoint, and what is missing or odd in it. Reads no weights.",
    )
    .argument("<checkpoint>", "a folder, a safetensors or GGUF file, an address, or a model of the hub (org/name)")
    .option("--tensors", "also every tensor: element type, shape, bytes, file")
    .option("--json", "one JSON object")
    .addHelpText(
      "after",
      examples(
        "diffattn inspect ./model",
        "diffattn inspect model.safetensors --tensors",
        "diffattn inspect ./model --json | jq .warnings",
      ),
    )
    .action(async (checkpoint: string, options: InspectOptions) => (await import("./inspect.js")).inspect(terminal, checkpoint, options));
}

function addBench(root: Command, terminal: Terminal): void {
  computes(
    root
      .command("bench")
      .summary("how fast this machine is")
      .description("Times the operators on this machine, and a DIFF Llama, Motif or Llama if one is given. Every answer is checked."),
  )
    .argument("[model]", "a DIFF Llama, Motif or Llama to time as well")
    .option("--seconds <number>", "for each measurement", number(0, 600, { whole: false, open: true }), 2)
    .option("--json", "one JSON object")
    .addHelpText("after", examples("diffattn bench", "diffattn bench ./model --threads 1", "diffattn bench --backend wasm --json"))
    .action(async (model: string | undefined, options: BenchOptions) => (await import("./bench.js")).bench(terminal, model, options));
}

/** A list that commas separate. */
const list =
  <T>(one: (text: string) => T): ((text: string) => T[]) =>
  (text) =>
    text.split(",").map(one);

/** Tokens: a whole number, or thousands of 1024 as "8k". */
function tokenCount(text: string): number {
  const [, digits, thousands] = /^(\d+)(k?)$/i.exec(text.trim()) ?? [];
  const value = Number(digits ?? NaN) * (thousands ? 1024 : 1);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('Expected numbers of tokens, as "1k,2k,4096".');
}

function addEvaluate(root: Command, terminal: Terminal): void {
  computes(
    root
      .command("evaluate")
      .summary("loss of a text, needles in long ones; two models side by side")
      .description(
        "How well a model expects a text: loss, perplexity, tokens/s. With --needle: whether it finds a number that stands in a long text, and how much of its attention is there when it is asked.",
      ),
  )
    .addArgument(textModelArgument("a DIFF Llama, Motif or Llama"))
    .argument("[other]", "a second model, beside the first")
    .option("--data <file>", "a text, or a file of tokens (.tokens); with --needle what needles are hidden in; - is standard input")
    .option("--context <count>", "tokens of a window; 256, or the model's positions where these are fewer", number(2))
    .option("--limit <count>", "tokens that are read at most; all by default", number(2))
    .option("--needle <lengths>", "lengths of prompts in tokens, as 1k,2k,4k,8k", list(tokenCount))
    .option("--depths <list>", "where the needle stands, from 0 to 1; by default 0,0.25,0.5,0.75,1", list(share))
    .option("--draws <count>", "prompts of each length and depth; 20 by default", number(1, 10_000))
    .option("--seed <number>", "what the prompts are drawn by; 0 by default", number(0, Number.MAX_SAFE_INTEGER))
    .option("--attention <count>", "prompts of each length and depth whose attention is looked at; all by default", number(0))
    .option("--json", "one JSON object")
    .addHelpText(
      "after",
      examples(
        "diffattn evaluate ./model --data text.txt",
        "diffattn evaluate ./llama ./diff --data held-out.tokens --context 512",
        "diffattn evaluate ./model --needle 1k,2k,4k,8k",
        "diffattn evaluate ./llama ./diff --needle 512 --data book.txt --json | jq .models[].cells",
      ),
    )
    .action(async (model: string, other: string | undefined, options: EvaluateOptions) =>
      (await import("./evaluate.js")).evaluate(terminal, model, other, options),
    );
}

function addDoctor(root: Command, terminal: Terminal): void {
  computes(
    root
      .command("doctor")
      .summary("which build runs here, and why not a faster one")
      .description("Which build runs here, which others could, and why it is not faster. Fails when one computes a wrong answer."),
  )
    .option("--json", "one JSON object")
    .addHelpText("after", examples("diffattn doctor", "diffattn doctor --json | jq .notes"))
    .action(async (options: DoctorOptions) => (await import("./doctor.js")).doctor(terminal, options));
}

/**
 * The program on a terminal. What goes wrong rejects: what commander does not understand as its
 * error.
 */
export function program(terminal: Terminal): Command {
  const root = new Command("diffattn")
    .description("Differential transformers on the CPU: text, attention maps, pictures, checkpoints.")
    .version(__VERSION__)
    .option("-v, --verbose", "say on standard error also to pipes what a terminal is told; errors with their stack")
    .on("option:verbose", () => {
      terminal.isVerbose = true;
    })
    .helpCommand("help [command]", "help of a command")
    .addHelpText(
      "after",
      `${examples(
        'diffattn generate ./model "A Vec is"          continue a text',
        "diffattn inspect ./model                      what a checkpoint is",
        "diffattn doctor                               which build runs here, and why not a faster one",
        "diffattn generate --help                      options and examples of a command",
      )}\n\nExit codes: 0 done, 1 failed (one sentence on standard error), 2 not understood, 130 interrupted.`,
    );

  for (const add of [
    addGenerate,
    addChat,
    addServe,
    addMaps,
    addClassify,
    addConvert,
    addTokens,
    addTrain,
    addDownload,
    addInspect,
    addEvaluate,
    addBench,
    addDoctor,
  ])
    add(root, terminal);
  for (const command of [root, ...root.commands])
    command
      .helpOption("-h, --help", "this help")
      .showHelpAfterError(false)
      .configureOutput({
        writeOut: (text) => void terminal.text(text).catch(() => undefined),
        writeErr: (text) => {
          for (const line of text.trimEnd().split("\n")) terminal.complain(line);
        },
        outputError: () => undefined,
      })
      .exitOverride();
  return root;
}

/**
 * Runs a command line; resolves to the exit code. Everything that goes wrong becomes one sentence.
 */
export async function main(terminal: Terminal, args: readonly string[]): Promise<number> {
  try {
    await program(terminal).parseAsync(args, { from: "user" });
    return terminal.signal.aborted ? Exit.interrupted : Exit.ok;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return Exit.ok;
      // Without a command the help was shown, as an error.
      if (error.code !== "commander.help") terminal.complain(`diffattn: ${sentence(error.message.replace(/^error: /, ""))}`);
      return Exit.usage;
    }
    if (error instanceof Stopped) return error.code;
    if (terminal.signal.aborted) return Exit.interrupted;
    terminal.complain(`diffattn: ${sentence(error)}`);
    if (terminal.isVerbose && error instanceof Error && error.stack) for (const line of error.stack.split("\n")) terminal.complain(line);
    return error instanceof UsageError ? Exit.usage : Exit.failed;
  }
}
