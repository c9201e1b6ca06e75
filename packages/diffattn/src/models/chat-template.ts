// A conversation as a prompt: the checkpoint's template, rendered by the package @huggingface/jinja
// where it is installed. Reads no file and splits no text.

import { checkOptions, has, isArray, isAbsent, show, unreadable } from "../check.js";
import { DiffAttnError, fail, reasonOf } from "../errors.js";
import { Raised, render, TooMuch } from "./chat-limits.js";
import type * as types from "./types.js";

const PACKAGE = "@huggingface/jinja";
/** How a checkpoint calls the one of several templates that is meant where none is named. */
const DEFAULT = "default";

/** What a checkpoint has of conversations. */
export interface ChatTexts {
  /** Its templates by name; the one that has no name is "default". */
  readonly templates: Readonly<Record<string, string>>;
  /** The special tokens that templates name: `bos_token` and others. */
  readonly tokens: Readonly<Record<string, string | readonly string[]>>;
}

const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null && !Array.isArray(x);

/** Whether all items of a list are so; no further than the first that is not, a hole for one. */
function all(list: readonly unknown[], is: (item: unknown) => boolean): boolean {
  for (let at = 0; at < list.length; at++) if (!is(list[at])) return false;
  return true;
}

/** Whether a prompt is messages: a list of objects with roles; no, where it cannot be read. */
export function isMessages(given: unknown): boolean {
  try {
    return isArray(given) && given.length > 0 && all(given, (item) => !isArray(item) && has(item, "role"));
  } catch {
    return false;
  }
}

/** What a `tokenizer_config.json` and a template's own file have of conversations. */
export function chatTexts(config: Readonly<Record<string, unknown>>, file: string | undefined): ChatTexts {
  const templates: Record<string, string> = {};
  const given = config["chat_template"];
  if (typeof given === "string") templates[DEFAULT] = given;
  if (Array.isArray(given))
    for (const one of given as unknown[])
      if (isRecord(one) && typeof one["name"] === "string" && typeof one["template"] === "string") templates[one["name"]] = one["template"];
  // (A template's own file is the newer place, which other readers take first, too.)
  if (file !== undefined) templates[DEFAULT] = file;
  const tokens: Record<string, string | string[]> = {};
  const textOf = (x: unknown): string | undefined => {
    const text = isRecord(x) ? x["content"] : x;
    return typeof text === "string" ? text : undefined;
  };
  for (const [name, value] of Object.entries(config)) {
    if (!name.endsWith("_token") && name !== "additional_special_tokens") continue;
    const text = textOf(value);
    if (text !== undefined) tokens[name] = text;
    if (Array.isArray(value)) tokens[name] = (value as unknown[]).map(textOf).filter((one) => one !== undefined);
  }
  return { templates, tokens };
}

/**
 * Messages as they are when they are given; what is wrong with them is told when they are asked
 * for.
 */
export class Conversation {
  readonly #json: string | undefined;
  readonly #error: unknown;

  constructor(given: unknown) {
    try {
      this.#json = checked(given);
    } catch (error) {
      this.#error = error;
    }
  }

  /** In JSON. */
  get json(): string {
    if (this.#json === undefined) throw this.#error;
    return this.#json;
  }
}

function checked(given: unknown): string {
  if (!isArray(given) || given.length === 0) fail("OPTION", "messages", "a list of messages { role, content }", show(given));
  for (let at = 0; at < given.length; at++) {
    try {
      const message = given[at];
      if (!isRecord(message)) fail("OPTION", `messages[${at}]`, "a message { role, content }", show(message));
      const { role, content } = message;
      if (typeof role !== "string") fail("OPTION", `messages[${at}].role`, "a text", show(role));
      const isContent = isAbsent(content) || typeof content === "string" || (isArray(content) && all(content, isRecord));
      if (!isContent) fail("OPTION", `messages[${at}].content`, "a text, or a list of objects", show(content));
    } catch (thrown) {
      unreadable("OPTION", `messages[${at}]`, thrown);
    }
  }
  return jsonOf("messages", given);
}

/** What a template gets, which is JSON, as that. */
function jsonOf(name: string, value: unknown): string {
  try {
    const json = JSON.stringify(value) as string | undefined;
    if (json !== undefined) return json;
  } catch (thrown) {
    return fail("OPTION", name, "what can be told in JSON", reasonOf(thrown), thrown);
  }
  return fail("OPTION", name, "what can be told in JSON", show(value));
}

/** How a conversation is made a prompt. */
export const CHAT_OPTIONS = ["template", "variables"] as const;

type Own = NonNullable<types.ModelLoadOptions["chatTemplate"]>;

/** A template of the caller's own. */
export function checkTemplate(given: unknown): Own | undefined {
  if (isAbsent(given)) return undefined;
  return typeof given === "string" || typeof given === "function"
    ? (given as Own)
    : fail("OPTION", "chatTemplate", "a text or a function", show(given));
}

/** The package, or why it cannot be had. */
async function library(): Promise<typeof import("@huggingface/jinja")> {
  try {
    // A literal, within `try`: bundlers follow it, and go on without it.
    return await import("@huggingface/jinja");
  } catch (cause) {
    const got = reasonOf(cause).split("\n")[0] ?? "";
    return fail("UNAVAILABLE", "chatTemplate", `the package ${PACKAGE} (npm install ${PACKAGE})`, got, cause);
  }
}

/** What a template makes of its variables. */
export async function renderTemplate({ template, variables }: types.ChatConversation): Promise<string> {
  const jinja = await library();
  try {
    return render(jinja, template, variables, JSON.stringify(variables).length);
  } catch (cause) {
    // What the template says is about the messages.
    if (cause instanceof Raised) fail("OPTION", "messages", "a conversation that the chat template takes", cause.message, cause);
    const expected = cause instanceof TooMuch ? "a template within its limits" : `a template that ${PACKAGE} renders`;
    return fail("FILE", "chat_template", expected, reasonOf(cause), cause);
  }
}

/** A conversation as a prompt. `texts`: the checkpoint's; `own`: of the caller's in their place. */
export async function promptOfChat(
  texts: ChatTexts | undefined,
  own: Own | undefined,
  conversation: Conversation,
  options: types.ChatTemplateOptions,
): Promise<string> {
  const { template: name, variables, addGenerationPrompt } = checkOptions("options", options, [...CHAT_OPTIONS, "addGenerationPrompt"]);
  const { json } = conversation;
  if (!isAbsent(name) && typeof name !== "string") fail("OPTION", "template", "the name of a template", show(name));
  if (!isAbsent(addGenerationPrompt) && typeof addGenerationPrompt !== "boolean")
    fail("OPTION", "addGenerationPrompt", "true or false", show(addGenerationPrompt));
  if (!isAbsent(variables) && !isRecord(variables)) fail("OPTION", "variables", "an object", show(variables));
  const more = isAbsent(variables) ? {} : (JSON.parse(jsonOf("variables", variables)) as Record<string, unknown>);
  const names = Object.keys(texts?.templates ?? {});
  const text =
    typeof own === "string" && isAbsent(name)
      ? own
      : texts && Object.hasOwn(texts.templates, name ?? DEFAULT)
        ? texts.templates[name ?? DEFAULT]
        : undefined;
  if (text === undefined && !isAbsent(name)) fail("OPTION", "template", `one of ${show(names)}`, show(name));
  const given = {
    ...texts?.tokens,
    tools: null,
    documents: null,
    ...more,
    messages: JSON.parse(json) as types.ChatMessage[],
    add_generation_prompt: addGenerationPrompt ?? true,
  };
  if (typeof own === "function") return writtenBy(own, { template: text ?? "", variables: given });
  if (text === undefined)
    fail("UNAVAILABLE", "chatTemplate", "a model with a chat template (chat_template, or the option chatTemplate)", "none");
  return renderTemplate({ template: text, variables: given });
}

/** What the caller's own function makes of a conversation. */
async function writtenBy(own: Extract<Own, (...given: never) => unknown>, conversation: types.ChatConversation): Promise<string> {
  let prompt: unknown;
  try {
    prompt = await own(conversation);
  } catch (thrown) {
    if (thrown instanceof DiffAttnError) throw thrown;
    return fail("OPTION", "chatTemplate", "a function that makes a prompt", `an exception: ${reasonOf(thrown)}`, thrown);
  }
  return typeof prompt === "string" ? prompt : fail("OPTION", "chatTemplate", "a function that makes a text", show(prompt));
}

/** Tokens that end a turn of the models that have them. */
const ENDS = [
  ..."<|im_end|> <|eot_id|> <|eom_id|> <end_of_turn> <|end|> <|endoftext|> <|end_of_text|> <|return|> <|call|>".split(" "),
  ..."<|end_of_turn|> <|END_OF_TURN_TOKEN|> <|eot|> <|im_sep_end|> <end_of_utterance> <EOT> [EOT] </s>".split(" "),
];

/**
 * Ids that end an answer: those that end any text of the model, the tokenizer's end, and what ends
 * a turn among its added tokens.
 */
export function endsOfTurn(
  config: types.ModelConfig,
  texts: ChatTexts | undefined,
  added: readonly { readonly content: string; readonly id: number }[],
): number[] {
  const ends = new Set([...ENDS, texts?.tokens["eos_token"]]);
  const told: unknown = config["eos_token_id"];
  const ids = (Array.isArray(told) ? (told as unknown[]) : [told]).filter((id) => typeof id === "number");
  return [...new Set([...ids, ...added.filter(({ content }) => ends.has(content)).map(({ id }) => id)])];
}
