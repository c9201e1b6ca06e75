// A checkpoint's tokenizer.json, read by the package @huggingface/tokenizers where it is installed.
// Nothing here splits a text.

import { checkOptions, has, isOf, show } from "../check.js";
import { DiffAttnError, fail, reasonOf } from "../errors.js";
import { cleanedUp, decoding, type Growing } from "./decoding.js";
import { type KindOf, parseJson } from "./folder.js";
import { idsOf } from "./ids.js";
import { checkEnds, checkKnown } from "./tokenizer-rules.js";
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

/** An option that is true or false. */
export function flagOf(name: string, given: unknown, otherwise: boolean): boolean {
  if (given === undefined || given === null) return otherwise;
  return typeof given === "boolean" ? given : fail("OPTION", name, "true or false", show(given));
}

/** The options of `encode`: as they were given, names and values known. */
export function checkEncode(options: types.EncodeOptions | undefined): boolean {
  return flagOf("addSpecialTokens", checkOptions("options", options, ["addSpecialTokens"]).addSpecialTokens, true);
}

/** The options of `decode`, likewise. */
export function checkDecode(options: types.DecodeOptions | undefined): boolean {
  return flagOf("skipSpecialTokens", checkOptions("options", options, ["skipSpecialTokens"]).skipSpecialTokens, true);
}

/** What is read of a file once a text is met. */
interface Read {
  readonly tokenizer: InstanceType<Library["Tokenizer"]>;
  /** Added tokens by what they are written as. */
  readonly added: ReadonlyMap<string, number>;
  /** What special tokens are written as. */
  readonly special: ReadonlySet<string>;
  /** Texts that grow token by token, where that is known of the file's decoder. */
  readonly grow: ReturnType<typeof decoding>;
}

/** A token that a tokenizer.json adds to its vocabulary; a special one is no text. */
export interface AddedToken {
  readonly content: string;
  readonly id: number;
  readonly isSpecial: boolean;
}

/**
 * A tokenizer of a file. What is wrong with the file, or the want of the package, is told when a
 * text is met.
 */
class FileTokenizer implements types.Tokenizer {
  /**
   * Why no text can be met, where the package is missing. (No private member: the tokenizer may be
   * behind a proxy.)
   */
  readonly missing: DiffAttnError | undefined;
  readonly #json: Record<string, unknown>;
  readonly #config: Record<string, unknown>;
  readonly #library: Library | DiffAttnError;
  /** What the file does not ask for is not cleaned up: the text is what the ids say. */
  readonly #cleansUp: boolean;
  #made: Read | undefined;

  constructor(json: Record<string, unknown>, config: Record<string, unknown>, library: Library | DiffAttnError) {
    this.#json = json;
    this.#config = config;
    this.#library = library;
    this.missing = library instanceof DiffAttnError ? library : undefined;
    this.#cleansUp = config["clean_up_tokenization_spaces"] === true;
    this.encode = this.encode.bind(this);
    this.decode = this.decode.bind(this);
    this.grow = this.grow.bind(this);
    this.added = this.added.bind(this);
  }

  get #read(): Read {
    if (this.#made) return this.#made;
    const library = this.#library;
    if (library instanceof DiffAttnError) throw again(library);
    return (this.#made = this.#reading(() => {
      const { additional_special_tokens: more, ...config } = this.#config;
      const tokenizer = new library.Tokenizer(this.#json, config);
      const tokens = [...tokenizer.get_added_tokens_decoder().values()];
      const added = new Map(tokens.map(({ content, id }) => [content, id]));
      const special = tokens.filter(({ special }) => special).map(({ content }) => content);
      return {
        tokenizer,
        added,
        special: new Set([...special, ...(Array.isArray(more) ? (more as string[]) : [])]),
        grow: decoding(library, {
          decoder: this.#json["decoder"],
          added: new Set(added.keys()),
          suffix: tokenizer.model?.end_of_word_suffix,
        }),
      };
    }));
  }

  /** Runs what may meet something in the file that is none of a tokenizer. */
  #reading<T>(body: () => T, argument?: string): T {
    try {
      return body();
    } catch (cause) {
      if (cause instanceof DiffAttnError) throw cause;
      // (The package hands all tokens of a text to one call.)
      if (argument && cause instanceof RangeError) fail("OPTION", argument, `one that ${PACKAGE} can take`, cause.message, cause);
      return fail("FILE", "tokenizer.json", `a tokenizer that ${PACKAGE} reads`, reasonOf(cause), cause);
    }
  }

  encode(text: string, options?: types.EncodeOptions): number[] {
    if (typeof text !== "string") fail("OPTION", "text", "a text", show(text));
    const add_special_tokens = checkEncode(options);
    const { tokenizer } = this.#read;
    const { ids, tokens } = this.#reading(() => tokenizer.encode(text, { add_special_tokens }), "text");
    ids.forEach((id: unknown, at) => {
      if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= 2 ** 31)
        fail("FILE", "tokenizer.json", `an id for the token ${show(tokens[at])}`, show(id));
    });
    return ids;
  }

  decode(ids: readonly number[] | Int32Array, options?: types.DecodeOptions): string {
    const skips = checkDecode(options);
    const given = Array.from(idsOf("ids", ids));
    const { tokenizer, grow } = this.#read;
    return this.#reading(() => {
      if (!grow) {
        const known = given.filter((id) => this.#token(id, skips) !== undefined);
        if (known.length === 0) return "";
        const text = tokenizer.decode(known, { skip_special_tokens: skips, clean_up_tokenization_spaces: false });
        return this.#cleansUp ? cleanedUp(text) : text;
      }
      const text = grow({ trims: skips, cleansUp: false });
      const whole = text.push(this.#tokens(given, skips)) + text.end();
      return this.#cleansUp ? cleanedUp(whole) : whole;
    });
  }

  /**
   * The text of ids that come one after the other, special tokens left out; undefined where only
   * whole texts can be decoded.
   */
  grow(): Growing<number> | undefined {
    const { grow } = this.#read;
    const text = this.#reading(() => grow?.({ trims: true, cleansUp: this.#cleansUp }));
    if (!text) return undefined;
    return {
      push: (ids) => this.#reading(() => text.push(this.#tokens(ids, true))),
      peek: () => this.#reading(() => text.peek()),
      end: () => this.#reading(() => text.end()),
    };
  }

  /** The added tokens. */
  added(): AddedToken[] {
    const { added, special } = this.#read;
    return [...added].map(([content, id]) => ({ content, id, isSpecial: special.has(content) }));
  }

  /** The token of an id; undefined for an id that has none, or one that is left out. */
  #token(id: number, skips: boolean): string | undefined {
    const { tokenizer, special } = this.#read;
    const token: unknown = tokenizer.id_to_token(id) ?? tokenizer.model?.unk_token;
    return typeof token === "string" && !(skips && special.has(token)) ? token : undefined;
  }

  #tokens(ids: readonly number[], skips: boolean): string[] {
    return ids.map((id) => this.#token(id, skips)).filter((token) => token !== undefined);
  }
}

/**
 * The text of a tokenizer's ids that come one after the other, where it is known how they become
 * one.
 */
export const textGrowing = (tokenizer: unknown): Growing<number> | undefined =>
  isOf(tokenizer, FileTokenizer) ? tokenizer.grow() : undefined;

/** The added tokens of a tokenizer, where they are known. */
export const addedTokens = (tokenizer: unknown): readonly AddedToken[] => (isOf(tokenizer, FileTokenizer) ? tokenizer.added() : []);

async function objectOf(name: string, bytes: Uint8Array, kindOf: KindOf | undefined): Promise<Record<string, unknown>> {
  const json = await parseJson(name, bytes, kindOf);
  if (typeof json !== "object" || json === null || Array.isArray(json)) return fail("FILE", name, "an object in JSON", show(json));
  return json as Record<string, unknown>;
}

/**
 * The tokenizer of a checkpoint; `config` is its tokenizer_config.json, `regex` which regular
 * expressions it may have. What is no JSON is named by `kindOf`.
 */
export async function readTokenizer(
  json: Uint8Array,
  config: Uint8Array | undefined,
  regex: "any" | "known" = "any",
  kindOf?: KindOf,
): Promise<types.Tokenizer> {
  const tokenizer = await objectOf("tokenizer.json", json, kindOf);
  checkEnds(tokenizer);
  if (regex === "known") checkKnown(tokenizer);
  return new FileTokenizer(tokenizer, config ? await objectOf("tokenizer_config.json", config, kindOf) : {}, await library());
}

/** A tokenizer of the caller's own, or what makes one of files. */
type Own = Exclude<types.ModelLoadOptions["tokenizer"], null | undefined>;
export type MakeTokenizer = Extract<Own, (files: types.TokenizerFiles) => unknown>;

const isTokenizer = (given: unknown): given is types.Tokenizer => {
  const isFunction = (name: "encode" | "decode"): boolean => has(given, name) && typeof given[name] === "function";
  return isFunction("encode") && isFunction("decode");
};

/** A tokenizer of the caller's own, or what makes one. */
export function checkTokenizer(given: unknown): Own {
  if (isTokenizer(given) || typeof given === "function") return given as Own;
  return fail("OPTION", "tokenizer", "an object with encode and decode, a function that makes one, or null", show(given));
}

/** Whether it is what makes a tokenizer. */
export const isMaker = (own: Own): own is MakeTokenizer => !isTokenizer(own);

/** What the caller's own function makes of a checkpoint's files; undefined for nothing. */
export async function madeOf(make: MakeTokenizer, files: types.TokenizerFiles): Promise<types.Tokenizer | undefined> {
  let made: unknown;
  try {
    made = await make(files);
  } catch (thrown) {
    if (thrown instanceof DiffAttnError) throw thrown;
    return fail("OPTION", "tokenizer", "a function that makes a tokenizer", `an exception: ${reasonOf(thrown)}`, thrown);
  }
  if (made === undefined || isTokenizer(made)) return made;
  return fail("OPTION", "tokenizer", "a function that makes an object with encode and decode, or undefined", show(made));
}
