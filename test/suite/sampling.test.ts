// How tokens are chosen and told, through the public API: options beside the same in plain float64,
// several texts of one prompt, log-probabilities; and texts as vectors.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import fc from "fast-check";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { api, backend, isas, models } from "./backends.js";
import { within } from "./compare.js";
import { path, sentence } from "./language-models.js";

const VOCABULARY = 97;
let model: modelTypes.LanguageModel;
beforeAll(async () => {
  await api.init({ backend, isa: isas[0] });
  model = await models.LanguageModel.load(path("diffllama_gqa"), { tokenizer: null });
});
afterAll(() => {
  model.dispose();
  api.dispose();
});

async function all(prompt: readonly number[], options: modelTypes.GenerateOptions): Promise<modelTypes.GeneratedToken[]> {
  const tokens: modelTypes.GeneratedToken[] = [];
  for await (const token of model.generate(prompt, { stopIds: [], deterministic: true, ...options })) tokens.push(token);
  return tokens;
}

const logitsAfter = async (ids: readonly number[]): Promise<number[]> =>
  Array.from((await model.forward(ids, { logits: "last", deterministic: true })).data as Float32Array);

const prompt = [3, 14, 15, 92, 65];

/** The log-softmax in float64. */
function logSoftmax(logits: readonly number[]): number[] {
  const highest = Math.max(...logits);
  const log = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
  return logits.map((logit) => logit - highest - log);
}

describe("log-probabilities", () => {
  test("of each token and of the best, from raw logits, whatever the options", async () => {
    const options = { maxNewTokens: 6, logprobs: 4, temperature: 1.7, topK: 20, repetitionPenalty: 1.4, presencePenalty: 0.5, seed: 5 };
    const tokens = await all(prompt, options);
    const plain = await all(prompt, { ...options, logprobs: undefined });
    expect(tokens.map(({ id, text, index, finish }) => ({ id, text, index, finish }))).toEqual(plain);
    const ids = [...prompt];
    for (const { id, logprob, topLogprobs } of tokens) {
      const expected = logSoftmax(await logitsAfter(ids));
      within([logprob ?? NaN], [expected[id] ?? NaN], () => 1e-6);
      const best = expected.map((_, at) => at).sort((a, b) => (expected[b] ?? 0) - (expected[a] ?? 0) || a - b);
      expect(topLogprobs?.map(({ id }) => id)).toEqual(best.slice(0, 4));
      within(
        (topLogprobs ?? []).map(({ logprob }) => logprob),
        best.slice(0, 4).map((at) => expected[at] ?? NaN),
        () => 1e-6,
      );
      ids.push(id);
    }
  });

  test("none of the best, and all of them", async () => {
    const [none] = await all(prompt, { maxNewTokens: 1, logprobs: 0 });
    expect(none?.topLogprobs).toEqual([]);
    const [every] = await all(prompt, { maxNewTokens: 1, logprobs: 2 ** 20 });
    expect(every?.topLogprobs?.length).toBe(VOCABULARY);
    expect(every?.topLogprobs?.[0]).toEqual({ id: every?.id, logprob: every?.logprob });
    const sum = every?.topLogprobs?.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
    expect(Math.abs((sum ?? 0) - 1)).toBeLessThan(1e-5);
    const [one] = await all(prompt, { maxNewTokens: 1 });
    expect(Object.keys(one ?? {})).toEqual(["id", "text", "index", "finish"]);
  });
});

describe("options", () => {
  test("bias and penalties without chance: the highest of plain scores", async () => {
    const number = (most: number): fc.Arbitrary<number> => fc.integer({ min: -1000, max: 1000 }).map((x) => (x / 1000) * most);
    const given = fc.record({
      prompt: fc.array(fc.nat(VOCABULARY - 1), { minLength: 1, maxLength: 6 }),
      presencePenalty: number(2),
      frequencyPenalty: number(2),
      repetitionPenalty: fc.integer({ min: 500, max: 2000 }).map((x) => x / 1000),
      bias: fc.dictionary(fc.nat(VOCABULARY - 1).map(String), number(6), { maxKeys: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(given, async ({ prompt, bias, ...penalties }) => {
        const tokens = await all(prompt, { ...penalties, logitBias: bias, maxNewTokens: 5 });
        const ids = [...prompt];
        for (const { id } of tokens) {
          const written = ids.slice(prompt.length);
          const scores = (await logitsAfter(ids)).map((logit, at) => {
            let score = logit + (bias[at] ?? 0);
            if (ids.includes(at)) score = score < 0 ? score * penalties.repetitionPenalty : score / penalties.repetitionPenalty;
            const count = written.filter((other) => other === at).length;
            return score - count * penalties.frequencyPenalty - (count > 0 ? penalties.presencePenalty : 0);
          });
          // (Two that are equal but for rounding may change places.)
          expect(Math.max(...scores) - (scores[id] ?? NaN)).toBeLessThan(1e-9);
          ids.push(id);
        }
      }),
      { numRuns: 25 },
    );
  });

  test("minP: tokens at least so probable, and all of those come", async () => {
    const logprobs = logSoftmax(await logitsAfter(prompt));
    const most = Math.max(...logprobs);
    for (const minP of [0.2, 0.5, 1]) {
      const kept = logprobs.flatMap((logprob, id) => (Math.exp(logprob - most) >= minP ? id : []));
      const seen = new Set<number>();
      const tokens = await all(prompt, { minP, temperature: 1, maxNewTokens: 1, n: 128 });
      for (const { id } of tokens) seen.add(id);
      for (const id of seen) expect(kept).toContain(id);
      if (minP === 1) expect([...seen]).toEqual(kept);
    }
  });

  test("a bias of −∞ bans", async () => {
    const [first] = await all(prompt, { maxNewTokens: 1 });
    const tokens = await all(prompt, { maxNewTokens: 20, logitBias: { [first?.id ?? 0]: -Infinity } });
    expect(tokens.map(({ id }) => id)).not.toContain(first?.id);
    const ban = Object.fromEntries(Array.from({ length: VOCABULARY }, (_, id) => [id, -Infinity]));
    expect(await sentence(() => all(prompt, { logitBias: ban }))).toContain("OPTION logits: ");
    // The next call is right.
    expect(await all(prompt, { maxNewTokens: 1 })).toEqual([{ ...first, finish: "length" }]);
  });

  test("what is no option", async () => {
    const wrong: [modelTypes.GenerateOptions, string][] = [
      [{ minP: 1.5 }, "minP: "],
      [{ minP: "a" as never }, "minP: "],
      [{ presencePenalty: NaN }, "presencePenalty: "],
      [{ frequencyPenalty: Infinity }, "frequencyPenalty: "],
      [{ logitBias: { [VOCABULARY]: 1 } }, "logitBias: "],
      [{ logitBias: { 3: NaN } }, "logitBias: "],
      [{ logitBias: { "03": 1 } as never }, "logitBias: "],
      [{ logitBias: { 3: "a" as never } }, "logitBias[3]: "],
      [{ logitBias: [1] as never }, "logitBias: "],
      [{ n: 0 }, "n: "],
      [{ n: 1e9 }, "n: "],
      [{ n: 1.5 }, "n: "],
      [{ logprobs: -1 }, "logprobs: "],
      [{ logprobs: true as never }, "logprobs: "],
    ];
    for (const [options, said] of wrong) expect(await sentence(() => all(prompt, options))).toContain(`OPTION ${said}`);
  });
});

describe("n texts of a prompt", () => {
  test("each is what its seed gives alone", async () => {
    const options = { temperature: 1.4, maxNewTokens: 8, seed: 11 };
    const together = await all(prompt, { ...options, n: 3 });
    for (const index of [0, 1, 2]) {
      const alone = await all(prompt, { ...options, seed: options.seed + index });
      expect(together.filter((token) => token.index === index)).toEqual(alone.map((token) => ({ ...token, index })));
    }
    const prompts = [prompt, [1, 2]];
    const tokens: modelTypes.GeneratedToken[] = [];
    for await (const token of model.generate(prompts, { ...options, n: 2, stopIds: [], deterministic: true })) tokens.push(token);
    const [, third] = [await all(prompt, options), await all([1, 2], options)];
    expect(tokens.filter(({ index }) => index === 2)).toEqual(third.map((token) => ({ ...token, index: 2 })));
    expect(new Set(tokens.map(({ index }) => index))).toEqual(new Set([0, 1, 2, 3]));
  });

  test("not with a cache, which is of one text", async () => {
    const cache = await model.createCache();
    expect(await sentence(() => all(prompt, { n: 2, cache }))).toContain("OPTION cache: ");
    cache.dispose();
  });
});

describe("embed", () => {
  const texts = [[3, 14, 15], [92], Array.from({ length: 300 }, (_, at) => (at * 7) % VOCABULARY)];

  test.each(["mean", "last"] as const)("%s of the last hidden states, in float64", async (pooling) => {
    const plain = await model.embed(texts, { pooling, normalize: false, deterministic: true });
    const unit = await model.embed(texts, { pooling, deterministic: true });
    const size = plain.shape[1] ?? 0;
    expect(plain.shape).toEqual([texts.length, size]);
    for (const [at, ids] of texts.entries()) {
      const { hiddenStates } = await model.forward(ids, { hiddenStates: true, deterministic: true });
      if (!hiddenStates) throw new Error("no hidden states");
      const states = Array.from(hiddenStates.data as Float32Array).slice(-ids.length * size);
      const rows = ids.map((_, row) => states.slice(row * size, (row + 1) * size)).slice(pooling === "last" ? -1 : 0);
      const mean = Array.from({ length: size }, (_, c) => rows.reduce((sum, row) => sum + (row[c] ?? 0), 0) / rows.length);
      const length = Math.hypot(...mean);
      const of = (y: typeof plain): number[] => Array.from((y.data as Float32Array).subarray(at * size, (at + 1) * size));
      within(of(plain), mean, () => 1e-6 * length);
      within(
        of(unit),
        mean.map((x) => x / length),
        () => 1e-6,
      );
    }
    // A text's vector is the same alone.
    const alone = await model.embed(texts[2] ?? [], { pooling, deterministic: true });
    expect(alone.data).toEqual((unit.data as Float32Array).slice(2 * size));
  });

  test("what is no text, and options", async () => {
    for (const [given, options, said] of [
      [[], {}, "OPTION texts: expected 1 id or more"],
      [[[1], []], {}, "OPTION texts[1]: "],
      [[[1], [VOCABULARY]], {}, "OPTION texts: "],
      [[[-1]], {}, "OPTION texts: "],
      ["a", {}, "UNAVAILABLE tokenizer: "],
      [[1], { pooling: "max" as never }, "OPTION pooling: "],
      [[1], { normalize: 1 as never }, "OPTION normalize: "],
      [[1], { more: 1 } as never, "OPTION options: "],
    ] as const)
      expect(await sentence(() => model.embed(given as never, options))).toContain(said);
    const controller = new AbortController();
    const running = model.embed(
      Array.from({ length: 64 }, () => texts[2] ?? []),
      { signal: controller.signal },
    );
    controller.abort();
    expect(await sentence(() => running)).toContain("ABORTED");
    expect((await model.embed([1])).shape[0]).toBe(1);
  });
});
