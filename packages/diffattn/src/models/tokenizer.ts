// A checkpoint's tokenizer.json, read by the package @huggingface/tokenizers where it is installed. Nothing here splits a text.

import { has, isOf, show } from "../check.js";
import { DiffAttnError, fail, reasonOf } from "../errors.js";
import { parseJson } from "./folder.js";
import { idsOf } from "./ids.js";
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
  if (isOf(tokenizer, FileTokenizer) && tokenizer.missing) throw again(tokenizer.missing);
}

/** A tokenizer of a file. What is wrong with the file, or the want of the package, is told when a text is met. */
class FileTokenizer implements types.Tokenizer {
  /** Why no text can be met, where the package is missing. (No private member: the tokenizer may be behind a proxy.) */
  readonly missing: DiffAttnError | undefined;
  readonly #json: object;
  readonly #config: Record<string, unknown>;
  readonly #library: Library | DiffAttnError;
  #made: InstanceType<Library["Tokenizer"]> | undefined;

  constructor(json: object, config: Record<string, unknown>, library: Library | DiffAttnError) {
    this.#json = json;
    this.#config = config;
    this.#library = library;
    this.missing = library instanceof DiffAttnError ? library : undefined;
    this.encode = this.encode.bind(this);
    this.decode = this.decode.bind(this);
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
    const list = Array.from(idsOf("ids", ids));
    if (list.length === 0) return "";
    return this.#tokenizer.decode(list, { skip_special_tokens: true, clean_up_tokenization_spaces: clean });
  }
}

function objectOf(name: string, bytes: Uint8Array): Record<string, unknown> {
  const json = parseJson(name, bytes);
  if (typeof json !== "object" || json === null) return fail("FILE", name, "an object in JSON", show(json));
  return json as Record<string, unknown>;
}

/** The tokenizer of a checkpoint; `config` is its tokenizer_config.json. */
export async function readTokenizer(json: Uint8Array, config: Uint8Array | undefined): Promise<types.Tokenizer> {
  return new FileTokenizer(objectOf("tokenizer.json", json), config ? objectOf("tokenizer_config.json", config) : {}, await library());
}

/** A tokenizer of the caller's own. */
export function checkTokenizer(given: unknown): types.Tokenizer {
  const isFunction = (name: "encode" | "decode"): boolean => has(given, name) && typeof given[name] === "function";
  if (!isFunction("encode") || !isFunction("decode")) {
    return fail("OPTION", "tokenizer", "an object with encode and decode, or null", show(given));
  }
  return given as types.Tokenizer;
}
