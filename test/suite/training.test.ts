// Training through the public API, on every backend: datasets, steps that learn, adapters, teachers,
// what is frozen; checkpoints that load as models and are gone on from to the same bits; what is
// refused.

import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/training/types.js";
import { models, onEachIsa, training } from "./backends.js";
import { file, path, sentence } from "./language-models.js";
import { bytesIn, foldersOf, steps, told } from "./trainers.js";

const folder = foldersOf("training");

const config = (name: string): Record<string, unknown> =>
  JSON.parse(new TextDecoder().decode(file(`${name}/config.json`))) as Record<string, unknown>;

/** Ids in which the next one follows from the one before: there is something to learn. */
function chain(length: number, vocabulary: number): number[] {
  const ids = [1];
  for (let i = 1; i < length; i++) ids.push((17 * (ids[i - 1] ?? 0) + 3) % vocabulary);
  return ids;
}

/** A model of a few weights, of any of the three kinds. */
const small = (model_type: string, more: object = {}): types.FreshModel => ({
  config: {
    model_type,
    vocab_size: 61,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    ...more,
  },
  seed: 3,
});

const ids = { ids: chain(6000, 61) };

const options = (more: Partial<types.TrainerOptions> = {}): types.TrainerOptions => ({
  model: small("diffllama"),
  data: ids,
  dataset: { context: 32, seed: 5 },
  steps: 24,
  batch: 8,
  optimizer: { lr: 0.02 },
  schedule: { warmup: 2 },
  ...more,
});

onEachIsa(() => {
  describe("datasets", () => {
    test("of ids, of files of tokens, of texts", async () => {
      using one = await training.createDataset({ ids: [[1, 2, 3], [], [4, 5]] }, { context: 2 });
      expect([one.tokens, one.documents, one.context]).toEqual([5, 2, 2]);
      const bytes = await one.bytes();
      expect(bytes.length).toBe(32 + 5 * 2 + 2 * 8);
      const out = join(folder(), "some.tokens");
      writeFileSync(out, bytes);
      using read = await training.createDataset(out);
      expect([read.tokens, read.documents]).toEqual([5, 2]);
      using wide = await training.createDataset({ ids: Int32Array.of(1, 70_000) });
      expect((await wide.bytes()).length).toBe(32 + 2 * 4 + 8);
      const tokenizer = { encode: (text: string) => Array.from(text, (letter) => letter.charCodeAt(0) % 61), decode: () => "" };
      using texts = await training.createDataset({ text: ["abc|de", "f"] }, { tokenizer, separator: "|", endId: 0 });
      expect([texts.tokens, texts.documents]).toEqual([9, 3]);
      const text = join(folder(), "some.txt");
      writeFileSync(text, "abc\n".repeat(40_000));
      using long = await training.createDataset({ files: [text, text] }, { tokenizer });
      expect([long.tokens, long.documents]).toEqual([320_000, 2]);
    });

    test("what is none", async () => {
      const bad = async (source: unknown, more?: types.DatasetOptions) =>
        sentence(() => training.createDataset(source as types.DatasetSource, more));
      expect(await bad(Uint8Array.of(68, 65, 84, 75, 0, 0))).toMatch(/^FILE data|^FILE source/);
      const broken = await (await training.createDataset({ ids: [1, 2, 3] })).bytes();
      broken[16] = 9;
      expect(await bad(broken)).toMatch(/9 tokens/);
      expect(await bad({ text: "no tokenizer" })).toMatch(/^UNAVAILABLE tokenizer/);
      expect(await bad({ ids: [1, -2] })).toMatch(/ids/);
      expect(await bad({ text: [5] })).toMatch(/^OPTION text\[0\]/);
      expect(await bad({})).toMatch(/^OPTION/);
      expect(await bad(ids, { context: 1 })).toMatch(/^OPTION context/);
      expect(await bad(ids, { documents: "both" as "mask" })).toMatch(/^OPTION documents/);
      expect(await bad(Uint8Array.of(0xff, 0xfe))).toMatch(/UTF-8/);
    });
  });

  describe("a trainer", () => {
    test.each([
      ["a DIFF Llama", small("diffllama")],
      ["a Llama", small("llama")],
      [
        "V2",
        small("diffattn_llama", {
          num_key_value_heads: 2,
          diff_attention: {
            version: 1,
            kind: "v2",
            heads: [
              [0, 1, 2, 3],
              [0, 1, 2, 3],
            ],
            order: "pairs",
            lambda: "sigmoid",
          },
        }),
      ],
    ])("%s learns", async (_, model) => {
      using trainer = await training.Trainer.create(options({ model, steps: 60, evalEvery: 12 }));
      expect(trainer.windows + trainer.evalWindows).toBe(Math.floor(6000 / 32));
      const before = await trainer.evaluate();
      expect(Math.abs((before ?? 0) - Math.log(61))).toBeLessThan(0.2);
      const made = await steps(trainer);
      expect(made.length).toBe(60);
      expect(made[11]?.evalLoss).toBeDefined();
      expect(made[59]?.evalLoss).toBeLessThan((before ?? 0) - 2);
      expect(made[59]?.tokens).toBe(60 * 8 * 32);
      expect(await trainer.advance()).toBeUndefined();
      expect(trainer.history).toEqual(made);
      // It is a model as any other, and knows what comes next.
      const trained = await trainer.model();
      const prompt = chain(20, 61);
      let next = -1;
      for await (const token of trained.generate(prompt, { maxNewTokens: 1 })) next = token.id;
      expect(next).toBe(chain(21, 61)[20]);
    });

    test("checkpoints load, and are gone on from to the same bits", async () => {
      const whole = folder();
      using all = await training.Trainer.create(options({ out: whole, saveEvery: 8, keep: 1 }));
      const expected = await steps(all);
      expect(expected[7]?.saved).toBe("step-000008");
      expect(readdirSync(whole).sort()).toEqual(["latest", "step-000024"]);

      // Micro-batches of 256 tokens, too, and another order of files.
      const out = folder();
      const first = await training.Trainer.create(options({ out, saveEvery: 5 }));
      await steps(first, 12);
      first.dispose();
      using second = await training.Trainer.create(options({ out, resume: true }));
      expect(second.step).toBe(10);
      const rest = await steps(second);
      expect(told(second.history)).toEqual(told(expected));
      expect(rest.length).toBe(14);
      const name = await second.save();
      expect(name).toBe("step-000024");
      for (const of of ["model.safetensors", "optimizer.safetensors"])
        expect(bytesIn(join(out, name), of) === bytesIn(join(whole, name), of), of).toBe(true);

      using loaded = await models.LanguageModel.load(join(out, name));
      const [y, same] = [await loaded.forward(ids.ids.slice(0, 40)), await (await second.model()).forward(ids.ids.slice(0, 40))];
      expect(y.data).toEqual(same.data);
    });

    test("accumulated micro-batches of 256 tokens are one batch", async () => {
      using one = await training.Trainer.create(options({ steps: 3, batch: 16 }));
      using two = await training.Trainer.create(options({ steps: 3, batch: 8, accumulate: 2 }));
      const [a, b] = [await steps(one), await steps(two)];
      expect(b.map(({ gradNorm }) => gradNorm)).toEqual(a.map(({ gradNorm }) => gradNorm));
      const out = folder();
      await one.save(join(out, "one"));
      await two.save(join(out, "two"));
      expect(
        bytesIn(join(out, "one", "step-000003"), "model.safetensors") === bytesIn(join(out, "two", "step-000003"), "model.safetensors"),
      ).toBe(true);
    });

    test("units give the same bits however a step is cut, and are kept with a checkpoint", async () => {
      const unit = 256;
      using one = await training.Trainer.create(options({ steps: 3, batch: 16, unit }));
      using two = await training.Trainer.create(options({ steps: 3, batch: 8, accumulate: 2, unit }));
      const [a, b] = [await steps(one), await steps(two)];
      expect(told(b)).toEqual(told(a));
      const out = folder();
      await one.save(join(out, "one"));
      await two.save(join(out, "two"));
      for (const of of ["model.safetensors", "optimizer.safetensors"])
        expect(bytesIn(join(out, "one", "step-000003"), of) === bytesIn(join(out, "two", "step-000003"), of), of).toBe(true);
      const resume = join(out, "one", "step-000003");
      await expect(training.Trainer.create(options({ steps: 3, batch: 16, resume }))).rejects.toThrow(/unit: expected null, got 256/);
      await expect(training.Trainer.create(options({ batch: 8, unit: 192 }))).rejects.toThrow(/unit: expected tokens in whole windows/);
      await expect(training.Trainer.create(options({ unit: 0.5 }))).rejects.toThrow(/unit: expected a whole number/);
    });

    test("adapters over a frozen base follow a teacher, and load as such", async () => {
      const out = folder();
      const base = path("diffattn_llama/v2_mirror");
      const vocabulary = config("diffattn_llama/v2_mirror")["vocab_size"] as number;
      const given = options({
        model: base,
        data: { ids: chain(3000, vocabulary) },
        dataset: { context: 32 },
        teacher: path("llama"),
        adapter: { rank: 4, alpha: 8 },
        out,
        steps: 6,
      });
      using trainer = await training.Trainer.create(given);
      expect(trainer.parameters.every(({ name }) => /lora_|lambda/.test(name))).toBe(true);
      const made = await steps(trainer);
      expect(made[0]?.crossEntropy).toBeGreaterThan(0);
      // λ is ½ at first, and then what it learns.
      expect(made[0]?.lambda).toEqual([0.5, 0.5]);
      expect(made.at(-1)?.lambda.every((lambda) => lambda !== null && lambda !== 0.5 && Math.abs(lambda - 0.5) < 0.1)).toBe(true);
      // It is exactly what it was converted from, at first.
      expect(Math.abs(made[0]?.divergence ?? 1)).toBeLessThan(1e-4);
      expect(made[5]?.loss).toBeLessThan(made[0]?.loss ?? 0);
      const name = await trainer.save();
      expect(readdirSync(join(out, name)).sort()).toEqual([
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "training.json",
      ]);
      using loaded = await models.LanguageModel.load(base, { adapter: join(out, name) });
      const prompt = chain(30, vocabulary);
      const [y, same] = [await loaded.forward(prompt), await (await trainer.model()).forward(prompt)];
      const most = Math.max(...same.data.map(Math.abs));
      y.data.forEach((value, i) => expect(Math.abs(value - (same.data[i] ?? 0))).toBeLessThan(1e-4 * most));
      using again = await training.Trainer.create({ ...given, resume: join(out, name) });
      expect(again.step).toBe(6);
      expect(await again.advance()).toBeUndefined();
    });

    test("DEX, zeros at first, is learned while its λ is annealed; beside adapters, too", async () => {
      const out = folder();
      const base = path("diffattn_llama/dex_zero");
      const given = options({ model: base, data: { ids: chain(3000, 59) }, steps: 10, lambdaAnneal: 4, out });
      using trainer = await training.Trainer.create(given);
      const made = await steps(trainer, 3);
      // What heads meet has λ_init in it, then what is learned alone.
      expect(made.every(({ lambda }) => lambda.length === 2 && lambda.every((value) => value !== null && value !== 0))).toBe(true);
      const name = await trainer.save();
      const after = await trainer.advance();
      using again = await training.Trainer.create({ ...given, resume: join(out, name) });
      const same = await again.advance();
      expect(told([same as types.TrainStep])).toEqual(told([after as types.TrainStep]));
      await steps(again);
      using loaded = await models.LanguageModel.load(join(out, await again.save()));
      const prompt = chain(30, 59);
      const [y, moved] = [await loaded.forward(prompt), await (await again.model()).forward(prompt)];
      expect(y.data).toEqual(moved.data);
      const into = folder();
      using thin = await training.Trainer.create({ ...given, adapter: { rank: 2 }, teacher: path("llama"), out: into });
      expect(thin.parameters.some(({ name }) => name.endsWith("dex.lambda_learn"))).toBe(true);
      await steps(thin);
      using adapted = await models.LanguageModel.load(base, { adapter: join(into, await thin.save()) });
      const [z, own] = [await adapted.forward(prompt), await (await thin.model()).forward(prompt)];
      const most = Math.max(...own.data.map(Math.abs));
      z.data.forEach((value, i) => expect(Math.abs(value - (own.data[i] ?? 0))).toBeLessThan(1e-4 * most));
    });

    test("Motif, whose MLPs have PolyNorm, learns", async () => {
      using trainer = await training.Trainer.create(
        options({ model: path("motif_v1"), data: { ids: chain(3000, 97) }, steps: 6, optimizer: { lr: 2e-3 } }),
      );
      expect(trainer.parameters.some(({ name }) => name.endsWith("act_fn.weight"))).toBe(true);
      const made = await steps(trainer);
      expect(made[5]?.loss).toBeLessThan(made[0]?.loss ?? 0);
    });

    test("what is frozen stays", async () => {
      const out = folder();
      const freeze: types.OptimizerOptions["freeze"] = ["embed_tokens", ["*.q_proj.weight", [0, 16]]];
      using trainer = await training.Trainer.create(
        options({
          model: path("diffllama_gqa"),
          data: { ids: chain(3000, 60) },
          steps: 2,
          out,
          optimizer: { lr: 0.1, freeze, lrScale: [["v_proj", 0]] },
        }),
      );
      expect(trainer.parameters.some(({ name }) => name.includes("embed_tokens"))).toBe(false);
      await steps(trainer);
      using before = await models.openSafetensors(`${path("diffllama_gqa")}/model.safetensors`);
      using after = await models.openSafetensors(join(out, await trainer.save(), "model.safetensors"));
      const moved = async (name: string) => {
        const [was, is] = [await before.readFloat32(name), await after.readFloat32(name)];
        return Array.from(was.data, (value, i) => value !== is.data[i]);
      };
      const all = after.names;
      const named = (part: string): string => all.find((name) => name.includes(part)) ?? "";
      expect((await moved(named("embed_tokens"))).some(Boolean)).toBe(false);
      expect((await moved(named("v_proj.weight"))).some(Boolean)).toBe(false);
      expect((await moved(named("o_proj.weight"))).every(Boolean)).toBe(true);
      const q = await moved(named("q_proj.weight"));
      const [rows = 1] = after.tensors.find(({ name }) => name === named("q_proj.weight"))?.shape ?? [];
      const kept = (16 * q.length) / rows;
      expect(q.slice(0, kept).some(Boolean)).toBe(false);
      expect(q.slice(kept).every(Boolean)).toBe(true);
    });

    test("an abort ends a step, which then counts for nothing", async () => {
      const stop = new AbortController();
      using trainer = await training.Trainer.create(options({ signal: stop.signal }));
      await steps(trainer, 2);
      const under = trainer.advance();
      stop.abort();
      expect(await sentence(() => under)).toMatch(/^ABORTED/);
      expect(trainer.step).toBe(2);
    });

    test("a step that was made stays made, whatever becomes of what follows it", async () => {
      const stop = new AbortController();
      const out = { write: () => stop.abort() };
      using trainer = await training.Trainer.create(options({ signal: stop.signal, evalEvery: 2, saveEvery: 1, out }));
      await steps(trainer, 1);
      expect(await sentence(() => trainer.advance())).toMatch(/^ABORTED/);
      expect([trainer.step, trainer.history.length]).toEqual([1, 1]);
      const full = { write: () => Promise.reject(new Error("no room")) };
      using other = await training.Trainer.create(options({ saveEvery: 2, out: full }));
      await steps(other, 1);
      await expect(other.advance()).rejects.toThrow("no room");
      expect([other.step, other.history.map(({ step, saved }) => [step, saved])]).toEqual([
        2,
        [
          [1, undefined],
          [2, undefined],
        ],
      ]);
    });

    test("divergence is told, and moves nothing", async () => {
      using trainer = await training.Trainer.create(options({ optimizer: { lr: 1e30, maxGradNorm: null }, schedule: { warmup: 0 } }));
      const made = await steps(trainer);
      const last = made.at(-1);
      expect(last?.diverged).toBe(true);
      expect(made.length).toBeLessThan(24);
      expect(trainer.step).toBe(made.length - 1);
    });

    test("what is refused, by its name", async () => {
      const out = folder();
      using trainer = await training.Trainer.create(options({ steps: 2, out }));
      await steps(trainer, 1);
      await trainer.save();
      const bad = async (more: Partial<types.TrainerOptions>) => sentence(() => training.Trainer.create(options(more)));
      expect(await bad({ steps: 3, out, resume: true })).toMatch(/^FILE training.json: steps/);
      expect(await bad({ steps: 2, out, resume: true, data: { ids: chain(5000, 61) } })).toMatch(/^FILE training.json: data/);
      expect(await bad({ steps: 2, out, resume: true, dataset: { context: 16 } })).toMatch(/^FILE training.json: windows/);
      expect(await bad({ steps: 0 })).toMatch(/^OPTION steps/);
      expect(await bad({ optimizer: { lr: NaN } })).toMatch(/^OPTION optimizer.lr/);
      expect(await bad({ optimizer: { freeze: ["nothing is called so"] } })).toMatch(/^OPTION freeze/);
      expect(await bad({ optimizer: { freeze: ["*"] } })).toMatch(/^OPTION freeze/);
      expect(await bad({ data: { ids: [1, 2, 3] } })).toMatch(/^OPTION data/);
      expect(await bad({ recompute: "all" as "layers" })).toMatch(/^OPTION recompute/);
      expect(await bad({ model: path("phi4flash") })).toMatch(/OPTION/);
      expect(await bad({ lambdaAnneal: 5 })).toMatch(/^OPTION lambdaAnneal: expected none for a model without DEX, got 5$/);
      expect(await bad({ lambdaAnneal: -1 })).toMatch(/^OPTION lambdaAnneal/);
      expect(await bad({ adapter: { rank: 0 } })).toMatch(/^OPTION adapter.rank/);
      // (Ids are read as they are needed.)
      using wide = await training.Trainer.create(options({ data: { ids: chain(3000, 5000) } }));
      expect(await sentence(() => wide.advance())).toMatch(/^OPTION ids: expected ids below 61/);
      expect(wide.step).toBe(0);
      expect(await bad({ model: { config: { model_type: "diffllama", hidden_size: -1 } } })).toMatch(/^FILE config/);
      expect(await bad({ out: 5 as unknown as string })).toMatch(/^OPTION out/);
      const state = join(out, "step-000001", "training.json");
      const told = JSON.parse(readFileSync(state, "utf8")) as object;
      writeFileSync(state, JSON.stringify({ ...told, history: [{ step: "1" }] }));
      expect(await bad({ steps: 2, out, resume: true })).toMatch(/^FILE training.json: history: expected what was told of steps/);
      // The step is that of the state, whatever is told of steps.
      writeFileSync(state, JSON.stringify({ ...told, history: [] }));
      using again = await training.Trainer.create(options({ steps: 2, out, resume: true }));
      expect([again.step, (await again.advance())?.step]).toEqual([1, 2]);
      trainer.dispose();
      expect(await sentence(() => trainer.advance())).toMatch(/^DISPOSED/);
      expect(existsSync(join(out, "step-000001"))).toBe(true);
    });
  });
});
