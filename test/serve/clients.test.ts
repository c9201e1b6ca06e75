// The clients that people have: OpenAI's own, and Vercel's `ai`. Both want a newer Node than the
// package does.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, streamText } from "ai";
import OpenAI from "openai";
import { beforeAll, expect, test } from "vitest";
import { chatModel, library, type Running, serving, until, written } from "./server.js";

const KEY = "a key";
const PROMPT = "Returns the number of";
const MESSAGES = [{ role: "user" as const, content: "What is a Vec?" }];
const CHAT = "user: What is a Vec?\nassistant:";

let server: Running;
let client: OpenAI;
let provider: ReturnType<typeof createOpenAICompatible>;
beforeAll(async () => {
  server = await serving(chatModel(), ["--api-key", KEY]);
  const baseURL = `${server.address}/v1`;
  client = new OpenAI({ baseURL, apiKey: KEY, maxRetries: 0 });
  provider = createOpenAICompatible({ name: "local", baseURL, apiKey: KEY, includeUsage: true });
});

test("openai: models, completions, vectors", async () => {
  const names: string[] = [];
  for await (const { id } of client.models.list()) names.push(id);
  expect(names).toEqual(["tiny"]);
  const expected = await written(PROMPT, { maxNewTokens: 20 });
  const completion = await client.completions.create({ model: "tiny", prompt: PROMPT, max_tokens: 20, temperature: 0 });
  expect(completion.choices[0]?.text).toBe(expected.text);
  expect(completion.usage?.completion_tokens).toBe(expected.ids.length);
  let text = "";
  const stream = await client.completions.create({ model: "tiny", prompt: PROMPT, max_tokens: 20, temperature: 0, stream: true });
  for await (const { choices } of stream) text += choices[0]?.text ?? "";
  expect(text).toBe(expected.text);
  // (It asks for base64 by itself.)
  const { data } = await client.embeddings.create({ model: "tiny", input: "one" });
  expect(data[0]?.embedding).toEqual([...((await (await library()).embed("one")).data as Float32Array)]);
});

test("openai: chat", async () => {
  const expected = await written(CHAT, { maxNewTokens: 15 });
  const body = { model: "tiny", messages: MESSAGES, max_completion_tokens: 15, temperature: 0 };
  const { choices } = await client.chat.completions.create({ ...body, logprobs: true, top_logprobs: 2 });
  expect(choices[0]?.message.content).toBe(expected.text);
  expect(choices[0]?.logprobs?.content?.length).toBe(expected.ids.length - (expected.finish === "stop" ? 1 : 0));
  const stream = client.chat.completions.stream({ ...body, stream_options: { include_usage: true } });
  expect(await stream.finalContent()).toBe(expected.text);
  expect((await stream.totalUsage()).completion_tokens).toBe(expected.ids.length);
});

test("openai: sixteen at once are what each is alone", async () => {
  const asked = Array.from({ length: 16 }, (_, i) => ({ prompt: `${PROMPT} ${"elements ".repeat(i % 5)}`, max_tokens: 4 + i * 2 }));
  const got = await Promise.all(
    asked.map(async (body, i) => {
      if (i % 2 === 0) return (await client.completions.create({ model: "tiny", temperature: 0, ...body })).choices[0]?.text;
      let text = "";
      for await (const { choices } of await client.completions.create({ model: "tiny", temperature: 0, stream: true, ...body }))
        text += choices[0]?.text ?? "";
      return text;
    }),
  );
  for (const [i, { prompt, max_tokens: maxNewTokens }] of asked.entries())
    expect(got[i]).toBe((await written(prompt, { maxNewTokens })).text);
});

test("openai: an abort frees the place; errors are its own", async () => {
  // (Sixteen texts: they are there as long as the test needs them.)
  const body = { model: "tiny", prompt: "Once", n: 16, max_tokens: 500, temperature: 0, logit_bias: { 0: -100 } };
  const stream = await client.completions.create({ ...body, stream: true });
  let count = 0;
  for await (const chunk of stream) if (chunk.choices.length > 0 && ++count === 3) break;
  const stop = new AbortController();
  const whole = client.completions.create(body, { signal: stop.signal });
  setTimeout(() => stop.abort(), 100);
  await expect(whole).rejects.toThrow(OpenAI.APIUserAbortError);
  await until(async () => ((await (await server.get("/health")).json()) as { running: number }).running === 0);

  await expect(new OpenAI({ baseURL: `${server.address}/v1`, apiKey: "wrong" }).models.list()).rejects.toThrow(OpenAI.AuthenticationError);
  await expect(client.completions.create({ model: "other", prompt: "a" })).rejects.toThrow(OpenAI.NotFoundError);
  const tools = [{ type: "function" as const, function: { name: "f" } }];
  const refused = client.chat.completions.create({ model: "tiny", messages: MESSAGES, tools });
  await expect(refused).rejects.toMatchObject({ status: 400, param: "tools", code: "unsupported_parameter" });
});

test("ai: text, stream, vectors", async () => {
  const expected = await written(CHAT, { maxNewTokens: 15 });
  const asked = { model: provider("tiny"), prompt: "What is a Vec?", maxOutputTokens: 15, temperature: 0, maxRetries: 0 };
  const { text, usage, finishReason } = await generateText(asked);
  expect(text).toBe(expected.text);
  expect(usage.outputTokens).toBe(expected.ids.length);
  expect(finishReason).toBe(expected.finish);
  const stream = streamText(asked);
  let got = "";
  for await (const piece of stream.textStream) got += piece;
  expect(got).toBe(expected.text);
  expect((await stream.usage).outputTokens).toBe(expected.ids.length);
  const completed = await generateText({ ...asked, model: provider.completionModel("tiny"), prompt: PROMPT });
  expect(completed.text.length).toBeGreaterThan(0);
  const { embeddings } = await embedMany({ model: provider.embeddingModel("tiny"), values: ["one", "another one"] });
  expect(embeddings.flat()).toEqual([...((await (await library()).embed(["one", "another one"])).data as Float32Array)]);
});

test("ai: an abort frees the place; a wrong key is refused", async () => {
  const stop = new AbortController();
  const stream = streamText({
    model: provider("tiny"),
    prompt: "Once",
    maxOutputTokens: 400,
    abortSignal: stop.signal,
    onError: () => undefined,
  });
  let count = 0;
  try {
    for await (const piece of stream.textStream) if (piece !== "" && ++count === 3) stop.abort();
  } catch {
    // Whether the reader is told of its own abort is the library's business.
  }
  expect(count).toBeGreaterThanOrEqual(3);
  await until(async () => ((await (await server.get("/health")).json()) as { running: number }).running === 0);
  const wrong = createOpenAICompatible({ name: "local", baseURL: `${server.address}/v1`, apiKey: "wrong" });
  await expect(generateText({ model: wrong("tiny"), prompt: "Hi", maxRetries: 0 })).rejects.toMatchObject({ statusCode: 401 });
});
