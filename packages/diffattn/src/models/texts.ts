// What a checkpoint has of texts: its tokenizer, and the template that makes a prompt of messages.
// Reads the files that hold them; splits no text and knows no language of templates.

import { fail } from "../errors.js";
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
  readonly chatTemplate: string | undefined;
}

/** The template of a `tokenizer_config.json`, of several by name the one called "default". */
async function templateIn(config: Uint8Array | undefined): Promise<string | undefined> {
  if (!config) return undefined;
  const read = (await parseJson(CONFIG, config, kindOf)) as { chat_template?: unknown } | null;
  const template: unknown = read?.chat_template;
  if (typeof template === "string") return template;
  if (!Array.isArray(template)) return undefined;
  const named = (template as ({ name?: unknown; template?: unknown } | null)[]).find((one) => one?.name === "default");
  return typeof named?.template === "string" ? named.template : undefined;
}

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
  if (own === null) return { tokenizer: null, chatTemplate: undefined };
  const tokenizerOf = async (files: types.TokenizerFiles | undefined): Promise<types.Tokenizer | null> => {
    if (own || !files) return own ?? null;
    return (make && (await madeOf(make, files))) ?? readTokenizer(files.json, files.config, regex, kindOf);
  };
  if (gguf) return { tokenizer: await tokenizerOf(own ? undefined : await gguf.tokenizer(signal)), chatTemplate: gguf.chatTemplate };
  const read = (name: string): ReturnType<typeof readOptionalText> => readOptionalText(folder, name, { signal });
  const [json, config, template] = await Promise.all([own ? undefined : read("tokenizer.json"), read(CONFIG), read(TEMPLATE)]);
  const tokenizer = await tokenizerOf(json && { json, config });
  // (A template's own file is the newer place, which other readers take first, too.)
  return { tokenizer, chatTemplate: template ? textOf(template) : await templateIn(config) };
}
