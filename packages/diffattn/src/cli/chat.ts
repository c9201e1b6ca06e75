// diffattn chat: a conversation. Standard output gets the answers alone, piece by piece; what a
// person types is shown on standard error.

import type { ChatMessage, ChatOptions as Asked, LanguageModel, ModelCache } from "../models/types.js";
import { type Dialogue, END, INTERRUPTED } from "./dialogue.js";
import { Failure, sentence, UsageError } from "./failure.js";
import { counted } from "./format.js";
import type { SamplingOptions } from "./generate.js";
import { loadLanguageModel, start } from "./library.js";
import type { Terminal } from "./terminal.js";

export interface ChatOptions extends SamplingOptions {
  system?: string;
  json?: boolean;
}

const HELP = [
  'A line is a message. One that ends with \\ goes on in the next; between two lines of """ it has any number.',
  "/system TEXT  sets what the model is told first (alone: nothing)    /clear  forgets the conversation",
  "/exit         ends, as the end of input does (Ctrl-D)               Ctrl-C  stops an answer",
];

/** A command, or a message of one or more lines. */
export type Said = { readonly command: string; readonly rest: string } | { readonly message: string } | typeof END | typeof INTERRUPTED;

const QUOTES = '"""';

/** What is said next, which may be of several lines. */
export async function said(dialogue: Pick<Dialogue, "next">): Promise<Said> {
  const first = await dialogue.next("> ");
  if (typeof first !== "string") return first;
  const lines = [first];
  const [, command, rest] = /^\s*\/([a-z?]+)(?:\s+(.*))?$/.exec(first) ?? [];
  if (command !== undefined) return { command, rest: rest ?? "" };
  const isQuoted = first.trim() === QUOTES;
  while (isQuoted || lines.at(-1)?.endsWith("\\")) {
    const line = await dialogue.next(". ");
    if (line === INTERRUPTED) return line;
    if (line === END || (isQuoted && line.trim() === QUOTES)) break;
    lines.push(line);
  }
  if (isQuoted) return { message: lines.slice(1).join("\n") };
  const parts = lines.map((line, at) => (at < lines.length - 1 || line.endsWith("\\") ? line.replace(/\\$/, "") : line));
  // (A message that begins with a slash has two.)
  return { message: parts.join("\n").replace(/^(\s*)\/\//, "$1/") };
}

/** What was said so far, and what answers it. */
class Talk {
  system: string | undefined;
  readonly messages: ChatMessage[] = [];
  /** Ends the answer under way. */
  #answering: AbortController | undefined;

  constructor(
    readonly terminal: Terminal,
    readonly model: LanguageModel,
    readonly cache: ModelCache,
    readonly options: Asked,
    readonly json: boolean,
  ) {}

  /** Ends the answer, if there is one. */
  interrupt(): boolean {
    this.#answering?.abort();
    return this.#answering !== undefined;
  }

  /** Adds an answer to a message, or takes the message back where there is none. */
  async answer(message: string): Promise<void> {
    const { terminal, messages, cache } = this;
    messages.push({ role: "user", content: message });
    const all = [...(this.system === undefined ? [] : [{ role: "system", content: this.system }]), ...messages];
    const answering = (this.#answering = new AbortController());
    let [text, finish]: [string, string | null] = ["", null];
    const ids: number[] = [];
    const begin = performance.now();
    try {
      const signal = AbortSignal.any([answering.signal, terminal.signal]);
      for await (const token of this.model.chat(all, { ...this.options, cache, signal })) {
        ids.push(token.id);
        text += token.text;
        finish = token.finish;
        if (!this.json) await terminal.content(token.text);
      }
    } catch (error) {
      if (terminal.signal.aborted || !answering.signal.aborted) {
        messages.pop();
        if (!this.json && text !== "") await terminal.line();
        throw error;
      }
      finish = "interrupted";
    } finally {
      this.#answering = undefined;
    }
    messages.push({ role: "assistant", content: text });
    if (this.json) await terminal.json({ text, ids, finish });
    else await terminal.line();
    const seconds = (performance.now() - begin) / 1000;
    terminal.note(
      `${counted(ids.length, "token")}, ${(ids.length / seconds).toFixed(1)} tokens/s${finish === "interrupted" ? ", stopped" : ""}`,
    );
  }

  /** Whether the conversation goes on after a command. */
  async command(command: string, rest: string): Promise<boolean> {
    switch (command) {
      case "exit":
      case "quit":
      case "bye":
        return false;
      case "clear":
        this.messages.length = 0;
        await this.cache.rewind(0);
        this.terminal.note("a new conversation");
        break;
      case "system":
        this.system = rest === "" ? undefined : rest;
        this.terminal.note(rest === "" ? "nothing is said first" : "said first from now on");
        break;
      case "help":
      case "?":
        for (const line of HELP) this.terminal.complain(line);
        break;
      default:
        this.terminal.complain(`there is no /${command}: /help tells what there is (a message that begins with / has two of them)`);
    }
    return true;
  }
}

export async function chat(terminal: Terminal, source: string, options: ChatOptions): Promise<void> {
  const { backend, isa, threads, json = false, system, ...rest } = options;
  await start({ ...(backend && { backend }), ...(isa && { isa }), ...(threads && { threads }) });
  using model = await loadLanguageModel(terminal, source);
  if (!model.tokenizer) throw new Failure(`${source}: it has no tokenizer, without which there is no conversation`);
  if (model.chatTemplate === undefined)
    throw new Failure(
      `${source}: it has no chat template (tokenizer_config.json, chat_template.jinja); "diffattn generate" continues a text with it`,
    );
  using cache = await model.createCache();
  const talk = new Talk(terminal, model, cache, rest, json);
  talk.system = system;
  const dialogue = terminal.dialogue(() => talk.interrupt());
  try {
    terminal.note("a line is a message; /help tells the rest, /exit or the end of input ends");
    for (;;) {
      const next = await said(dialogue);
      if (next === END) return;
      if (next === INTERRUPTED) terminal.note("/exit, or Ctrl-D, ends");
      else if ("command" in next) {
        if (!(await talk.command(next.command, next.rest))) return;
      } else if (next.message.trim() !== "") await answered(terminal, talk, next.message);
      if (terminal.signal.aborted) throw new UsageError("interrupted");
    }
  } finally {
    dialogue.close();
  }
}

/** What one message fails at need not end the conversation with a person. */
async function answered(terminal: Terminal, talk: Talk, message: string): Promise<void> {
  try {
    await talk.answer(message);
  } catch (error) {
    if (terminal.signal.aborted || !terminal.isAsked) throw error;
    terminal.complain(sentence(error));
  }
}
