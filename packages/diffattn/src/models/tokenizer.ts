// A checkpoint's tokenizer.json, read by the package @huggingface/tokenizers where it is installed. Nothing here splits a text.

import { show } from "../check.js";
import { DiffAttnError, fail, reasonOf } from "../errors.js";
import { type KindOf, parseJson } from "./folder.js";
import type * as types from "./types.js";

const PACKAGE = "@huggingface/tokenizers";

type Library = typeof import("@huggingface/tokenizers");

/** The package, or why it cannot be had. */
async function library(): Promise<Library | DiffAttnError> {
  try {
    // A literal, within `try`: bundlers follow it, and go on without it.
    return await import("@huggingface/tokenizers");
  } catch (cause) {
    const message = `tokenizer: expected the package ${PACKAGE} (npm install ${PACKAGE}), got ${reasonOf(cause).split("\n")[0]}`;
    return new DiffAttnError("UNAVAILABLE", message, { cause });
  }
}

/** An error that is thrown more than once, each time with its own stack. */
const again = ({ code, message, cause }: DiffAttnError): DiffAttnError => new DiffAttnError(code, message, { cause });

/** Throws where a checkpoint has a tokenizer and no package reads it. */
export function checkPackage(tokenizer: types.Tokenizer): void {
  if (tokenizer instanceof FileTokenizer && tokenizer.missing) throw again(tokenizer.missing);
}

/** A tokenizer of a file. What is wrong with the file, or the want of the package, is told when a text is met. */
class FileTokenizer implements types.Tokenizer {
  readonly #json: object;
  readonly #config: Record<string, unknown>;
  readonly #library: Library | DiffAttnError;
  #made: InstanceType<Library["Tokenizer"]> | undefined;

  constructor(json: object, config: Record<string, unknown>, library: Library | DiffAttnError) {
    this.#json = json;
    this.#config = config;
    this.#library = library;
    this.encode = this.encode.bind(this);
    this.decode = this.decode.bind(this);
  }

  /** Why no text can be met, where the package is missing. */
  get missing(): DiffAttnError | undefined {
    return this.#library instanceof DiffAttnError ? this.#library : undefined;
  }

  get #tokenizer(): InstanceType<Library["Tokenizer"]> {
    if (this.#made) return this.#made;
    if (this.#library instanceof DiffAttnError) throw again(this.#library);
    try {
      return (this.#made = new this.#library.Tokenizer(this.#json, this.#config));
    } catch (cause) {
      return fail("FILE", "tokenizer.json", `a tokenizer that ${PACKAGE} reads`, reasonOf(cause), cause);
    }
  }

  encode(text: string): number[] {
    if (typeof text !== "string") fail("OPTION", "text", "a text", show(text));
    return text === "" ? [] : this.#tokenizer.encode(text).ids;
  }

  decode(ids: readonly number[] | Int32Array): string {
    // What the file does not ask for is not cleaned up: the text is what the ids say.
    const clean = this.#config["clean_up_tokenization_spaces"] === true;
    if (ids.length === 0) return "";
    return this.#tokenizer.decode(Array.from(ids), { skip_special_tokens: true, clean_up_tokenization_spaces: clean });
  }
}

async function objectOf(name: string, bytes: Uint8Array, kindOf: KindOf | undefined): Promise<Record<string, unknown>> {
  const json = await parseJson(name, bytes, kindOf);
  if (typeof json !== "object" || json === null) return fail("FILE", name, "an object in JSON", show(json));
  return json as Record<string, unknown>;
}

/** The tokenizer of a checkpoint; `config` is its tokenizer_config.json. What is no JSON is named by `kindOf`. */
export async function readTokenizer(json: Uint8Array, config: Uint8Array | undefined, kindOf?: KindOf): Promise<types.Tokenizer> {
  const file = await objectOf("tokenizer.json", json, kindOf);
  return new FileTokenizer(file, config ? await objectOf("tokenizer_config.json", config, kindOf) : {}, await library());
}

/** A tokenizer of the caller's own. */
export function checkTokenizer(given: unknown): types.Tokenizer {
  const { encode, decode } = (typeof given === "object" && given !== null ? given : {}) as Partial<types.Tokenizer>;
  if (typeof encode !== "function" || typeof decode !== "function") {
    return fail("OPTION", "tokenizer", "an object with encode and decode, or null", show(given));
  }
  return given as types.Tokenizer;
}
