// The server over plain HTTP: what it answers, whom it refuses, and how it ends.

import { connect } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { chatModel, library, type Running, serving, until, written } from "./server.js";

interface Answer {
  choices: { text: string; index: number; finish_reason: string; message: { role: string; content: string } }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number; prompt_tokens_details: { cached_tokens: number } };
  error: { message: string; type: string; param: string | null; code: string | null };
  data: { embedding: number[] | string; index: number }[];
  tokens: number[];
}
const json = async (response: Response): Promise<Answer> => (await response.json()) as Answer;
const greedy = { temperature: 0, max_tokens: 20 };
const PROMPT = "Returns the number of";

let server: Running;
beforeAll(async () => {
  server = await serving(chatModel());
});

test("a completion is what the package writes", async () => {
  const expected = await written(PROMPT, { maxNewTokens: 20 });
  const response = await server.post("/v1/completions", { model: "tiny", prompt: PROMPT, ...greedy });
  expect(response.status).toBe(200);
  const { choices, usage } = await json(response);
  expect(choices).toEqual([{ index: 0, text: expected.text, logprobs: null, finish_reason: expected.finish }]);
  const prompt = (await library()).encode(PROMPT).length;
  expect(usage).toMatchObject({
    prompt_tokens: prompt,
    completion_tokens: expected.ids.length,
    total_tokens: prompt + expected.ids.length,
  });
});

test("texts that are written together are those written alone, whenever each comes", async () => {
  const beginning = "Returns the number of elements in the vector, also referred to as its length. # Examples";
  const prompts = Array.from({ length: 16 }, (_, i) => [PROMPT, `${beginning} ${i % 3}`, "Once", `${beginning} let v`][i % 4] ?? "");
  const options = (i: number) => ({ max_tokens: 5 + ((i * 7) % 40), temperature: i % 3 === 2 ? 0.9 : 0, seed: i });
  const texts = await Promise.all(
    prompts.map(async (prompt, i) => {
      await new Promise((resolve) => setTimeout(resolve, i * 15));
      const { choices } = await json(await server.post("/v1/completions", { prompt, ...options(i) }));
      return choices[0]?.text;
    }),
  );
  for (const [i, prompt] of prompts.entries()) {
    const { max_tokens: maxNewTokens, temperature, seed } = options(i);
    expect(texts[i], `${i}`).toBe((await written(prompt, { maxNewTokens, temperature, seed })).text);
  }
  expect(await server.metric("diffattn_reused_prompt_tokens_total")).toBeGreaterThan(50);
});

test("what prompts begin with in common is computed once, and told", async () => {
  const system = `The following is about vectors, ${"which have elements, ".repeat(12)}`;
  const ask = async (end: string): Promise<number> =>
    (await json(await server.post("/v1/completions", { prompt: system + end, ...greedy, max_tokens: 2 }))).usage.prompt_tokens_details
      .cached_tokens;
  expect(await ask("one")).toBe(0);
  const shared = (await library()).encode(system).length - 2;
  expect(await ask("two")).toBeGreaterThanOrEqual(shared);
});

test("a conversation, whole and in pieces", async () => {
  const messages = [
    { role: "developer", content: "Be brief." },
    {
      role: "user",
      content: [
        { type: "text", text: "What is " },
        { type: "text", text: "a Vec?" },
      ],
    },
  ];
  const expected = await written("system: Be brief.\nuser: What is a Vec?\nassistant:", { maxNewTokens: 12 });
  const body = { model: "tiny", messages, temperature: 0, max_completion_tokens: 12 };
  const { choices } = await json(await server.post("/v1/chat/completions", body));
  expect(choices[0]).toMatchObject({ message: { role: "assistant", content: expected.text }, finish_reason: expected.finish });

  const response = await server.post("/v1/chat/completions", { ...body, stream: true, stream_options: { include_usage: true } });
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  const events = (await response.text()).split("\n\n").filter((event) => event !== "");
  expect(events.pop()).toBe("data: [DONE]");
  type Chunk = { choices: { delta: { role?: string; content?: string }; finish_reason: string | null }[]; usage: Answer["usage"] | null };
  const chunks = events.map((event) => JSON.parse(event.replace(/^data: /, "")) as Chunk);
  const last = chunks.pop();
  expect(last?.choices).toEqual([]);
  expect(last?.usage?.completion_tokens).toBe(expected.ids.length);
  expect(chunks[0]?.choices[0]?.delta).toEqual({ role: "assistant", content: "" });
  expect(chunks.map(({ choices: [choice] }) => choice?.delta.content ?? "").join("")).toBe(expected.text);
  expect(chunks.map(({ choices: [choice] }) => choice?.finish_reason).filter(Boolean)).toEqual([expected.finish]);
});

test("several texts, stop strings, ids as a prompt, biases", async () => {
  const sampled = { temperature: 1, seed: 5, max_tokens: 8 };
  const { choices, usage } = await json(await server.post("/v1/completions", { prompt: [PROMPT, "Once"], n: 2, ...sampled }));
  const texts = [];
  for (const prompt of [PROMPT, "Once"])
    for (const seed of [5, 6]) texts.push((await written(prompt, { temperature: 1, seed, maxNewTokens: 8 })).text);
  expect(choices.map(({ text, index }) => [text, index])).toEqual(texts.map((text, index) => [text, index]));
  const model = await library();
  expect(usage.prompt_tokens).toBe(model.encode(PROMPT).length + model.encode("Once").length);

  const whole = (await written(PROMPT, { maxNewTokens: 20 })).text;
  const stop = whole.slice(10, 13);
  const stopped = await json(await server.post("/v1/completions", { prompt: PROMPT, ...greedy, stop }));
  expect(stopped.choices[0]).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), finish_reason: "stop" });

  const [id = 0] = model.encode(" x");
  const biased = { prompt: model.encode(PROMPT), ...greedy, max_tokens: 3, logit_bias: { [id]: 100 } };
  expect((await json(await server.post("/v1/completions", biased))).choices[0]?.text).toBe(model.decode([id, id, id]));
});

test("how probable tokens are", async () => {
  const body = { ...greedy, max_tokens: 3 };
  const completion = await json(await server.post("/v1/completions", { prompt: PROMPT, logprobs: 2, ...body }));
  const told = (completion.choices[0] as unknown as { logprobs: Record<string, unknown[]> }).logprobs;
  const expected: number[] = [];
  for await (const token of (await library()).generate(PROMPT, { maxNewTokens: 3, logprobs: 2 })) expected.push(token.logprob ?? NaN);
  expect(told["token_logprobs"]).toEqual(expected);
  expect(told["tokens"]?.join("")).toBe(completion.choices[0]?.text);
  expect(Object.keys(told["top_logprobs"]?.[0] as object)).toHaveLength(2);
  expect(told["text_offset"]?.[0]).toBe(0);
  const chat = await json(
    await server.post("/v1/chat/completions", { messages: [{ role: "user", content: "Hi" }], logprobs: true, top_logprobs: 3, ...body }),
  );
  const { content } = (
    chat.choices[0] as unknown as { logprobs: { content: { token: string; bytes: number[]; top_logprobs: unknown[] }[] } }
  ).logprobs;
  expect(content.map(({ token }) => token).join("")).toBe(chat.choices[0]?.message.content);
  for (const { token, bytes, top_logprobs: top } of content) {
    expect(Buffer.from(bytes).toString()).toBe(token);
    expect(top).toHaveLength(3);
  }
});

test("vectors, as numbers and in base64; token ids; models", async () => {
  const { data } = await json(await server.post("/v1/embeddings", { model: "tiny", input: ["one", "another one"] }));
  const { data: expected } = await (await library()).embed(["one", "another one"]);
  expect(data.flatMap(({ embedding }) => embedding as number[])).toEqual([...(expected as Float32Array)]);
  const coded = await json(await server.post("/v1/embeddings", { input: ["one", "another one"], encoding_format: "base64" }));
  const bytes = Buffer.concat(coded.data.map(({ embedding }) => Buffer.from(embedding as string, "base64")));
  expect(bytes.equals(Buffer.from(expected.buffer))).toBe(true);
  const { tokens } = await json(await server.post("/tokenize", { content: PROMPT }));
  expect(tokens).toEqual((await library()).encode(PROMPT, { addSpecialTokens: false }));
  expect(await (await server.get("/v1/models")).json()).toMatchObject({ object: "list", data: [{ id: "tiny", object: "model" }] });
  expect(await (await server.get("/v1/models/tiny")).json()).toMatchObject({ id: "tiny" });
  expect((await server.get("/v1/models/other")).status).toBe(404);
  expect(await (await server.get("/health")).json()).toEqual({ status: "ok", running: 0, waiting: 0 });
  expect(await (await server.get("/metrics")).text()).toMatch(/^# TYPE diffattn_first_token_seconds histogram$/m);
});

const USER = [{ role: "user", content: "Hi" }];
const chat = (more: object): [string, unknown] => ["/v1/chat/completions", { messages: USER, ...more }];
const complete = (more: object): [string, unknown] => ["/v1/completions", { prompt: "a", ...more }];

describe("refusals name what is wrong", () => {
  test.each<[what: string, request: [path: string, body: unknown], status: number, param: string | null]>([
    ["no JSON", ["/v1/completions", "{"], 400, null],
    ["no object", ["/v1/completions", "[]"], 400, null],
    ["nested deeply", ["/v1/completions", `{"prompt": ${"[".repeat(100_000)}${"]".repeat(100_000)}}`], 400, "prompt"],
    ["no prompt", ["/v1/completions", {}], 400, "prompt"],
    ["an empty prompt", complete({ prompt: [] }), 400, "prompt"],
    ["ids that are none", complete({ prompt: [1.5] }), 400, "prompt"],
    ["an id past the vocabulary", complete({ prompt: [4096] }), 400, null],
    ["another model", complete({ model: "other" }), 404, "model"],
    ["a number as a text", complete({ temperature: "hot" }), 400, "temperature"],
    ["a number too high", complete({ temperature: 1e300 }), 400, "temperature"],
    ["no tokens", complete({ max_tokens: 0 }), 400, "max_tokens"],
    ["a prompt past the context", complete({ prompt: Array.from({ length: 513 }, () => 5) }), 400, "prompt"],
    ["more texts than there are places", complete({ n: 81 }), 400, "n"],
    ["many prompts", complete({ prompt: Array.from({ length: 100 }, () => "a") }), 400, "n"],
    ["an empty stop", complete({ stop: "" }), 400, "stop"],
    ["a bias too high", complete({ logit_bias: { 1: 1000 } }), 400, "logit_bias"],
    ["a bias of no id", complete({ logit_bias: { __proto__x: 1 } }), 400, "logit_bias"],
    ["an unknown parameter", complete({ temprature: 1 }), 400, "temprature"],
    ["a suffix", complete({ suffix: "end" }), 400, "suffix"],
    ["stream options without a stream", complete({ stream_options: {} }), 400, "stream_options"],
    ["no messages", chat({ messages: [] }), 400, "messages"],
    ["a role that is none", chat({ messages: [{ role: "nobody", content: "x" }] }), 400, "messages[0].role"],
    ["a tool's message", chat({ messages: [{ role: "tool", content: "x" }] }), 400, "messages[0].role"],
    ["a picture", chat({ messages: [{ role: "user", content: [{ type: "image_url" }] }] }), 400, "messages[0].content[0].type"],
    ["tools", chat({ tools: [{ type: "function" }] }), 400, "tools"],
    ["JSON alone", chat({ response_format: { type: "json_object" } }), 400, "response_format"],
    ["audio", chat({ modalities: ["audio"] }), 400, "modalities"],
    ["top_logprobs alone", chat({ top_logprobs: 1 }), 400, "top_logprobs"],
    ["a text of nothing", ["/v1/embeddings", { input: "" }], 400, "input"],
    ["a format", ["/v1/embeddings", { input: "a", encoding_format: "hex" }], 400, "encoding_format"],
    ["no content", ["/tokenize", {}], 400, "content"],
    ["no route", ["/v1/images", {}], 404, null],
    ["a body that is too large", ["/v1/completions", { prompt: "x".repeat(1_200_000) }], 413, null],
  ])("%s", async (_, [path, body], status, param) => {
    const response = await server.post(path, body);
    const { error } = await json(response);
    expect({ status: response.status, param: error.param }).toEqual({ status, param });
    expect(error.message.length).toBeGreaterThan(5);
    expect(error.type).toBe("invalid_request_error");
  });

  test("another type of body", async () => {
    expect((await server.post("/v1/completions", "{}", { headers: { "content-type": "text/plain" } })).status).toBe(415);
  });

  test("what is empty of what is not done is no reason", async () => {
    const [path, body] = chat({ tools: [], tool_choice: "none", response_format: { type: "text" }, max_tokens: 1, user: "me" });
    expect((await server.post(path, body)).status).toBe(200);
  });
});

test("a closed connection frees its places, written or waiting", async () => {
  const small = await serving(chatModel(), ["--parallel", "1", "--queue", "20"]);
  const load = async (): Promise<{ running: number; waiting: number }> => (await (await small.get("/health")).json()) as never;
  // Twenty texts, one at a time: they are there as long as the test needs them.
  const endless = { prompt: "Once", max_tokens: 500, temperature: 0, logit_bias: { 0: -100 } };
  const stop = new AbortController();
  const first = await small.post("/v1/completions", { ...endless, n: 20, stream: true }, { signal: stop.signal });
  const waiting = new AbortController();
  const second = small.post("/v1/completions", endless, { signal: waiting.signal }).catch(() => "gone");
  await until(async () => (await load()).waiting === 20);
  const third = await small.post("/v1/completions", { prompt: "a", max_tokens: 1 });
  expect(third.status).toBe(429);
  expect((await json(third)).error).toMatchObject({ type: "rate_limit_error", code: "queue_full" });
  expect(third.headers.get("retry-after")).toBe("1");
  waiting.abort();
  expect(await second).toBe("gone");
  await until(async () => (await load()).waiting < 20);
  expect((await load()).running).toBe(1);
  stop.abort();
  await first.text().catch(() => "");
  await until(async () => (await load()).running === 0);
  expect(await load()).toMatchObject({ running: 0, waiting: 0 });
  expect((await small.post("/v1/completions", { prompt: "a", max_tokens: 1 })).status).toBe(200);
  expect(await small.metric("diffattn_requests_closed_total")).toBe(2);
});

test("keys, and pages of other origins", async () => {
  const locked = await serving(chatModel(), ["--cors", "http://page.example"], { DIFFATTN_API_KEY: "secret" });
  const ask = (headers: Record<string, string>): Promise<Response> => fetch(`${locked.address}/v1/models`, { headers });
  expect((await ask({})).status).toBe(401);
  const wrong = await ask({ authorization: "Bearer secrets" });
  expect(wrong.status).toBe(401);
  expect((await json(wrong)).error).toMatchObject({ type: "authentication_error", code: "invalid_api_key" });
  expect((await ask({ authorization: "Bearer secret" })).status).toBe(200);
  expect((await locked.get("/health")).status).toBe(200);
  const page = await ask({ authorization: "Bearer secret", origin: "http://page.example" });
  expect([page.status, page.headers.get("access-control-allow-origin")]).toEqual([200, "http://page.example"]);
  expect((await ask({ authorization: "Bearer secret", origin: "http://other.example" })).status).toBe(403);
  const asked = { method: "OPTIONS", headers: { origin: "http://page.example", "access-control-request-method": "POST" } };
  expect((await fetch(`${locked.address}/v1/completions`, asked)).status).toBe(204);
  // Without the option no page may.
  expect((await fetch(`${server.address}/v1/models`, { headers: { origin: "http://page.example" } })).status).toBe(403);
});

test("bytes that are no HTTP, and connections that break off, end nothing", async () => {
  const { hostname, port } = new URL(server.address);
  for (const bytes of [
    "\0\0\0",
    "GET / HTTP/9.9\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n{",
    "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n{",
    `GET /${"x".repeat(100_000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
  ]) {
    const socket = connect(Number(port), hostname);
    socket.on("error", () => undefined);
    await new Promise<void>((resolve) => {
      socket.on("connect", () => socket.write(bytes));
      setTimeout(() => resolve(), 50);
    });
    socket.destroy();
  }
  expect((await server.post("/v1/completions", { prompt: "a", max_tokens: 1 })).status).toBe(200);
});

describe("the end", () => {
  test.each([
    ["SIGTERM", 0],
    ["SIGINT", 130],
  ] as const)("%s finishes what is being written", async (signal, code) => {
    const own = await serving(chatModel());
    const response = await own.post("/v1/completions", {
      prompt: PROMPT,
      max_tokens: 300,
      temperature: 0,
      stream: true,
      logit_bias: { 0: -100 },
    });
    own.child.kill(signal);
    const events = (await response.text()).split("\n\n").filter((event) => event !== "");
    expect(events.at(-1)).toBe("data: [DONE]");
    expect(events.length).toBeGreaterThan(100);
    expect(await own.ended).toBe(code);
    await expect(own.get("/health")).rejects.toThrow();
  });

  test("what takes longer than it may is broken off", async () => {
    const own = await serving(chatModel(), ["--grace", "0"]);
    const response = await own.post("/v1/completions", {
      prompt: PROMPT,
      max_tokens: 400,
      temperature: 0,
      stream: true,
      logit_bias: { 0: -100 },
    });
    own.child.kill("SIGTERM");
    const text = await response.text().catch(() => "broken off");
    expect(text.includes("[DONE]")).toBe(false);
    expect(await own.ended).toBe(0);
  });

  test("a port that another has, and no template", async () => {
    const { port } = new URL(server.address);
    await expect(serving(chatModel(), ["--port", port])).rejects.toThrow(/another program has that port/);
    const plain = await serving((await import("../cli/run.js")).trained);
    const { error } = await json(await plain.post(...chat({})));
    expect(error.message).toMatch(/chat template/);
  });
});
