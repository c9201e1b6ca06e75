// diff-mlx through the public API, on every backend: where its weights lie and what they are
// called, logits, hidden states and the likeliest ids, caches, maps, what an inspection says, what
// is refused.

import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa } from "./backends.js";
import { sameBits } from "./compare.js";
import { nearFixture, sentence } from "./language-models.js";
import { integers, readFixture, stored } from "./safetensors.js";

const folder = fileURLToPath(new URL("../../test/models/diff_mlx", import.meta.url));
const file = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(join(folder, name)));
const expected = readFixture(file("expected.safetensors"));
const [B = 0, L = 0] = stored(expected, "input_ids").shape;
const ids = integers(stored(expected, "input_ids"));
const greedy = integers(stored(expected, "expected.greedy"));
const VOCAB = 97;

/** The checkpoint with other sizes in its configuration. */
const changed = (entries: object): Record<string, Uint8Array<ArrayBuffer>> => {
  const config = JSON.parse(new TextDecoder().decode(file("config.json"))) as { model: object };
  const text = JSON.stringify({ ...config, model: { ...config.model, ...entries } });
  return { "config.json": new TextEncoder().encode(text), "model.safetensors": file("model.safetensors") };
};

onEachIsa(() => {
  describe("diff-mlx", () => {
    let model: modelTypes.LanguageModel;
    beforeAll(async () => {
      model = await models.LanguageModel.load(folder);
    });
    afterAll(() => model.dispose());

    test("its family and its configuration, under the names of others too", () => {
      expect(model.family).toBe("diff_mlx");
      expect(model.config).toMatchObject({
        model: { n_heads_vanilla: 4 },
        num_attention_heads: 4,
        head_dim: 12,
        hidden_size: 48,
        vocab_size: VOCAB,
        tie_word_embeddings: true,
        eos_token_id: null,
      });
    });

    test("logits and hidden states", async () => {
      const y = await model.forward({ data: Int32Array.from(ids), shape: [B, L] }, { hiddenStates: true });
      expect(y.shape).toEqual([B, L, VOCAB]);
      nearFixture(y, expected);
    });

    test("the likeliest ids, token by token as at once", async () => {
      const prompt = greedy.slice(0, -16);
      const list: number[] = [];
      for await (const { id } of model.generate(prompt, { maxNewTokens: 16 })) list.push(id);
      expect([...prompt, ...list]).toEqual([...greedy]);
      const text = ids.slice(0, L);
      const whole = await model.forward(text);
      const cache = await model.createCache();
      for (let at = 0; at < L; at++) {
        const row = { data: whole.data.slice(at * VOCAB, (at + 1) * VOCAB), dtype: "float32" as const };
        sameBits(await model.forward([text[at] ?? 0], { cache }), row);
      }
    });

    test("maps of every layer", async () => {
      for (let layer = 0; layer < 3; layer++) {
        const { map1, map2, diff } = await model.maps(ids.slice(0, L), layer);
        expect(diff.shape).toEqual([1, 2, L, L]);
        if (!map1 || !map2) throw new Error("two maps");
        for (const map of [map1, map2])
          for (let row = 0; row < 2 * L; row++) {
            const values: number[] = Array.from(map.data.subarray(row * L, (row + 1) * L));
            expect(values.reduce((sum, x) => sum + x, 0)).toBeCloseTo(1, 5);
          }
      }
    });

    test("texts are UNAVAILABLE without a tokenizer", async () => {
      expect(model.tokenizer).toBeNull();
      expect(await sentence(() => model.generate("text").next())).toBe(
        "UNAVAILABLE tokenizer: expected a model with a tokenizer (tokenizer.json, or the option tokenizer), got none",
      );
    });

    test("weights in diff/latest.safetensors, beside those of a plain model", async () => {
      const config = file("config.json");
      const weights = file("model.safetensors");
      const logits = await model.forward([1, 2, 3]);
      const within = mkdtempSync(join(tmpdir(), "diff-mlx-"));
      try {
        mkdirSync(join(within, "diff"));
        mkdirSync(join(within, "vanilla"));
        copyFileSync(join(folder, "config.json"), join(within, "config.json"));
        for (const variant of ["diff", "vanilla"])
          copyFileSync(join(folder, "model.safetensors"), join(within, variant, "latest.safetensors"));
        const sources = [
          within,
          { "config.json": config, "diff/latest.safetensors": weights, "vanilla/latest.safetensors": new Uint8Array(9) },
        ];
        for (const source of sources) {
          using other = await models.LanguageModel.load(source);
          sameBits(await other.forward([1, 2, 3]), logits);
        }
        expect((await models.inspectCheckpoint(within)).architecture).toBe("diff_mlx");
      } finally {
        rmSync(within, { recursive: true });
      }
    });

    test("older names, and the state of an optimizer", async () => {
      const opened = await models.openSafetensors(file("model.safetensors"));
      const tensors: Record<string, modelTypes.StoredTensor> = {};
      for (const name of opened.names) {
        tensors[name.replace("model.", "")] = await opened.read(name);
        tensors[`${name.replace("model.", "opt.")}.m`] = await opened.read(name);
      }
      const weights = (await models.saveSafetensors(tensors)) ?? new Uint8Array();
      const notices: string[] = [];
      const source = { "config.json": file("config.json"), "model.safetensors": weights };
      using older = await models.LanguageModel.load(source, { onNotice: (notice: string) => notices.push(notice) });
      sameBits(await older.forward([1, 2, 3]), await model.forward([1, 2, 3]));
      expect(notices).toEqual(["names of tensors lack the prefix model., as a base model's do: it is read as if it were there"]);
    });

    test("what an inspection says", async () => {
      const found = await models.inspectCheckpoint(folder);
      expect(found).toMatchObject({ architecture: "diff_mlx", plainLayers: [], missing: [], unexpected: [], warnings: [] });
      expect(found.layers).toHaveLength(3);
      expect(found.layers[1]).toMatchObject({
        prefix: "model.blocks.1.attn.",
        depth: 1,
        version: 1,
        pairing: "interleaved",
        numHeads: 2,
        numKvHeads: 2,
        headDim: 12,
        rope: { interleaved: true, theta: 10000 },
        normWeight: true,
      });
      const wrong = await models.inspectCheckpoint(changed({ n_heads_vanilla: 8, dim: 40 }));
      expect(wrong.warnings).toEqual([
        "config.json says model.n_heads_vanilla 8, but q_proj has 4 flat heads",
        "config.json says model.n_heads_vanilla 8, but the tensors have 4",
        "config.json says model.dim 40, but the tensors have 48",
      ]);
    });

    test("what is refused is one sentence", async () => {
      const load = (entries: object): Promise<string> => sentence(() => models.LanguageModel.load(changed(entries)));
      expect(await load({ tie_embeddings: false })).toBe(
        "FILE config.model.tie_embeddings: expected true, as there is no other head, got false",
      );
      expect(await load({ n_layers: 4 })).toBe(
        "FILE weights.model.blocks.3.attn.q_proj.weight: expected a tensor of shape [48, 48], got none",
      );
      expect(await load({ qk_head_dim: 10 })).toMatch(/^FILE weights\.model\.blocks\.0\.attn\.q_proj\.weight: expected a tensor of shape/);
      expect(await sentence(() => models.DiffViT.load(folder))).toMatch(/got the configuration of a model of diff-mlx, a language model: /);
    });
  });
});
