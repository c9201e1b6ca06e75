// What a tokenizer.json may ask for that costs more than its bytes: regular expressions, which JavaScript matches by trial and error on the
// caller's thread, and replacements that let a text grow. Says no; splits nothing.

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
  // BLOOM
  " ?[^(\\s|[.,!?…。，、।۔،])]+",
  "[0-9][0-9][0-9]",
];

const known = new Set(KNOWN_EXPRESSIONS);

/** One character or class of characters, repeated or not: nothing in it can be tried in two ways. */
const SINGLE = /^(?:\\[dDsSwWrnt]|\\[pP]\{\w{1,20}\}|\[[^[\]\\&]{1,80}\]|[^\\[\](){}*+?^$|])(?:[*+?]|\{\d{1,2}(?:,\d{0,2})?\})?$/u;

/** Times that the replacements of a tokenizer may let a text grow, all together. */
const GROWTH = 64;

interface Rule {
  readonly [name: string]: unknown;
}

const isRule = (x: unknown): x is Rule => typeof x === "object" && x !== null && !Array.isArray(x);

/** All steps of a normalizer, pre-tokenizer or decoder, those of its sequences too. No recursion: a file may nest them deeply. */
function stepsOf(rule: unknown): Rule[] {
  const steps: Rule[] = [];
  const open: unknown[] = [rule];
  while (open.length > 0) {
    const next = open.pop();
    if (!isRule(next)) continue;
    steps.push(next);
    for (const name of ["normalizers", "pretokenizers", "decoders"]) {
      const inner = next[name];
      if (Array.isArray(inner)) for (const one of inner) open.push(one);
    }
  }
  return steps;
}

const KINDS = ["normalizer", "pre_tokenizer", "decoder"] as const;
const lengthOf = (x: unknown): number => (typeof x === "string" ? x.length : 0);

/** Throws FILE for what would never end, whoever the file is of. */
export function checkEnds(json: Rule): void {
  for (const { type, length } of stepsOf(json["pre_tokenizer"])) {
    if (type === "FixedLength" && !(Number.isInteger(length) && (length as number) > 0))
      fail("FILE", "tokenizer.json", "a FixedLength of 1 or more", show(length));
  }
}

/** Throws FILE where what a tokenizer asks for is not known to take time and memory as the text does. */
export function checkKnown(json: Rule): void {
  let growth = 1;
  for (const kind of KINDS) {
    for (const { type, pattern, content, prepend } of stepsOf(json[kind])) {
      const { Regex, String: text } = isRule(pattern) ? pattern : {};
      if (Regex !== undefined && !(typeof Regex === "string" && (known.has(Regex) || SINGLE.test(Regex))))
        fail("FILE", `tokenizer.json ${kind}`, 'an expression of a published tokenizer (tokenizerRegex: "known")', show(Regex));
      if (type === "Replace") growth *= Math.max(1, (lengthOf(content) + (lengthOf(text) > 0 ? 0 : 1)) / Math.max(1, lengthOf(text)));
      if (type === "Prepend") growth *= Math.max(1, 1 + lengthOf(prepend));
      if (!(growth <= GROWTH))
        fail("FILE", `tokenizer.json ${kind}`, `replacements that let a text grow ${GROWTH} times at most`, `${growth} times`);
    }
  }
  const { model } = json;
  const longest = isRule(model) ? model["max_input_chars_per_word"] : undefined;
  if (longest !== undefined && longest !== null && !(typeof longest === "number" && longest <= 1000))
    fail("FILE", "tokenizer.json max_input_chars_per_word", "1000 at most", show(longest));
}
