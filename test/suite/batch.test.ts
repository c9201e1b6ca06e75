// Continuous batching: texts that join and leave are each what `generate` gives alone, and none
// holds up, ends or changes another.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BatchOptions, LanguageModel } from "../../packages/diffattn/src/models/types.js";
import { api, backend, isas, models, refused } from "./backends.js";
import { path, sentence, writtenIds } from "./language-models.js";

const load = (): Promise<LanguageModel> => models.LanguageModel.load(path("diffllama_gqa"), { tokenizer: null });
const SHARED = Array.from({ length: 70 }, (_, i) => (i * 37) % 97);
const prompt = (i: number): number[] => [...SHARED.slice(0, [70, 40, 0, 69][i % 4]), (i * 11) % 97, i % 97];

beforeAll(async () => {
  await api.init({ backend, isa: isas[0] });
});
afterAll(() => api.dispose());

async function gathered(tokens: AsyncIterable<{ id: number; reusedTokens: number; promptTokens: number }>) {
  const ids: number[] = [];
  let [reused, length] = [0, 0];
  for await (const token of tokens) {
    ids.push(token.id);
    [reused, length] = [token.reusedTokens, token.promptTokens];
  }
  return { ids, reused, length };
}

describe("texts that come and go", () => {
  test.each<BatchOptions>([{}, { size: 3, stepTokens: 16 }, { size: 1, prefixBytes: 0 }, { size: 4, window: 20 }, { deterministic: true }])(
    "%o",
    async (options) => {
      using model = await load();
      using batch = await model.createBatch(options);
      const { window, deterministic } = options;
      let reused = 0;
      await Promise.all(
        Array.from({ length: 12 }, async (_, i) => {
          await new Promise((resolve) => setTimeout(resolve, i * 3));
          const sampling = { temperature: i % 2, seed: i, maxNewTokens: 3 + ((i * 5) % 17), stopIds: [] };
          const got = await gathered(batch.generate(prompt(i), sampling));
          expect(got.ids, `text ${i}`).toEqual(await writtenIds(model, prompt(i), { ...sampling, window, deterministic }));
          expect(got.length).toBe(prompt(i).length);
          reused += got.reused;
        }),
      );
      if (window === undefined && options.prefixBytes !== 0) expect(reused).toBeGreaterThan(150);
      expect([batch.running, batch.waiting]).toEqual([0, 0]);
    },
  );

  test("n texts of several prompts, with their log-probabilities beside one that asks for none", async () => {
    using model = await load();
    using batch = await model.createBatch();
    const options = { n: 2, temperature: 1, seed: 9, maxNewTokens: 5, stopIds: [], logprobs: 2 };
    const prompts = [prompt(0), prompt(2)];
    const other = gathered(batch.generate(prompt(1), { maxNewTokens: 9, stopIds: [] }));
    const got: unknown[] = [];
    for await (const { promptTokens, reusedTokens, ...token } of batch.generate(prompts, options))
      got.push([promptTokens > 0, reusedTokens >= 0, token]);
    const expected: unknown[] = [];
    for await (const token of model.generate(prompts, options)) expected.push([true, true, token]);
    const order = (a: unknown, b: unknown): number => {
      const [first, second] = [a, b].map((one) => (one as [boolean, boolean, { index: number }])[2].index);
      return (first ?? 0) - (second ?? 0);
    };
    expect(got.sort(order)).toEqual(expected.sort(order));
    expect((await other).ids).toEqual(await writtenIds(model, prompt(1), { maxNewTokens: 9, stopIds: [] }));
  });
});

test("a text that is left, or aborted, frees its place and is told no more", async () => {
  using model = await load();
  using batch = await model.createBatch({ size: 1 });
  const endless = { maxNewTokens: 100_000, stopIds: [] };
  const stop = new AbortController();
  const first = batch.generate(prompt(0), { ...endless, signal: stop.signal });
  await first.next();
  const second = batch.generate(prompt(1), endless);
  const waits = second.next();
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect([batch.running, batch.waiting]).toEqual([1, 1]);
  stop.abort();
  expect(await sentence(() => first.next())).toMatch(/^ABORTED /);
  expect((await waits).done).toBe(false);
  await second.return();
  expect(batch.waiting).toBe(0);
  // One that waits leaves as well.
  const third = batch.generate(prompt(2), endless);
  await third.next();
  const gone = new AbortController();
  const fourth = batch.generate(prompt(3), { ...endless, signal: gone.signal });
  const never = refused(() => fourth.next());
  await new Promise((resolve) => setTimeout(resolve, 20));
  gone.abort();
  expect((await never).code).toBe("ABORTED");
  expect(batch.waiting).toBe(0);
  await third.return();
  expect((await gathered(batch.generate(prompt(0), { maxNewTokens: 3, stopIds: [] }))).ids).toHaveLength(3);
});

test("a text of no new tokens ends at once", async () => {
  using model = await load();
  using batch = await model.createBatch();
  expect((await gathered(batch.generate(prompt(0), { maxNewTokens: 0 }))).ids).toEqual([]);
});

test("what is wrong with one text is told to its caller alone", async () => {
  using model = await load();
  using batch = await model.createBatch();
  const other = gathered(batch.generate(prompt(1), { maxNewTokens: 30, stopIds: [] }));
  const ask = (given: unknown, options?: object): Promise<string> => sentence(() => batch.generate(given as number[], options).next());
  expect(await ask([1000])).toMatch(/^OPTION prompt: /);
  expect(await ask([])).toMatch(/^OPTION prompt: /);
  expect(await ask([1], { temperature: -1 })).toMatch(/^OPTION temperature: /);
  expect(await ask([1], { window: 3 })).toMatch(/^OPTION options: /);
  expect(await ask([1], { stopIds: ["1"] })).toMatch(/^OPTION stopIds/);
  const vocab = Number(model.config["vocab_size"]);
  const banned = Object.fromEntries(Array.from({ length: vocab }, (_, id) => [id, -Infinity]));
  expect(await ask([1], { logitBias: banned })).toMatch(/^OPTION logits: /);
  expect((await other).ids).toEqual(await writtenIds(model, prompt(1), { maxNewTokens: 30, stopIds: [] }));
  expect(await sentence(() => model.createBatch({ size: 0 }))).toMatch(/^OPTION size: /);
  expect(await sentence(() => model.createBatch({ stepTokens: 1.5 }))).toMatch(/^OPTION stepTokens: /);
  expect(await sentence(() => model.createBatch({ prefixBytes: -1 }))).toMatch(/^OPTION prefixBytes: /);
});

test("a batch that is disposed of ends its texts", async () => {
  using model = await load();
  const batch = await model.createBatch({ size: 1 });
  const running = batch.generate(prompt(0), { maxNewTokens: 100_000, stopIds: [] });
  await running.next();
  const waits = refused(() => batch.generate(prompt(1)).next());
  batch.dispose();
  batch.dispose();
  const ends = async (): Promise<void> => {
    while (!(await running.next()).done);
  };
  expect((await refused(ends)).code).toBe("DISPOSED");
  expect((await waits).code).toBe("DISPOSED");
  expect((await refused(() => batch.generate(prompt(0)))).code).toBe("DISPOSED");
});
