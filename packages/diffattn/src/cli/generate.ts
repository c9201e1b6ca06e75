// diffattn generate: continues a text. Standard output gets the text alone, piece by piece.

import { counted, duration } from "./format.js";
import { type BackendOptions, loadLanguageModel, start } from "./library.js";
import type { Terminal } from "./terminal.js";

/** How tokens are chosen, and how many. */
export interface SamplingOptions extends BackendOptions {
  maxNewTokens: number;
  temperature: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  seed?: number;
  stop?: string[];
}

export interface GenerateOptions extends SamplingOptions {
  window?: number;
  deterministic?: boolean;
  json?: boolean;
}

/** The prompt as it was given; a file's or a shell's last line end is not part of it. */
export async function promptOf(terminal: Terminal, given: readonly string[]): Promise<string> {
  if (given.length > 0) return given.join(" ");
  return (await terminal.input("the prompt")).toString("utf8").replace(/\r?\n$/, "");
}

export async function generate(terminal: Terminal, source: string, words: readonly string[], options: GenerateOptions): Promise<void> {
  const { backend, isa, threads, json, ...rest } = options;
  const prompt = await promptOf(terminal, words);
  await start({ ...(backend && { backend }), ...(isa && { isa }), ...(threads && { threads }) });
  using model = await loadLanguageModel(terminal, source);
  const promptTokens = model.encode(prompt).length;

  const begin = performance.now();
  let first = 0;
  let text = "";
  let finish: string | null = null;
  const ids: number[] = [];
  for await (const token of model.generate(prompt, { ...rest, signal: terminal.signal })) {
    if (ids.length === 0) first = performance.now();
    ids.push(token.id);
    text += token.text;
    finish = token.finish;
    if (!json) await terminal.content(token.text);
  }
  const end = performance.now();

  const firstSeconds = (first - begin) / 1000;
  // The first token comes out of the prompt; what follows is the speed of decoding.
  const perSecond = ids.length > 1 ? ((ids.length - 1) * 1000) / (end - first) : null;
  if (json) {
    const seconds = { first: ids.length > 0 ? firstSeconds : null, all: (end - begin) / 1000 };
    await terminal.json({ prompt, text, ids, finish, promptTokens, seconds, tokensPerSecond: perSecond });
  } else if (terminal.isInteractive) await terminal.line();
  terminal.note(
    `${counted(ids.length, "token")}${perSecond === null ? "" : `, ${perSecond.toFixed(1)} tokens/s`}; ` +
      `prompt of ${counted(promptTokens, "token")}${ids.length > 0 ? `, first token after ${duration(firstSeconds)}` : ""}`,
  );
}
