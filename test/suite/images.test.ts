// Training a DIFF ViT on images through the public API, on every backend: steps that learn,
// checkpoints that load as models and are gone on from to the same bits, what is refused; and the
// whole of examples/digits, natively.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/training/types.js";
import * as digits from "../../examples/digits/data.mjs";
import { isas, isNative, models, onEachIsa, training } from "./backends.js";
import { path, sentence } from "./language-models.js";
import { bytesIn, foldersOf, steps, told } from "./trainers.js";

const folder = foldersOf("images");

const data = digits.digitsOf(readFileSync(new URL("../../examples/digits/digits.bin", import.meta.url)));
const whole: types.ImageTrainerOptions = { ...digits.options, data };

/** A short training. */
const options = (more: Partial<types.ImageTrainerOptions> = {}): types.ImageTrainerOptions => ({
  ...whole,
  steps: 60,
  batch: 64,
  optimizer: { lr: 0.01 },
  schedule: { warmup: 0 },
  ...more,
});

onEachIsa((isa) => {
  describe("a trainer of images", () => {
    test("learns", async () => {
      using trainer = await training.Trainer.create(options({ evalEvery: 60 }));
      expect([trainer.windows, trainer.evalWindows]).toEqual([1438, 359]);
      const before = await trainer.measure();
      expect(Math.abs((before?.loss ?? 0) - Math.log(10))).toBeLessThan(0.2);
      const made = await steps(trainer);
      const last = made[59];
      expect(last?.tokens).toBe(60 * 64 * 5);
      expect(last?.lambda.length).toBe(2);
      expect(last?.evalLoss).toBeLessThan((before?.loss ?? 0) - 0.5);
      expect(last?.evalAccuracy).toBeGreaterThan((before?.accuracy ?? 1) + 0.2);
      expect(await trainer.evaluate()).toBe(last?.evalLoss);
      // It is a model as any other.
      const model = await trainer.model();
      let right = 0;
      for (const index of digits.heldOut.slice(0, 50)) {
        const image = { data: data.images.data.slice(index * 64, index * 64 + 64), shape: [1, 1, 8, 8] };
        const [best] = await model.classify(image, { top: 1 });
        if (best?.index === data.labels[index]) right += 1;
      }
      expect(right).toBeGreaterThan(15);
      expect(await sentence(async () => trainer.sample("").next())).toMatch(/^UNAVAILABLE model/);
    });

    test("checkpoints load, and are gone on from to the same bits", async () => {
      const [one, two] = [folder(), folder()];
      using all = await training.Trainer.create(options({ steps: 8, out: one, saveEvery: 8 }));
      const expected = await steps(all);
      const first = await training.Trainer.create(options({ steps: 8, out: two, saveEvery: 3 }));
      await steps(first, 4);
      first.dispose();
      using second = await training.Trainer.create(options({ steps: 8, out: two, resume: true }));
      expect(second.step).toBe(3);
      await steps(second);
      expect(told(second.history)).toEqual(told(expected));
      const name = await second.save();
      for (const of of ["model.safetensors", "optimizer.safetensors"])
        expect(bytesIn(join(two, name), of) === bytesIn(join(one, name), of), of).toBe(true);
      using loaded = await models.DiffViT.load(join(two, name));
      const image = { data: data.images.data.slice(0, 640), shape: [10, 1, 8, 8] };
      const [y, same] = [await loaded.forward(image), await (await second.model()).forward(image)];
      expect(y.data).toEqual(same.data);
      // A checkpoint is where another training begins, too, and a teacher.
      using again = await training.Trainer.create(options({ model: join(two, name), teacher: join(two, name), steps: 1 }));
      const [step] = await steps(again);
      expect(Math.abs(step?.divergence ?? 1)).toBeLessThan(1e-6);
    });

    test("an abort ends a step, which then counts for nothing", async () => {
      const stop = new AbortController();
      using trainer = await training.Trainer.create(options({ batch: 512, signal: stop.signal }));
      const under = trainer.advance();
      stop.abort();
      expect(await sentence(() => under)).toMatch(/^ABORTED/);
      expect(trainer.step).toBe(0);
    });

    test("what is refused, by its name", async () => {
      const bad = async (more: object) => sentence(() => training.Trainer.create(options(more)));
      const { images, labels } = data;
      expect(await bad({ data: { images, labels: labels.slice(1) } })).toMatch(/^SHAPE labels/);
      expect(await bad({ data: { images, labels: labels.map((label) => label + 1) } })).toMatch(/^OPTION labels: expected classes/);
      expect(await bad({ data: { images: { ...images, shape: [1797, 4, 4, 4] }, labels } })).toMatch(/^SHAPE images/);
      expect(await bad({ data: { images: { ...images, shape: [1797, 64] }, labels } })).toMatch(/^SHAPE images/);
      expect(await bad({ data: { images: images.data, labels } })).toMatch(/^DTYPE data.images/);
      expect(await bad({ data: { images, labels: "0123" } })).toMatch(/^DTYPE data.labels/);
      expect(await bad({ data: { images, labels: [0.5] } })).toMatch(/^OPTION data.labels\[0\]/);
      expect(await bad({ dataset: { eval: 1 } })).toMatch(/^OPTION eval/);
      expect(await bad({ dataset: { eval: [1797] } })).toMatch(/^OPTION eval/);
      expect(await bad({ dataset: { eval: [-1] } })).toMatch(/^OPTION dataset.eval\[0\]/);
      expect(await bad({ dataset: { context: 4 } })).toMatch(/^OPTION/);
      expect(await bad({ adapter: true })).toMatch(/^OPTION adapter/);
      expect(await bad({ model: path("diffllama_mha") })).toMatch(/diffllama|config/);
      expect(await bad({ model: { config: { ...digits.config, model_args: { num_heads: 7, embed_dim: 48 } } } })).toMatch(/num_heads/);
    });
  });

  test.runIf(isNative && isa === isas.at(-1))("digits: 97 of 100 of those that it never saw", async () => {
    using trainer = await training.Trainer.create(whole);
    await steps(trainer);
    const measured = await trainer.measure();
    expect(measured?.accuracy).toBeGreaterThanOrEqual(0.97);
  });
});
