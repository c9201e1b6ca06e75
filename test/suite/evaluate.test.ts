// Loss of texts and needles in them through the public API, on every backend: losses beside those of
// float64 logits, shares of attention beside whole maps, what is refused.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { drawOf, needleOf, questionOf } from "../../packages/diffattn/src/models/needle-text.js";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa } from "./backends.js";
import { changed, file, path, sentence } from "./language-models.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const expected = readFixture(file("llama/expected.safetensors"));
const [B = 0, L = 0] = stored(expected, "input_ids").shape;
const ids = integers(stored(expected, "input_ids"));
const VOCAB = 59;

/** The summed loss of the labels of one text by its rows of logits, in float64. */
function lossBy(logits: ArrayLike<number>, text: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i + 1 < text.length; i++) {
    const row = Array.from({ length: VOCAB }, (_, v) => logits[i * VOCAB + v] ?? NaN);
    sum += Math.log(row.reduce((all, x) => all + Math.exp(x), 0)) - (row[text[i + 1] ?? -1] ?? NaN);
  }
  return sum;
}

/** A file of tokens of two bytes. */
function fileOf(tokens: readonly number[], starts: readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(32 + 2 * tokens.length + 8 * starts.length);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("DATK"));
  view.setUint32(4, 1, true);
  view.setUint32(8, 2, true);
  view.setBigUint64(16, BigInt(tokens.length), true);
  view.setBigUint64(24, BigInt(starts.length), true);
  tokens.forEach((id, i) => view.setUint16(32 + 2 * i, id, true));
  starts.forEach((start, i) => view.setBigUint64(32 + 2 * tokens.length + 8 * i, BigInt(start), true));
  return bytes;
}

/** One letter, one id: some of the vocabulary for each. */
const letters: modelTypes.Tokenizer = {
  encode: (text) => Array.from(text, (letter) => (letter.codePointAt(0) ?? 0) % VOCAB),
  decode: (list) => Array.from(list, (id) => String.fromCodePoint(0x100 + id)).join(""),
};

/** What a loss of float32 logits may be off by. */
const NEAR = 2e-6;

onEachIsa(() => {
  describe("the loss of a text", () => {
    let model: modelTypes.LanguageModel;
    beforeAll(async () => {
      model = await models.LanguageModel.load(path("llama"), { tokenizer: letters });
    });
    afterAll(() => model.dispose());

    test("is that of float64 logits", async () => {
      const want = float64(stored(expected, "expected.logits"));
      let sum = 0;
      for (let b = 0; b < B; b++) sum += lossBy(want.subarray(b * L * VOCAB, (b + 1) * L * VOCAB), ids.slice(b * L, (b + 1) * L));
      const found = await models.evaluateText(model, ids, { context: L });
      expect(Math.abs(found.loss - sum / (B * (L - 1)))).toBeLessThan(NEAR);
      expect(found.perplexity).toBe(Math.exp(found.loss));
      expect(found).toMatchObject({ counted: B * (L - 1), tokens: B * L, context: L });
      expect(found.tokensPerSecond).toBeCloseTo(found.counted / found.seconds, 6);
    });

    test("windows are texts of their own, whatever goes through the model beside them", async () => {
      for (const context of [2, 5, 17]) {
        let [sum, counted] = [0, 0];
        for (let at = 0; at + 1 < ids.length; at += context) {
          const text = ids.slice(at, at + context);
          if (text.length < 2) continue;
          sum += lossBy((await model.forward(text)).data, text);
          counted += text.length - 1;
        }
        const found = await models.evaluateText(model, Int32Array.from(ids), { context });
        expect(found.counted).toBe(counted);
        expect(Math.abs(found.loss - sum / counted)).toBeLessThan(1e-12 * 64);
      }
    });

    test("a text by its tokenizer, as far as a limit", async () => {
      const text = "The quick brown fox jumps over the lazy dog. ".repeat(5);
      const all = await models.evaluateText(model, text);
      expect(all).toMatchObject({ tokens: text.length, context: 64 });
      const encoded = letters.encode(text);
      expect((await models.evaluateText(model, encoded)).loss).toBe(all.loss);
      const some = await models.evaluateText(model, text, { limit: 50 });
      expect(some.loss).toBe((await models.evaluateText(model, encoded.slice(0, 50))).loss);
      expect(some.tokens).toBe(50);
    });

    test("a file of tokens: bytes, a Blob, a path; its documents are texts of their own", async () => {
      const folder = mkdtempSync(join(tmpdir(), "diffattn-evaluate-"));
      try {
        const whole = fileOf(ids, [0]);
        const { loss } = await models.evaluateText(model, ids, { context: 9 });
        writeFileSync(join(folder, "whole.tokens"), whole);
        for (const tokens of [whole, whole.buffer, new Blob([whole]), join(folder, "whole.tokens")])
          expect((await models.evaluateText(model, { tokens }, { context: 9 })).loss).toBe(loss);
        const starts = [0, 3, 4, 11, 20, ids.length - 1];
        const found = await models.evaluateText(model, { tokens: fileOf(ids, starts) }, { context: 8 });
        let [sum, counted] = [0, 0];
        const cuts = [...new Set([...starts, ...ids.flatMap((_, i) => (i % 8 === 0 ? [i] : [])), ids.length])].sort((a, b) => a - b);
        for (const [i, from] of cuts.entries()) {
          const text = ids.slice(from, cuts[i + 1]);
          if (text.length < 2) continue;
          sum += lossBy((await model.forward(text)).data, text);
          counted += text.length - 1;
        }
        expect(found.counted).toBe(counted);
        expect(Math.abs(found.loss - sum / counted)).toBeLessThan(1e-12 * 64);
      } finally {
        rmSync(folder, { recursive: true });
      }
    });

    test("progress, and an end", async () => {
      const told: { done: number; total: number }[] = [];
      await models.evaluateText(model, "a text that goes on ".repeat(100), { onProgress: (at) => told.push(at) });
      expect(told.length).toBeGreaterThan(1);
      expect(told.at(-1)).toEqual({ done: 2000, total: 2000 });
      expect(told.every(({ done }, i) => done >= (told[i - 1]?.done ?? 0))).toBe(true);
      const ended = new AbortController();
      const running = models.evaluateText(model, "abc ".repeat(1000), { signal: ended.signal, onProgress: () => ended.abort() });
      expect(await sentence(() => running)).toMatch(/^ABORTED /);
      expect(await sentence(() => models.evaluateText(model, ids, { signal: AbortSignal.abort() }))).toMatch(/^ABORTED /);
      const thrown = new Error("enough");
      await expect(
        models.evaluateText(model, ids, {
          onProgress: () => {
            throw thrown;
          },
        }),
      ).rejects.toBe(thrown);
    });

    test("what is refused is one sentence", async () => {
      const said = (data: unknown, options?: object): Promise<string> =>
        sentence(() => models.evaluateText(model, data as string, options));
      expect(await said(ids, { context: 65 })).toBe(
        "OPTION context: expected at most 64 tokens (max_position_embeddings of the model), got 65",
      );
      expect(await said(ids, { context: 1 })).toBe("OPTION context: expected a whole number from 2, got 1");
      expect(await said(ids, { limit: 0.5 })).toBe("OPTION limit: expected a whole number from 2, got 0.5");
      expect(await said(ids, { windows: 1 })).toMatch(/^OPTION options: expected only context, limit, /);
      expect(await said(ids, { onProgress: 1 })).toBe("OPTION onProgress: expected a function, got 1");
      expect(await said([1])).toBe("OPTION data: expected a text of 2 tokens or more, got 1 tokens");
      expect(await said("")).toBe("OPTION data: expected a text of 2 tokens or more, got 0 tokens");
      expect(await said([1, VOCAB])).toBe("OPTION data: expected ids from 0 to 58, got 59");
      expect(await said(5)).toMatch(/^DTYPE data: expected a text, token ids .*, got 5$/);
      expect(await said({ tokens: new Uint8Array(40) })).toBe(
        "FILE source: expected a file of tokens, which begins with DATK, got another",
      );
      expect(await said({ tokens: fileOf(ids, [1]) })).toMatch(/^FILE source: expected documents that begin at token 0 .*, got one at 1$/);
      expect(await said({ tokens: 5 })).toMatch(/^OPTION data\.tokens: /);
      expect(await sentence(() => models.evaluateText({} as never, ids))).toMatch(
        /^OPTION model: expected a LanguageModel, got an object$/,
      );
      using silent = await models.LanguageModel.load(path("llama"));
      expect(await sentence(() => models.evaluateText(silent, "a text"))).toMatch(/^UNAVAILABLE tokenizer: /);
      expect((await models.evaluateText(silent, ids)).tokens).toBe(B * L);
      silent.dispose();
      expect(await sentence(() => models.evaluateText(silent, ids))).toMatch(/^DISPOSED /);
    });
  });

  describe("a needle", () => {
    const LENGTH = 96;
    /** Of prompts of that length, what the needle says: written once the prompt has ended. */
    const finding = (index: number): modelTypes.Tokenizer => ({
      encode: (text) => letters.encode(text),
      decode: (list) => (list.length > LENGTH ? ` ${drawOf(3, LENGTH, index).number}` : ""),
    });
    const load = (name: string, tokenizer = letters): Promise<modelTypes.LanguageModel> =>
      models.LanguageModel.load(changed({ max_position_embeddings: 128 }, name), { tokenizer });

    /** What falls on a needle by whole maps, head by head: each map, and the difference. */
    async function byWholeMaps(model: modelTypes.LanguageModel, layers: number, depth: number): Promise<number[][]> {
      const draw = drawOf(3, LENGTH, 0);
      const text = "Aaa. Bbb. Ccc. Ddd. Eee. Fff. Ggg. ";
      // The running text is of whole sentences, the last of which ends before the question.
      const room = LENGTH - needleOf(draw).length - questionOf(draw).length;
      const parts = text
        .trim()
        .split(" ")
        .map((sentence) => ` ${sentence}`);
      let running = "";
      for (let at = Math.floor(draw.start * parts.length); running.length < room; at++) running += parts[at % parts.length] ?? "";
      running = running.slice(running.length - room);
      const cut = depth === 0 ? 0 : room;
      const prompt = letters.encode(running.slice(0, cut) + needleOf(draw) + running.slice(cut) + questionOf(draw));
      expect(prompt).toHaveLength(LENGTH);
      const heads: number[][] = [];
      for (let layer = 0; layer < layers; layer++) {
        const { map1, map2, maps, diff } = await model.maps(prompt, layer);
        const all = [...(maps ?? [map1, map2]), diff].filter((map) => map !== undefined);
        for (let head = 0; head < (diff.shape[1] ?? 0); head++)
          heads.push(
            all.map(({ data }) => {
              const row: number[] = Array.from(data.subarray(((head + 1) * LENGTH - 1) * LENGTH, (head + 1) * LENGTH * LENGTH), Math.abs);
              const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);
              return sum(row.slice(cut, cut + needleOf(draw).length)) / sum(row);
            }),
          );
      }
      return heads;
    }

    const meanOf = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    const sdOf = (values: readonly number[]): number => Math.sqrt(meanOf(values.map((x) => (x - meanOf(values)) ** 2)));

    test.each([
      ["llama", 1],
      ["diffllama_gqa", 2],
    ] as const)("%s: attention is that of whole maps, over heads and layers", async (name, terms) => {
      using model = await load(name);
      const options = { lengths: [LENGTH], depths: [1, 0], draws: 1, seed: 3, text: "Aaa. Bbb. Ccc. Ddd. Eee. Fff. Ggg." };
      const { cells, draws, seed } = await models.evaluateNeedle(model, options);
      expect({ draws, seed, depths: cells.map(({ depth }) => depth) }).toEqual({ draws: 1, seed: 3, depths: [1, 0] });
      for (const { attention, depth, length } of cells) {
        expect(length).toBe(LENGTH);
        const heads = await byWholeMaps(model, Number(model.config["num_hidden_layers"]), depth);
        const found = attention && (terms === 1 ? [attention.plain] : [...attention.terms, attention.difference]);
        expect(found).toHaveLength(terms === 1 ? 1 : 3);
        expect(attention?.prompts).toBe(1);
        expect(attention?.even).toBe(needleOf(drawOf(3, LENGTH, 0)).length / LENGTH);
        expect(terms === 1 ? [attention?.terms, attention?.difference] : attention?.plain).toEqual(terms === 1 ? [[], null] : null);
        found?.forEach((spread, i) => {
          const values = heads.map((head) => head[i] ?? NaN);
          expect(spread?.heads).toBe(heads.length);
          expect(spread?.mean).toBeCloseTo(meanOf(values), 9);
          expect(spread?.sd).toBeCloseTo(sdOf(values), 9);
        });
      }
    });

    test("plain heads beside differential ones are told apart", async () => {
      using model = await load("diffattn_llama/share_third");
      const { cells } = await models.evaluateNeedle(model, { lengths: [LENGTH], depths: [0.5], draws: 2 });
      const attention = cells[0]?.attention;
      // (Two of six heads in each of two layers.)
      expect([attention?.plain?.heads, attention?.terms.map(({ heads }) => heads), attention?.difference?.heads]).toEqual([8, [4, 4], 4]);
    });

    test("a number that is written counts, and only that", async () => {
      using model = await load("llama", finding(0));
      const options = { lengths: [LENGTH], depths: [0, 0.5, 1], seed: 3, attention: 0 };
      const one = await models.evaluateNeedle(model, { ...options, draws: 1 });
      expect(one.cells.map(({ right, accuracy, attention }) => [right, accuracy, attention])).toEqual([
        [1, 1, null],
        [1, 1, null],
        [1, 1, null],
      ]);
      const four = await models.evaluateNeedle(model, { ...options, draws: 4 });
      expect(four.cells.map(({ right, draws, accuracy }) => [right, draws, accuracy])).toEqual(
        Array.from({ length: 3 }, () => [1, 4, 0.25]),
      );
    });

    test("a layer that has no maps is none", async () => {
      using model = await models.LanguageModel.load(path("phi4flash"), {
        tokenizer: { encode: (text) => letters.encode(text), decode: (list) => letters.decode(list) },
      });
      const options = { lengths: [80, 120], depths: [0.5], draws: 1 };
      const { cells } = await models.evaluateNeedle(model, options);
      expect(cells.map(({ attention }) => (attention?.difference?.heads ?? 0) > 0)).toEqual([true, true]);
    });

    test("the same seed gives the same, whichever else is asked for; ids may be the running text", async () => {
      using model = await load("diffllama_gqa");
      const ask = async (options: Partial<modelTypes.NeedleOptions>): Promise<readonly modelTypes.NeedleCell[]> =>
        (await models.evaluateNeedle(model, { lengths: [LENGTH], draws: 2, ...options })).cells;
      const all = await ask({ lengths: [80, LENGTH] });
      expect(all).toHaveLength(10);
      expect((await ask({ depths: [0.5] }))[0]).toEqual(all[7]);
      expect(await ask({ seed: 0 })).toEqual(all.slice(5));
      expect(await ask({ seed: 1 })).not.toEqual(all.slice(5));
      const tokens = fileOf(ids, [0]);
      expect(await ask({ text: ids })).toEqual(await ask({ text: { tokens } }));
    });

    test("progress, and an end", async () => {
      using model = await load("llama");
      const told: { done: number; total: number }[] = [];
      await models.evaluateNeedle(model, { lengths: [80, LENGTH], depths: [0, 1], draws: 2, onProgress: (at) => told.push(at) });
      expect(told).toEqual(Array.from({ length: 8 }, (_, i) => ({ done: i + 1, total: 8 })));
      const ended = new AbortController();
      const running = models.evaluateNeedle(model, { lengths: [LENGTH], signal: ended.signal, onProgress: () => ended.abort() });
      expect(await sentence(() => running)).toMatch(/^ABORTED /);
    });

    test("what is refused is one sentence", async () => {
      using model = await load("llama");
      const said = (options: object): Promise<string> => sentence(() => models.evaluateNeedle(model, { lengths: [LENGTH], ...options }));
      expect(await said({ lengths: [LENGTH, 129] })).toBe(
        "OPTION lengths: expected at most 128 tokens (max_position_embeddings of the model), got 129",
      );
      expect(await said({ lengths: [12] })).toMatch(/^OPTION lengths: expected \d\d tokens or more, as needle and question have, got 12$/);
      expect(await said({ lengths: [] })).toBe("OPTION lengths: expected an array of numbers of tokens, got []");
      expect(await said({ lengths: undefined })).toBe("OPTION lengths: expected an array of numbers of tokens, got undefined");
      expect(await said({ lengths: [0.5] })).toBe("OPTION lengths[0]: expected numbers of tokens, got 0.5");
      expect(await said({ depths: [0, 1.5] })).toBe("OPTION depths[1]: expected numbers from 0 to 1, got 1.5");
      expect(await said({ draws: 0 })).toBe("OPTION draws: expected a whole number from 1, got 0");
      expect(await said({ seed: -1 })).toBe("OPTION seed: expected a whole number from 0, got -1");
      expect(await said({ text: " \n" })).toBe("OPTION text: expected a text of 1 token or more, got none");
      expect(await said({ text: [1, 2, VOCAB] })).toMatch(/^OPTION prompt.*: expected ids from 0 to 58, got 59/);
      expect(await said({ depth: 1 })).toMatch(/^OPTION options: expected only lengths, depths, .* got "depth"/);
      using silent = await models.LanguageModel.load(path("llama"));
      expect(await sentence(() => models.evaluateNeedle(silent, { lengths: [64] }))).toMatch(/^UNAVAILABLE tokenizer: /);
    });
  });
});
