// Conversations through the public API: what a template makes of messages, which special tokens
// there are and what ends an answer; and templates of strangers, which end.

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { api, backend, isas, models } from "./backends.js";
import { path, sentence } from "./language-models.js";

/** SmolLM2-Instruct's, as its files have it. */
const { chat_template: SMOLLM2 } = JSON.parse(readFileSync(path("chat/tokenizer_config.json"), "utf8")) as { chat_template: string };
const FIRST = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n";

const VOCABULARY = 97;
const bytesOf = (json: unknown): Uint8Array => new TextEncoder().encode(typeof json === "string" ? json : JSON.stringify(json));
const weights = Object.fromEntries(
  ["config.json", "model.safetensors"].map((name) => [name, new Uint8Array(readFileSync(path(`diffllama_gqa/${name}`)))]),
);

const SPECIAL = { "<s>": 95, "<|im_start|>": 94, "<|im_end|>": 93, "</s>": 92 };
// Letters that the prompts have, and others.
const letters = Array.from({ length: VOCABULARY }, (_, id) =>
  id < 92 ? String.fromCharCode(id === 0 ? 10 : 31 + id) : (Object.entries(SPECIAL).find(([, at]) => at === id)?.[0] ?? "\u00ff"),
);

/** A token per character, special ones, and "<s>" before every text. */
const tokenizerJson = {
  version: "1.0",
  added_tokens: Object.entries(SPECIAL).map(([content, id]) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  })),
  normalizer: null,
  pre_tokenizer: { type: "Split", pattern: { Regex: "[\\s\\S]" }, behavior: "Isolated", invert: false },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<s>": { id: "<s>", ids: [95], tokens: ["<s>"] } },
  },
  decoder: { type: "Fuse" },
  model: { type: "BPE", vocab: Object.fromEntries(letters.map((letter, id) => [letter, id])), merges: [] },
};

type Files = Record<string, Uint8Array<ArrayBuffer>>;
const load = (config: object, more: object = {}, options?: modelTypes.ModelLoadOptions): Promise<modelTypes.LanguageModel> =>
  models.LanguageModel.load(
    { ...weights, "tokenizer.json": bytesOf(tokenizerJson), "tokenizer_config.json": bytesOf(config), ...more } as Files,
    options,
  );

async function all(iterator: AsyncIterable<modelTypes.GeneratedToken>): Promise<modelTypes.GeneratedToken[]> {
  const tokens: modelTypes.GeneratedToken[] = [];
  for await (const token of iterator) tokens.push(token);
  return tokens;
}

const hello = [{ role: "user", content: "Hello" }];

beforeAll(async () => {
  await api.init({ backend, isa: isas[0] });
});
afterAll(() => api.dispose());

describe("the template of SmolLM2", () => {
  let model: modelTypes.LanguageModel;
  beforeAll(async () => {
    model = await load({ chat_template: SMOLLM2, bos_token: "<|im_start|>", eos_token: { content: "<|im_end|>" } });
  });
  afterAll(() => model.dispose());

  test("what it makes of messages", async () => {
    expect(model.chatTemplate).toBe(SMOLLM2);
    const turn = "<|im_start|>user\nHello<|im_end|>\n";
    const cases: [modelTypes.ChatMessage[], modelTypes.ChatTemplateOptions, string][] = [
      [hello, {}, `${FIRST}${turn}<|im_start|>assistant\n`],
      [hello, { addGenerationPrompt: false }, `${FIRST}${turn}`],
      [[{ role: "system", content: "Be brief." }, ...hello], {}, `<|im_start|>system\nBe brief.<|im_end|>\n${turn}<|im_start|>assistant\n`],
      [
        [...hello, { role: "assistant", content: "Hi. {{ 1 }}" }, { role: "user", content: "{% for %}" }],
        {},
        `${FIRST}${turn}<|im_start|>assistant\nHi. {{ 1 }}<|im_end|>\n<|im_start|>user\n{% for %}<|im_end|>\n<|im_start|>assistant\n`,
      ],
    ];
    for (const [messages, options, expected] of cases) expect(await model.applyChatTemplate(messages, options)).toBe(expected);
  });

  test("an answer goes on from the template's text, without a token before it", async () => {
    const options = { maxNewTokens: 6, temperature: 1.2, seed: 3, stopIds: [], deterministic: true };
    const prompt = model.encode(await model.applyChatTemplate(hello), { addSpecialTokens: false });
    expect(prompt[0]).toBe(SPECIAL["<|im_start|>"]);
    expect(prompt.filter((id) => id === SPECIAL["<s>"])).toEqual([]);
    const expected = await all(model.generate(prompt, options));
    expect(await all(model.chat(hello, options))).toEqual(expected);
    expect(await all(model.generate(hello, options))).toEqual(expected);
  });

  test("messages are those of the call, not of the first token", async () => {
    const messages = [{ role: "user", content: "Hello" }];
    const options = { maxNewTokens: 3, stopIds: [] };
    const [at, later] = [model.chat(messages, options), model.chat(hello, options)];
    (messages[0] as { content: string }).content = "Bye";
    expect(await all(at)).toEqual(await all(later));
  });

  test("what ends a turn ends the answer", async () => {
    for (const end of ["<|im_end|>", "</s>"] as const) {
      const tokens = await all(model.chat(hello, { logitBias: { [SPECIAL[end]]: 1e4 }, maxNewTokens: 3 }));
      expect(tokens.map(({ id, text, finish }) => [id, text, finish])).toEqual([[SPECIAL[end], "", "stop"]]);
    }
    // Of a text it does not.
    const text = await all(model.generate("Hello", { logitBias: { [SPECIAL["<|im_end|>"]]: 1e4 }, maxNewTokens: 3 }));
    expect(text.map(({ finish }) => finish)).toEqual([null, null, "length"]);
    const own = await all(model.chat(hello, { logitBias: { [SPECIAL["<|im_end|>"]]: 1e4 }, maxNewTokens: 3, stopIds: [1] }));
    expect(own.length).toBe(3);
  });

  test("what are no messages, and options", async () => {
    for (const [messages, said] of [
      [[], "OPTION messages: expected a list of messages"],
      ["Hello", "OPTION messages: "],
      [[null], "OPTION messages[0]: "],
      [new Array(2 ** 32 - 1), "OPTION messages[0]: "],
      [[{ role: "user", content: new Array(2 ** 32 - 1) }], "OPTION messages[0].content: "],
      [[{ content: "Hello" }], "OPTION messages[0].role: "],
      [[{ role: "user", content: 3 }], "OPTION messages[0].content: "],
      [[{ role: "user", content: ["Hello"] }], "OPTION messages[0].content: "],
      [[{ role: "user", content: "a", more: 1n }], "OPTION messages: expected what can be told in JSON"],
    ] as const)
      expect(await sentence(() => model.chat(messages as never).next())).toContain(said);
    const round: Record<string, unknown> = { role: "user" };
    round["self"] = round;
    expect(await sentence(() => model.chat([round as never]).next())).toContain("OPTION messages: expected what can be told in JSON");
    const getter = Object.defineProperty({ content: "a" }, "role", {
      enumerable: true,
      get: () => {
        throw new Error("no");
      },
    });
    expect(await sentence(() => model.chat([getter as never]).next())).toContain("OPTION messages[0]: ");
    const { proxy, revoke } = Proxy.revocable<modelTypes.ChatMessage[]>([], {});
    revoke();
    const throwing = new Proxy([...hello], {
      get: (list, name) => {
        if (name === "0") throw new Error("no");
        return Reflect.get(list, name) as unknown;
      },
    });
    for (const given of [proxy, throwing]) expect(await sentence(() => model.chat(given).next())).toContain("OPTION messages");
    expect(await sentence(() => model.chat(hello, { addSpecialTokens: true }).next())).toContain("OPTION addSpecialTokens: ");
    expect(await sentence(() => model.chat(hello, { template: "tool_use" }).next())).toContain("OPTION template: ");
    expect(await sentence(() => model.chat(hello, { variables: 3 as never }).next())).toContain("OPTION variables: ");
    expect(await sentence(() => model.generate("Hello", { variables: {} } as never).next())).toContain("OPTION options: ");
    expect(await sentence(() => model.applyChatTemplate(hello, { addGenerationPrompt: 1 as never }))).toContain(
      "OPTION addGenerationPrompt",
    );
  });
});

describe("where a template lies", () => {
  const text = async (model: modelTypes.LanguageModel, options?: modelTypes.ChatTemplateOptions): Promise<string> => {
    const prompt = await model.applyChatTemplate(hello, options);
    model.dispose();
    return prompt;
  };

  test("in its own file, among others, or given", async () => {
    const named = [
      { name: "default", template: "{{ bos_token }}{{ messages[0].content }}" },
      { name: "tool_use", template: "{{ tools | length }} {{ eos_token }}" },
      { name: "broken" },
      3,
    ];
    const config = { chat_template: named, bos_token: "<s>", eos_token: "</s>" };
    expect(await text(await load(config))).toBe("<s>Hello");
    const options = { template: "tool_use", variables: { tools: [{}, {}] } };
    expect(await text(await load(config), options)).toBe("2 </s>");
    expect(await text(await load(config, { "chat_template.jinja": bytesOf("file: {{ bos_token }}") }))).toBe("file: <s>");
    expect(await text(await load(config, {}, { chatTemplate: "own {{ messages | length }}" }))).toBe("own 1");
    const written = await load(config, {}, { chatTemplate: ({ template, variables }) => `${template}|${String(variables["bos_token"])}` });
    expect(await text(written)).toBe("{{ bos_token }}{{ messages[0].content }}|<s>");
    const own = { encode: () => [1], decode: () => "" };
    expect(await text(await load(config, {}, { tokenizer: own }))).toBe("<s>Hello");
  });

  test("nowhere", async () => {
    const model = await load({});
    expect(model.chatTemplate).toBeUndefined();
    expect(await sentence(() => model.chat(hello).next())).toContain("UNAVAILABLE chatTemplate: ");
    model.dispose();
    for (const template of [() => 3, () => Promise.reject(new Error("no"))]) {
      const other = await load({}, {}, { chatTemplate: template as never });
      expect(await sentence(() => other.chat(hello).next())).toContain("OPTION chatTemplate: ");
      other.dispose();
    }
    expect(await sentence(() => load({}, {}, { chatTemplate: 3 as never }))).toContain("OPTION chatTemplate: ");
    expect(await sentence(() => load({}, { "chat_template.jinja": Uint8Array.of(0xff, 0xfe, 0xfd) }))).toContain(
      "FILE chat_template.jinja: ",
    );
  });
});

describe("templates of strangers", () => {
  const rendered = async (chatTemplate: string, messages: modelTypes.ChatMessage[] = hello): Promise<string> => {
    const model = await models.LanguageModel.load({ ...weights, "tokenizer.json": bytesOf(tokenizerJson) } as Files, { chatTemplate });
    try {
      return await model.applyChatTemplate(messages);
    } finally {
      model.dispose();
    }
  };

  test("what they say is wrong with messages is OPTION, what is wrong with them FILE", async () => {
    expect(await sentence(() => rendered("{{ raise_exception('roles must alternate') }}"))).toBe(
      "OPTION messages: expected a conversation that the chat template takes, got roles must alternate",
    );
    for (const wrong of ["{% for %}", "{{", "{{ messages.nothing() }}", "{{ 1 | nothing }}", "{% if %}"])
      expect(await sentence(() => rendered(wrong))).toContain("FILE chat_template: ");
  });

  test("macros that call themselves with other arguments", async () => {
    const macro = "{% macro f(x, n) %}{{ x.replace('a', f(x, n - 1) if n > 0 else 'b') }}{{ n }}{% endmacro %}";
    expect(await rendered(`${macro}{{ f('a', 2) }}`)).toBe("b012");
    expect(await rendered("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}")).toBe("1");
  });

  test.each([
    ["a long range", "{% for i in range(1000000000) %}{% endfor %}"],
    ["a fine range", "{% for i in range(0, 1, 0.0000001) %}{% endfor %}"],
    ["loops in loops", "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}"],
    ["a text that doubles", "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"],
    ["a list that doubles", "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"],
    [
      "lists of one list",
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    ],
    [
      "namespaces of one namespace",
      `{% set n0 = namespace(a='x') %}${Array.from({ length: 40 }, (_, i) => `{% set n${i + 1} = namespace() %}{% set n${i + 1}.a = n${i} %}{% set n${i + 1}.b = n${i} %}`).join("")}{{ n40 | tojson }}`,
    ],
    ["a macro without end", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"],
    ["a macro that calls itself twice", "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"],
    [
      "texts put in everywhere",
      "{% set a = 'x' * 1 if false else 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}{{ a.replace('', a).replace('', a).replace('', a).replace('', a).replace('', a) }}",
    ],
    ["indents", "{{ 'a\nb' | indent(500000000) }}"],
    ["indents of JSON", "{{ messages | tojson(indent=500000000) }}"],
    [
      "separators",
      "{% set a = 'aaaaaaaaaaaaaaaa' %}{% set a = a.replace('a', a).replace('a', a).replace('a', a) %}{{ range(90000) | join(a) }}",
    ],
    ["spaces", `{{ 1 }}${" ".repeat(100_000)}{{ 2 }}`],
    ["length", "a".repeat(1 << 18)],
    ["depth", `{{ ${"(".repeat(60_000)}1${")".repeat(60_000)} }}`],
  ])("%s", async (_, template) => {
    const begin = performance.now();
    expect(await sentence(() => rendered(template))).toContain("FILE chat_template: ");
    expect(performance.now() - begin).toBeLessThan(20_000);
  });

  test("a long conversation is no trouble", async () => {
    const messages = Array.from({ length: 2000 }, (_, at) => ({
      role: at % 2 ? "assistant" : "user",
      content: `Message ${at} `.repeat(20),
    }));
    const prompt = await rendered(SMOLLM2, messages);
    expect(prompt.split("<|im_start|>").length).toBe(2003);
    const long = [{ role: "user", content: "a\n".repeat(500_000) }];
    expect((await rendered(SMOLLM2, long)).length).toBeGreaterThan(1_000_000);
    expect((await rendered("{{ messages[0].content | replace('a', 'bb') | trim }}", long)).length).toBe(1_499_999);
  });
});
