// What a language model says of itself, on every backend: how many parameters it has, as what its
// weights are held, and the chat template of its checkpoint; of floats, GGUF files and MLX's codes.

import { describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa } from "./backends.js";
import { file, path, sentence } from "./language-models.js";
import { ggufOf } from "./gguf-file.js";

type Source = Parameters<typeof models.LanguageModel.load>[0];

const about = async (source: Source, options: modelTypes.ModelLoadOptions = {}) => {
  using model = await models.LanguageModel.load(source, options);
  const { parameters, dtype, chatTemplate } = model;
  return { parameters, dtype, chatTemplate };
};

/** Parameters and dtype. */
const sizes = async (source: Source, options?: modelTypes.ModelLoadOptions): Promise<[number, string]> => {
  const { parameters, dtype } = await about(source, { tokenizer: null, ...options });
  return [parameters, dtype];
};

const json = (value: unknown): Uint8Array<ArrayBuffer> => new TextEncoder().encode(JSON.stringify(value));
const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);
const llama = { "config.json": file("llama/config.json"), "model.safetensors": file("llama/model.safetensors") };
const TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}";
const OTHER = "{{ 'another' }}";

onEachIsa(() => {
  describe("parameters and dtype", () => {
    // Two layers of norms, MLP, q, o, k and v; the last norm; one table or two.
    const LLAMA = 2 * (2 * 48 + 3 * 48 * 64 + 2 * 48 * 48 + 2 * 16 * 48) + 48 + 2 * 59 * 48;
    const TIED = 2 * (2 * 64 + 3 * 64 * 96 + 2 * 64 * 64 + 2 * 32 * 64) + 64 + 97 * 64;

    test("of floats, as they are and as asked", async () => {
      expect(await sizes(path("llama"))).toEqual([LLAMA, "float32"]);
      expect(await sizes(path("llama"), { dtype: "bfloat16" })).toEqual([LLAMA, "bfloat16"]);
      expect(await sizes(path("motif_v1_bf16"))).toEqual([(await models.inspectCheckpoint(path("motif_v1_bf16"))).parameters, "bfloat16"]);
      // Rows of 48 are no whole blocks, those of the MLP's last map are: most stay floats.
      expect(await sizes(path("llama"), { dtype: "q4" })).toEqual([LLAMA, "float32"]);
    });

    test("of GGUF files and MLX's codes: what the codes stand for", async () => {
      for (const [source, dtype] of [
        ["gguf/f16/model.gguf", "float16"],
        ["gguf/q8_0/model.gguf", "q8"],
        ["gguf/q4_0/model.gguf", "q4"],
        ["gguf/q4_1/model.gguf", "q4"],
        ["mlx", "q4"],
      ] as const)
        expect([source, ...(await sizes(path(source)))]).toEqual([source, TIED, dtype]);
      // Codes of as few bits stay; floats of them do not.
      expect(await sizes(path("mlx"), { dtype: "q8" })).toEqual([TIED, "q4"]);
      expect(await sizes(path("gguf/q8_0/model.gguf"), { dtype: "q4" })).toEqual([TIED, "q4"]);
      expect(await sizes(path("mlx"), { dtype: "float16" })).toEqual([TIED, "float16"]);
    });

    test("with an adapter: those of the conversion that it names", async () => {
      // Twice the rows of q, and a row of λ's projection for each head.
      const added = 2 * (48 * 48 + 6 * 48);
      expect(await sizes(path("llama"), { adapter: path("diffattn_llama/adapter") })).toEqual([LLAMA + added, "float32"]);
    });
  });

  describe("the chat template", () => {
    const of = async (files: Record<string, Uint8Array<ArrayBuffer>>, options?: modelTypes.ModelLoadOptions): Promise<string | undefined> =>
      (await about({ ...llama, ...files }, options)).chatTemplate;

    test("of tokenizer_config.json: one, or several by name", async () => {
      expect(await of({})).toBeUndefined();
      expect(await of({ "tokenizer_config.json": json({ chat_template: TEMPLATE }) })).toBe(TEMPLATE);
      const several = [
        { name: "tool_use", template: OTHER },
        { name: "default", template: TEMPLATE },
      ];
      expect(await of({ "tokenizer_config.json": json({ chat_template: several }) })).toBe(TEMPLATE);
      for (const none of [null, 5, [null, 4], [several[0]], { template: TEMPLATE }])
        expect(await of({ "tokenizer_config.json": json({ chat_template: none }) })).toBeUndefined();
    });

    test("of its own file, which comes first", async () => {
      const config = { "tokenizer_config.json": json({ chat_template: OTHER }) };
      expect(await of({ ...config, "chat_template.jinja": text(TEMPLATE) })).toBe(TEMPLATE);
      expect(await of({ "chat_template.jinja": text(TEMPLATE) })).toBe(TEMPLATE);
    });

    test("with a tokenizer of the caller's own, and with none", async () => {
      const files = { "chat_template.jinja": text(TEMPLATE) };
      const own = { encode: () => [7], decode: () => "seven" };
      expect(await of(files, { tokenizer: own })).toBe(TEMPLATE);
      expect(await of(files, { tokenizer: null })).toBeUndefined();
    });

    test("of a GGUF file, whoever reads its tokenizer", async () => {
      const of = async (options?: modelTypes.ModelLoadOptions): Promise<string | undefined> =>
        (await about(path("gguf/f16/model.gguf"), options)).chatTemplate;
      const template = await of();
      expect(template).toContain("messages");
      expect(await of({ tokenizer: { encode: () => [7], decode: () => "seven" } })).toBe(template);
      expect(await of({ tokenizer: null })).toBeUndefined();
      // Tokenizers that are not read are no matter to who has one: long, and none.
      const own = { tokenizer: { encode: () => [7], decode: () => "seven" } };
      const long = TEMPLATE.repeat(40);
      const values = { "tokenizer.ggml.model": "other" };
      expect((await about(ggufOf(9, { ...values, "tokenizer.chat_template": long }), own)).chatTemplate).toBe(long);
      expect((await about(ggufOf(9, values), own)).chatTemplate).toBeUndefined();
    });

    test("what is refused", async () => {
      expect(await sentence(() => of({ "tokenizer_config.json": text("{") }))).toMatch(/^FILE tokenizer_config\.json: expected JSON, got /);
      expect(await sentence(() => of({ "chat_template.jinja": Uint8Array.of(0xff, 0xfe, 0xff) }))).toBe(
        "FILE chat_template.jinja: expected a text in UTF-8, got other bytes",
      );
      const long = { "chat_template.jinja": text("x".repeat(1 << 16)) };
      expect(await sentence(() => of(long, { maxFileBytes: 1 << 15 }))).toBe(
        "FILE chat_template.jinja: expected at most 32768 bytes (option maxFileBytes), got 65536",
      );
      expect(await of({ "chat_template.jinja": text(TEMPLATE) })).toBe(TEMPLATE);
    });
  });
});
