// What requests give as texts: prompts, messages, inputs. Says what is wrong with them.

import { invalid, notDone } from "./api-error.js";
import { isRecord } from "./fields.js";
import type { ChatMessage } from "../../models/types.js";

/** Prompts or inputs of one request. */
const TEXTS = 2048;

const isIds = (x: unknown): x is number[] =>
  Array.isArray(x) && x.length > 0 && x.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31);

/** Texts or lists of ids: one or several. */
export function textsOf(name: string, given: unknown): (string | number[])[] {
  const expected = `expected a text, a list of token ids, or a list of up to ${TEXTS} of either, none of them empty`;
  if (typeof given === "string") return [given];
  if (isIds(given)) return [given];
  if (!Array.isArray(given) || given.length === 0 || given.length > TEXTS) throw invalid(name, expected);
  return given.map((one: unknown) => {
    if (typeof one === "string" || isIds(one)) return one;
    throw invalid(name, expected);
  });
}

const ROLES: Readonly<Record<string, string>> = { system: "system", developer: "system", user: "user", assistant: "assistant" };

/** The messages of a conversation, each of one text. */
export function messagesOf(given: readonly unknown[] | undefined): ChatMessage[] {
  if (given === undefined || given.length === 0) throw invalid("messages", "expected a list of messages { role, content }");
  return given.map((message, at) => messageOf(message, `messages[${at}]`));
}

function messageOf(message: unknown, name: string): ChatMessage {
  if (!isRecord(message)) throw invalid(name, "expected a message { role, content }");
  const { role, content, name: who, ...more } = message;
  if (role === "tool" || role === "function") throw notDone(`${name}.role`, "tools are not done by this server");
  const known = typeof role === "string" && Object.hasOwn(ROLES, role) ? ROLES[role] : undefined;
  if (known === undefined) throw invalid(`${name}.role`, 'expected "system", "developer", "user" or "assistant"');
  for (const field of ["tool_calls", "function_call", "audio"]) {
    const value = more[field];
    if (value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0)) throw notDone(`${name}.${field}`);
  }
  if (who !== undefined && typeof who !== "string") throw invalid(`${name}.name`, "expected a text");
  return { role: known, content: contentOf(content, `${name}.content`), ...(who !== undefined && { name: who }) };
}

/** A text, or its parts, joined as they are. */
function contentOf(content: unknown, name: string): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw invalid(name, "expected a text or a list of its parts");
  const parts = content.map((part: unknown, at) => {
    if (!isRecord(part) || typeof part["type"] !== "string") throw invalid(`${name}[${at}]`, 'expected a part { type: "text", text }');
    if (part["type"] !== "text")
      throw notDone(`${name}[${at}].type`, "parts other than text (images, audio, files) are not done by this server");
    if (typeof part["text"] !== "string") throw invalid(`${name}[${at}].text`, "expected a text");
    return part["text"];
  });
  return parts.join("");
}
