// What a tokenizer.json may ask for that costs more than its bytes: regular expressions, which
// JavaScript matches by trial and error on the caller's thread, and replacements that let a text
// grow. Says no; splits nothing.

import { show } from "../check.js";
import { fail } from "../errors.js";

const WORDS = "'s|'t|'re|'ve|'m|'ll|'d";
const END = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const CASED = [
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+",
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*",
];

/** Expressions of published tokenizers. The time that each takes grows as the text does. */
export const KNOWN_EXPRESSIONS: readonly string[] = [
  // GPT-2
  `${WORDS}| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`,
  // GPT-4 (cl100k), Llama 3
  `(?i:${WORDS})|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${END}`,
  // Qwen 2
  `(?i:${WORDS})|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${END}`,
  // Qwen 3.5
  `(?i:${WORDS})|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${END}`,
  // GPT-4o (o200k)
  `${CASED.map((letters) => `${letters}(?i:${WORDS})?`).join("|")}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${END}`,
  // Mistral (Tekken)
  `${CASED.join("|")}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${END}`,
  // DeepSeek 3
  "[一-龥\u3040-ゟ゠-ヿ]+",
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" +
    `|${END}`,
  // llama.cpp's own, where a GGUF file says no other
  "[\\p{P}\\$\\+<=>\\^~\\|]+",
  `${WORDS}| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)`,
  // BLOOM
  " ?[^(\\s|[.,!?…。，、।۔،])]+",
  "[0-9][0-9][0-9]",
];

const known = new Set(KNOWN_EXPRESSIONS);

/**
 * One character or class of characters, repeated or not: nothing in it can be tried in two ways.
 */
const SINGLE = /^(?:\\[dDsSwWrnt]|\\[pP]\{\w{1,20}\}|\[[^[\]\\&]{1,80}\]|[^\\[\](){}*+?^$|])(?:[*+?]|\{\d{1,2}(?:,\d{0,2})?\})?$/u;

/** Times that the replacements of a tokenizer may let a text grow, all together. */
const GROWTH = 64;
/**
 * Characters of what the package looks for at every place of a text: added tokens, pieces of a
 * unigram model, words of WordPiece.
 */
const LONGEST = { added: 1000, piece: 128, word: 100 };

interface Rule {
  readonly [name: string]: unknown;
}

const isRule = (x: unknown): x is Rule => typeof x === "object" && x !== null && !Array.isArray(x);

/**
 * All steps of a normalizer, pre-tokenizer or decoder, those of its sequences too. No recursion: a
 * file may nest them deeply.
 */
function stepsOf(rule: unknown): Rule[] {
  const steps: Rule[] = [];
  const open: unknown[] = [rule];
  while (open.length > 0) {
    const next = open.pop();
    if (!isRule(next)) continue;
    steps.push(next);
    for (const name of ["normalizers", "pretokenizers", "decoders", "processors"]) {
      const inner = next[name];
      if (Array.isArray(inner)) for (const one of inner) open.push(one);
    }
  }
  return steps;
}

const KINDS = ["normalizer", "pre_tokenizer", "decoder", "post_processor"] as const;
const lengthOf = (x: unknown): number => (typeof x === "string" ? x.length : 0);
const listOf = (x: unknown): readonly unknown[] => (Array.isArray(x) ? (x as unknown[]) : []);

/** How many times as long a step can make a text. */
function growthOf({ type, pattern, content, prepend, replacement, str_rep, single }: Rule): number {
  const { String: text } = isRule(pattern) ? pattern : {};
  if (type === "Replace") return lengthOf(text) > 0 ? lengthOf(content) / lengthOf(text) : lengthOf(content) + 1;
  if (type === "Prepend") return 1 + lengthOf(prepend);
  if (type === "Metaspace") return lengthOf(str_rep) || lengthOf(replacement);
  if (type === "TemplateProcessing") return listOf(single).filter((item) => isRule(item) && item["Sequence"] !== undefined).length;
  return 1;
}

/** Throws FILE for what would never end, whoever the file is of. */
export function checkEnds(json: Rule): void {
  for (const { type, length } of stepsOf(json["pre_tokenizer"])) {
    if (type === "FixedLength" && !(Number.isInteger(length) && (length as number) > 0))
      fail("FILE", "tokenizer.json", "a FixedLength of 1 or more", show(length));
  }
}

/**
 * Throws FILE where what a tokenizer asks for is not known to take time and memory as the text
 * does.
 */
export function checkKnown(json: Rule): void {
  let growth = 1;
  for (const kind of KINDS) {
    for (const step of stepsOf(json[kind])) {
      const { Regex } = isRule(step["pattern"]) ? step["pattern"] : {};
      if (Regex !== undefined && !(typeof Regex === "string" && (known.has(Regex) || SINGLE.test(Regex))))
        fail("FILE", `tokenizer.json ${kind}`, 'an expression of a published tokenizer (tokenizerRegex: "known")', show(Regex));
      growth *= Math.max(1, growthOf(step));
      if (!(growth <= GROWTH))
        fail("FILE", `tokenizer.json ${kind}`, `steps that let a text grow ${GROWTH} times at most`, `${growth} times`);
    }
  }
  const short = (name: string, length: unknown, most: number): void => {
    if (!(typeof length === "number" && length <= most)) fail("FILE", `tokenizer.json ${name}`, `${most} characters at most`, show(length));
  };
  for (const token of listOf(json["added_tokens"])) if (isRule(token)) short("added_tokens", lengthOf(token["content"]), LONGEST.added);
  const { vocab, max_input_chars_per_word: word } = isRule(json["model"]) ? json["model"] : {};
  // (A list: of a unigram model.)
  for (const piece of listOf(vocab)) short("model", lengthOf(listOf(piece)[0]), LONGEST.piece);
  if (word !== undefined && word !== null) short("max_input_chars_per_word", word, LONGEST.word);
}
