// What a checkpoint has of texts: its tokenizer, and the templates that make a prompt of messages.
// Reads the files that hold them; splits no text and knows no language of templates.

import { fail } from "../errors.js";
import { chatTexts, type ChatTexts } from "./chat-template.js";
import { kindOf } from "./checkpoint.js";
import { type Folder, parseJson, readOptionalText } from "./folder.js";
import type { GgufTexts } from "./gguf.js";
import { madeOf, type MakeTokenizer, readTokenizer } from "./tokenizer.js";
import type * as types from "./types.js";

const CONFIG = "tokenizer_config.json";
const TEMPLATE = "chat_template.jinja";

/** How a checkpoint's tokenizer is read. */
export interface ReadingTexts {
  /** Which expressions it may have. */
  readonly regex: "any" | "known";
  /** What else may read it. */
  readonly make: MakeTokenizer | undefined;
  /** The caller's own in its place; null: no texts at all. */
  readonly own: types.Tokenizer | null | undefined;
}

export interface Texts {
  /** null where there is none. */
  readonly tokenizer: types.Tokenizer | null;
  readonly chat: ChatTexts | undefined;
}

/** The bytes of a tokenizer, of its configuration and of a template, where there are any. */
type Files = readonly (Uint8Array | undefined)[];

/** The text of a template's own file. */
function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    return fail("FILE", TEMPLATE, "a text in UTF-8", "other bytes", cause);
  }
}

/** Of a checkpoint, whose own files say it, or of a GGUF file (`gguf`), which says it itself. */
export async function textsOf(
  folder: Folder,
  gguf: GgufTexts | undefined,
  { regex, make, own }: ReadingTexts,
  { signal }: Pick<types.LoadOptions, "signal">,
): Promise<Texts> {
  if (own === null) return { tokenizer: null, chat: undefined };
  const read = (name: string): ReturnType<typeof readOptionalText> => readOptionalText(folder, name, { signal });
  const beside = async (): Promise<Files> => Promise.all([own ? undefined : read("tokenizer.json"), read(CONFIG), read(TEMPLATE)]);
  const itself = async (of: GgufTexts): Promise<Files> => {
    // (With a tokenizer of the caller's own it need be none that is read here.)
    const files = await (own ? of.tokenizer(signal).catch(() => undefined) : of.tokenizer(signal));
    return [files?.json, files?.config];
  };
  const [json, config, template] = await (gguf ? itself(gguf) : beside());
  const made =
    own ?? (json ? ((make && (await madeOf(make, { json, config }))) ?? (await readTokenizer(json, config, regex, kindOf))) : null);
  const parsed = config ? await parseJson(CONFIG, config, kindOf) : {};
  const said = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed) ? (parsed as Record<string, unknown>) : {};
  return { tokenizer: made, chat: chatTexts(said, template ? textOf(template) : gguf?.chatTemplate) };
}
