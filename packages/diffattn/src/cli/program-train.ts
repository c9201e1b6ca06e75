// The commands of training: their arguments and their help.

import { Argument, type Command, Option } from "commander";
import { computes, examples, listed, number } from "./arguments.js";
import type { Terminal } from "./terminal.js";
import type { TokensOptions } from "./tokens.js";
import type { TrainOptions } from "./train.js";

const share = number(0, 1, { whole: false });
const positive = number(0, Infinity, { whole: false });
const FORMATS = ["float32", "float16", "bfloat16", "q8", "q4"];

export function addTokens(root: Command, terminal: Terminal): void {
  root
    .command("tokens")
    .summary("split texts into tokens, once")
    .description("Writes texts as a file of tokens, which training and evaluation read by ranges: each file is a document, or several.")
    .argument("<files...>", "texts in UTF-8, and last the file that is written")
    .requiredOption("--tokenizer <folder>", "a model's folder, or a tokenizer.json")
    .option("--separator <text>", "what separates documents within a file")
    .option("--end-id <id>", "an id behind each document", number(0))
    .option("--force", "replace a file that is there")
    .addHelpText(
      "after",
      examples(
        "diffattn tokens book.txt book.tokens --tokenizer ./model",
        "diffattn tokens docs/*.md docs.tokens --tokenizer ./model --end-id 0",
      ),
    )
    .action(async (files: string[], options: TokensOptions) => {
      if (files.length < 2) root.error("error: expected a text, and the file that is written");
      await (await import("./tokens.js")).tokens(terminal, files, options);
    });
}

/** What training reads, and what becomes of it. */
const ofData = (command: Command): Command =>
  command
    .requiredOption("--data <file>", "a text in UTF-8 or a file of tokens; texts can be given several times", listed)
    .requiredOption("-o, --out <folder>", "where checkpoints and the curve are written")
    .option("--separator <text>", "what separates documents within a text")
    .option("--end-id <id>", "an id behind each document", number(0))
    .option("--join-documents", "windows are one text each, whatever documents are in them")
    .option("--eval <share>", "the share of the windows, the last ones, that is measured", share, 0.05)
    .option("--context <tokens>", "tokens of a window", number(2), 256);

/** How it moves. */
const ofSteps = (command: Command): Command =>
  command
    .option("--steps <count>", "steps in all", number(1), 1000)
    .option("--batch <count>", "windows of a micro-batch", number(1), 8)
    .option("--accumulate <count>", "micro-batches of a step", number(1), 1)
    .option("--unit <tokens>", "sum gradients in units of so many tokens, so that no bit depends on --batch and --accumulate", number(1))
    .option("--lr <number>", "the largest learning rate", positive, 3e-4)
    .option("--warmup <steps>", "steps of its rise; a fiftieth by default", number(0))
    .option("--final <share>", "the share of it that is left at the last step", share, 0.1)
    .addOption(new Option("--schedule <name>", "how it falls").choices(["cosine", "linear", "constant"]).default("cosine"))
    .option("--weight-decay <number>", "of tensors of two axes", positive, 0.1)
    .option("--clip <norm>", "what the gradients' norm is clipped to; 0: not at all", positive, 1)
    .option("--seed <number>", "of the data's order and of what begins at random", number(0, Number.MAX_SAFE_INTEGER), 0)
    .option("--freeze <pattern>", "weights that stay, by a part of their names or a pattern with *; can be given several times", listed)
    .option("--rank <count>", "train low-rank adapters of so many rows, and λ's projections, alone", number(1))
    .addOption(new Option("--dtype <type>", "as what the model is loaded, for what stays as it is").choices(FORMATS))
    .option("--teacher <model>", "a model whose distribution is to be followed, too")
    .addOption(new Option("--teacher-dtype <type>", "as what that is loaded").choices(FORMATS))
    .option("--alpha <share>", "with a teacher: the share of the cross entropy", share, 0.5)
    .option("--lambda-anneal <steps>", "with DEX: steps over which its λ comes on; a tenth of all where it begins at zero", number(0))
    .addOption(new Option("--recompute [what]", "keep less, and compute it anew: all of a layer, or its MLP").choices(["layers", "mlps"]));

/** What is told and kept. */
const ofHabits = (command: Command): Command =>
  command
    .option("--eval-every <steps>", "measure so often", number(1))
    .option("--eval-batches <count>", "so much at most", number(1))
    .option("--save-every <steps>", "write a checkpoint so often; at the end by default", number(1))
    .option("--keep <count>", "checkpoints that are kept", number(1), 2)
    .option("--resume", "go on from the last checkpoint in --out")
    .option("--sample <text>", "go on with this text at the end; can be given several times", listed)
    .option("--sample-every <steps>", "and so often", number(1))
    .option("--sample-tokens <count>", "tokens of a sample", number(1), 40)
    .option("--json", "one JSON object per step and line");

export function addTrain(root: Command, terminal: Terminal): void {
  const command = root
    .command("train")
    .summary("train a model, or heal one that was converted")
    .description(
      "Trains a DIFF Llama, a Llama, or one with differential heads, on text: all of it, or low-rank adapters over what stays. " +
        "Checkpoints load as any model, and --resume goes on to the same bits. Ctrl-C and SIGTERM end the step, save and stop; a second one does not wait. " +
        "At the end: loss.svg and loss.csv in the folder.",
    )
    .addArgument(new Argument("<model>", "a folder, a GGUF file, an address, or a model of the hub; with --from-scratch a config.json"))
    .option("--from-scratch", "the model knows nothing yet")
    .option("--tokenizer <folder>", "with --from-scratch: whose tokenizer it has");
  ofHabits(ofSteps(ofData(computes(command))))
    .addHelpText(
      "after",
      examples(
        "diffattn train ./model --data book.txt --out run",
        "diffattn train config.json --from-scratch --tokenizer ./model --data book.tokens --out run --steps 2000",
        "diffattn train ./diff --data docs.tokens --out heal --rank 16 --dtype q8 --teacher ./llama --context 512 --batch 4",
        "diffattn train ./model --data book.txt --out run --resume --json | jq .loss",
      ),
    )
    .action(async (model: string, options: TrainOptions) => (await import("./train.js")).train(terminal, model, options));
}
