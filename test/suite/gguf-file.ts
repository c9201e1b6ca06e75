// Writes GGUF files of a tiny Llama whose weights are zeros, with the tokenizer that a test wants.

/** Values of a file by their keys: a text, texts, whole numbers of 32 bits, float32, true or false. */
export type Values = Readonly<
  Record<
    string,
    string | readonly string[] | { u32: number } | { i32s: readonly number[] } | { f32s: readonly number[] } | { f32: number } | boolean
  >
>;

class Bytes {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  add(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.length += bytes.byteLength;
    return this;
  }

  #view(length: number, write: (view: DataView) => void): this {
    const bytes = new Uint8Array(length);
    write(new DataView(bytes.buffer));
    return this.add(bytes);
  }

  u32 = (x: number): this => this.#view(4, (view) => view.setUint32(0, x, true));
  f32 = (x: number): this => this.#view(4, (view) => view.setFloat32(0, x, true));
  u64 = (x: number): this => this.#view(8, (view) => view.setBigUint64(0, BigInt(x), true));

  text(text: string): this {
    const bytes = new TextEncoder().encode(text);
    return this.u64(bytes.byteLength).add(bytes);
  }

  whole(): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.byteLength;
    }
    return whole;
  }
}

function addValue(bytes: Bytes, value: Values[string]): void {
  if (typeof value === "string") bytes.u32(8).text(value);
  else if (typeof value === "boolean") bytes.u32(7).add(Uint8Array.of(Number(value)));
  else if ("u32" in value) bytes.u32(4).u32(value.u32);
  else if ("f32" in value) bytes.u32(6).f32(value.f32);
  else if ("i32s" in value) {
    bytes.u32(9).u32(5).u64(value.i32s.length);
    for (const x of value.i32s) bytes.u32(x);
  } else if ("f32s" in value) {
    bytes.u32(9).u32(6).u64(value.f32s.length);
    for (const x of value.f32s) bytes.f32(x);
  } else {
    bytes.u32(9).u32(8).u64(value.length);
    for (const text of value) bytes.text(text);
  }
}

const WIDTH = 32;

/** A Llama of one layer and so many tokens, with these values beside those of its sizes. */
export function ggufOf(tokens: number, values: Values): Uint8Array<ArrayBuffer> {
  const all: Values = {
    "general.architecture": "llama",
    "llama.block_count": { u32: 1 },
    "llama.context_length": { u32: 64 },
    "llama.embedding_length": { u32: WIDTH },
    "llama.feed_forward_length": { u32: WIDTH },
    "llama.attention.head_count": { u32: 2 },
    "llama.attention.layer_norm_rms_epsilon": { f32: 1e-5 },
    ...values,
  };
  const square = [WIDTH, WIDTH];
  const tensors: [name: string, shape: readonly number[]][] = [
    ["token_embd", [WIDTH, tokens]],
    ["output_norm", [WIDTH]],
    ["blk.0.attn_norm", [WIDTH]],
    ["blk.0.ffn_norm", [WIDTH]],
    ...["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].map((name): [string, readonly number[]] => [
      `blk.0.${name}`,
      square,
    ]),
  ];
  const bytes = new Bytes().add(new TextEncoder().encode("GGUF")).u32(3).u64(tensors.length).u64(Object.keys(all).length);
  for (const [key, value] of Object.entries(all)) addValue(bytes.text(key), value);
  let end = 0;
  for (const [name, shape] of tensors) {
    bytes.text(`${name}.weight`).u32(shape.length);
    for (const size of shape) bytes.u64(size);
    bytes.u32(0).u64(end);
    end += shape.reduce((product, size) => product * size, 4);
  }
  return bytes.add(new Uint8Array(((32 - (bytes.length % 32)) % 32) + end)).whole();
}

/** The letter that byte-level BPE has for each byte: itself where it can be seen, else one from 256 on. */
const LETTERS: readonly string[] = (() => {
  const seen = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173 && byte < 256);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(seen(byte) ? byte : next++));
})();

const lettersOf = (text: string): string[] => Array.from(new TextEncoder().encode(text), (byte) => LETTERS[byte] ?? "");

/**
 * A tokenizer of byte-level BPE: a token for each byte, by its number, then special ones, then what
 * its merges make of words, letter by letter from their beginning.
 */
export function byteLevel(
  pre: string | undefined,
  words: readonly string[],
  special: readonly string[] = [],
): { tokens: string[]; values: Values } {
  const tokens = [...LETTERS, ...special];
  const known = new Set(tokens);
  const merges = new Set<string>();
  for (const word of words) {
    const [first = "", ...rest] = lettersOf(word);
    let before = first;
    for (const letter of rest) {
      merges.add(`${before} ${letter}`);
      before += letter;
      if (!known.has(before)) tokens.push(before);
      known.add(before);
    }
  }
  const types = tokens.map((_, id) => (id >= 256 && id < 256 + special.length ? 3 : 1));
  const values: Values = {
    "tokenizer.ggml.model": "gpt2",
    ...(pre !== undefined && { "tokenizer.ggml.pre": pre }),
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": { i32s: types },
    "tokenizer.ggml.merges": [...merges],
  };
  return { tokens, values };
}

/**
 * A tokenizer of pieces with scores, the first of which is joined first: the unknown token, the two
 * of a text's ends, a token for each byte, then the pieces.
 */
export function pieces(list: readonly string[]): { tokens: string[]; values: Values } {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...list];
  const before = tokens.length - list.length;
  const values: Values = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": { i32s: tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < before ? 6 : 1)) },
    "tokenizer.ggml.scores": { f32s: tokens.map((_, id) => (id < before ? 0 : before - id)) },
    "tokenizer.ggml.bos_token_id": { u32: 1 },
    "tokenizer.ggml.eos_token_id": { u32: 2 },
    "tokenizer.ggml.unknown_token_id": { u32: 0 },
  };
  return { tokens, values };
}
