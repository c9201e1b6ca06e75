// A Llama made differential, and one with DEX made plain, through the public API, on every backend:
// the bytes of the reference's conversions, logits of the Llama, heads by entropy, what is refused.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const path = (name: string): string => fileURLToPath(new URL(`../../test/models/${name}`, import.meta.url));
const file = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(path(name)));
const llama = path("llama");
const expected = readFixture(file("llama/expected.safetensors"));
const IDS = { data: Int32Array.from(integers(stored(expected, "input_ids"))), shape: stored(expected, "input_ids").shape };

type Options = modelTypes.ConvertModelOptions;

async function filesOf(options: Options): Promise<modelTypes.ModelConversion & { files: Record<string, Uint8Array<ArrayBuffer>> }> {
  const made = await models.convertModel(llama, options);
  if (!made.files) throw new Error("no files");
  return made as Awaited<ReturnType<typeof filesOf>>;
}

/** The tensors of a file, as text by name. */
async function tensorsOf(source: modelTypes.CheckpointSource): Promise<Record<string, string>> {
  using opened = await models.openSafetensors(source);
  const tensors: Record<string, string> = {};
  for (const name of opened.names) {
    const { dtype, shape, data } = await opened.read(name);
    tensors[name] = `${dtype} ${shape} ${Buffer.from(data).toString("base64")}`;
  }
  return tensors;
}

const configOf = (files: Record<string, Uint8Array>): Record<string, unknown> & { diff_attention: Record<string, unknown> } =>
  JSON.parse(new TextDecoder().decode(files["config.json"])) as ReturnType<typeof configOf>;

onEachIsa(() => {
  describe("a Llama made differential", () => {
    test.each([
      ["v2_mirror", { share: 1 }],
      ["v2_mirror", { heads: "all" }],
      ["v2_mirror_lambda_0_3", { heads: "all", lambda: 0.3 }],
      [
        "share_third",
        {
          heads: [
            [1, 4],
            [0, 5],
          ],
        },
      ],
      [
        "share_half",
        {
          heads: [
            [0, 2, 4],
            [3, 4, 5],
          ],
        },
      ],
    ] as const)("%s: the bytes of the reference", async (name, options) => {
      const { files, exact, heads, parameters, added } = await filesOf(options as unknown as Options);
      expect(await tensorsOf(files)).toEqual(await tensorsOf(path(`diffattn_llama/${name}`)));
      const { share, ...conversion } = JSON.parse(new TextDecoder().decode(file(`diffattn_llama/${name}/config.json`)))[
        "diff_attention"
      ] as Record<string, unknown>;
      expect(share === undefined || typeof share === "number").toBe(true);
      expect(configOf(files).diff_attention).toEqual(conversion);
      expect(heads).toEqual(conversion["heads"]);
      expect(exact).toBe(name !== "v2_mirror_lambda_0_3");
      const { parameters: before } = await models.inspectCheckpoint(llama);
      expect([parameters, parameters - added]).toEqual([(await models.inspectCheckpoint(files)).parameters, before]);
    });

    // What needs no reference's random numbers, but for those of λ's vectors, which are ours.
    test.each([
      ["v1_mirror_half", { to: "v1" }],
      ["v1_zero_vectors", { to: "v1", start: "zero" }],
    ] as const)("%s: the bytes of the reference, but for vectors that are random", async (name, options) => {
      const { files, exact, notes } = await filesOf(options);
      expect({ exact, notes }).toEqual({ exact: true, notes: [] });
      const [made, wanted] = [await tensorsOf(files), await tensorsOf(path(`diffattn_llama/${name}`))];
      expect(Object.keys(made)).toEqual(Object.keys(wanted));
      for (const [tensor, bytes] of Object.entries(wanted)) {
        if (/lambda_q/.test(tensor)) expect(made[tensor]?.length).toBe(bytes.length);
        else expect(made[tensor]).toBe(bytes);
      }
      const config = JSON.parse(new TextDecoder().decode(file(`diffattn_llama/${name}/config.json`))) as { diff_attention: unknown };
      expect(configOf(files).diff_attention).toEqual(config.diff_attention);
    });

    test.each([
      ["v2 mirror", {}],
      ["v2 mirror of a share", { share: 1 / 3, heads: "first" }],
      ["v2 mirror of one layer", { heads: "all", layers: [1] }],
      ["v2 mix", { start: "mix", seed: 3 }],
      ["v2 mix, all heads", { start: "mix", heads: "all", lambda: 0.8 }],
      ["v1 mirror", { to: "v1" }],
      ["v1 mirror of one layer", { to: "v1", layers: [0] }],
      ["v1 zero", { to: "v1", start: "zero" }],
      ["v1 mix", { to: "v1", start: "mix" }],
      ["dex", { to: "dex" }],
      ["v2 mirror, λ 0.3", { lambda: 0.3 }],
    ] as [string, Options][])("%s: logits within 2e-6 of the largest, the same 64 tokens", async (name, options) => {
      const { files, exact } = await filesOf(options);
      expect(exact).toBe(!name.endsWith("0.3"));
      const { relative, sameTokens } = await models.compareModels(llama, files, { ids: IDS });
      expect(relative).toBeLessThanOrEqual(2e-6);
      expect(sameTokens).toBe(true);
      const inspection = await models.inspectCheckpoint(files);
      expect({ missing: inspection.missing, unexpected: inspection.unexpected, warnings: inspection.warnings }).toEqual({
        missing: [],
        unexpected: [],
        warnings: [],
      });
    });

    test("random numbers: the same of a seed, others of another", async () => {
      const of = async (seed: number): Promise<string | undefined> =>
        (await tensorsOf((await filesOf({ start: "mix", seed })).files))["model.layers.0.self_attn.q_proj.weight"];
      expect(await of(5)).toBe(await of(5));
      expect(await of(6)).not.toBe(await of(5));
    });

    test("heads by the entropy of their maps", async () => {
      const of = async (share: number): Promise<unknown> => (await filesOf({ heads: "entropy", share, ids: IDS })).heads;
      const { most_entropic_heads: wanted } = expected.options as { most_entropic_heads: Record<string, number[][]> };
      expect(await of(1 / 2)).toEqual(wanted["1/2"]);
      expect(await of(1 / 3)).toEqual(wanted["1/3"]);
    });

    test("diffllama: another model, and it says so", async () => {
      const { files, exact, notes, heads } = await filesOf({ to: "diffllama", seed: 1 });
      expect({ exact, heads: heads.map((list) => list.length) }).toEqual({ exact: false, heads: [6, 6] });
      expect(notes).toEqual([
        "diffllama has a norm, which gives what every head makes the same length: the model computes something else than the Llama until it is trained",
      ]);
      expect(configOf(files)).toMatchObject({ model_type: "diffllama", num_attention_heads: 12, num_key_value_heads: 4, head_dim: 8 });
      const { relative } = await models.compareModels(llama, files, { ids: IDS });
      expect(relative).toBeGreaterThan(0.05);
      expect(relative).toBeLessThan(2);
    });

    test("another element type rounds once, and says so", async () => {
      const { files, exact, notes } = await filesOf({ dtype: "BF16" });
      expect({ exact, notes }).toEqual({ exact: false, notes: ["weights were rounded to BF16"] });
      expect((await models.inspectCheckpoint(files)).dtypes.map(({ dtype }) => dtype)).toEqual(["BF16"]);
      // As it is when what there was is cast first.
      const cast = await models.convertCheckpoint(llama, { dtype: "BF16" });
      const source = { "config.json": file("llama/config.json"), "model.safetensors": cast.file ?? new Uint8Array() };
      const mirrored = await models.convertModel(source, {});
      expect(mirrored.exact).toBe(true);
      expect(await tensorsOf(mirrored.files ?? {})).toEqual(await tensorsOf(files));
    });

    test("a share of all layers is what half is by default", async () => {
      expect((await filesOf({})).heads).toEqual([
        [3, 4, 5],
        [3, 4, 5],
      ]);
      expect((await filesOf({ share: 0.25, layers: [1] })).heads).toEqual([[], [4, 5]]);
    });

    test("what is refused is one sentence, and nothing is written", async () => {
      const of = async (options: Options, source: modelTypes.CheckpointSource = llama): Promise<string> => {
        const { code, message } = await refused(() => models.convertModel(source, options));
        return `${code} ${message}`;
      };
      expect(await of({ to: "v3" as never })).toBe('OPTION to: expected "v2" or "v1" or "dex" or "diffllama", got "v3"');
      expect(await of({ to: "v1", share: 0.5 })).toBe('OPTION heads: expected all heads of a layer or none, with "v1", got some');
      expect(await of({ start: "zero" })).toBe(
        'OPTION start: expected "mirror" or "mix", with "v2" (its λ is σ of something and never 0), got "zero"',
      );
      expect(await of({ to: "dex", lambda: 0.2 })).toBe("OPTION lambda: expected none, with this start, got 0.2");
      expect(await of({ lambda: 1 })).toBe("OPTION lambda: expected a number between 0 and 1, got 1");
      expect(await of({ lambda: NaN })).toBe("OPTION lambda: expected a finite number, got NaN");
      expect(await of({ share: 2 })).toBe("OPTION share: expected a number from 0 to 1, got 2");
      expect(await of({ heads: [[0], [7]] })).toBe("OPTION heads[1]: expected numbers of heads below 6, ascending, got [7]");
      expect(await of({ heads: [[0], [1]], share: 0.5 })).toBe("OPTION share: expected none beside lists of heads, got 0.5");
      expect(await of({ layers: [2] })).toBe("OPTION layers: expected numbers of layers below 2, got 2");
      expect(await of({ seed: 0.5 })).toBe("OPTION seed: expected an integer from 0 to 2^53 - 1, got 0.5");
      expect(await of({ heads: "entropy" })).toBe(
        'OPTION text: expected a text, or ids, with heads "entropy", over which it is measured, got none',
      );
      expect(await of({ heads: "entropy", text: "A" })).toMatch(/^UNAVAILABLE tokenizer: /);
      expect(await of({}, path("diffllama_gqa"))).toBe(
        'FILE source: expected a plain Llama (model_type "llama"), got Hugging Face diffllama',
      );
      expect(await of({ target: llama })).toMatch(/^OPTION target: expected a folder other than the source's, got /);
    });

    test("after an abort nothing is there", async () => {
      const folder = mkdtempSync(join(tmpdir(), "diffattn-convert-"));
      afterAll(() => rmSync(folder, { recursive: true, force: true }));
      const abort = new AbortController();
      const target = join(folder, "abandoned");
      const { code } = await refused(() =>
        models.convertModel(llama, { target, signal: abort.signal, onProgress: () => abort.abort() }),
      );
      expect(code).toBe("ABORTED");
      expect(existsSync(join(target, "model.safetensors"))).toBe(false);
    });
  });

  describe("a Llama with DEX made plain", () => {
    test("the bytes of the reference, and the logits", async () => {
      const { files, exact, added } = await models.foldDex(path("diffattn_llama/dex_trained"));
      expect({ exact, added }).toEqual({ exact: false, added: -2 * (8 * 8 + 1) });
      expect(await tensorsOf(files ?? {})).toEqual(await tensorsOf(path("diffattn_llama/dex_folded")));
      const { relative } = await models.compareModels(path("diffattn_llama/dex_trained"), files ?? {}, { ids: IDS });
      expect(relative).toBeLessThanOrEqual(1e-5);
      const { code, message } = await refused(() => models.foldDex(llama));
      expect(`${code} ${message}`).toMatch(/^FILE source: expected a Llama with DEX /);
    });
  });

  describe("two models compared", () => {
    test("one with itself, loaded or not, and others", async () => {
      using model = await models.LanguageModel.load(llama);
      expect(await models.compareModels(model, llama)).toEqual({ largest: 0, relative: 0, sameTokens: true });
      const other = path("diffattn_llama/v2_mix_1_0");
      const { largest, relative, sameTokens } = await models.compareModels(model, other, { ids: IDS, tokens: 8 });
      // The reference's own distance, of all positions.
      const [a, b] = ["llama", "diffattn_llama/v2_mix_1_0"].map((name) =>
        float64(stored(readFixture(file(`${name}/expected.safetensors`)), "expected.logits")),
      );
      if (!a || !b) throw new Error("no logits");
      const distance = a.reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] ?? NaN))), 0);
      expect(Math.abs(largest - distance)).toBeLessThan(1e-4);
      expect(relative).toBeCloseTo(distance / a.reduce((most, x) => Math.max(most, Math.abs(x)), 0), 4);
      expect(sameTokens).toBe(false);
      // It is as it was.
      expect((await model.forward([1, 2, 3])).shape).toEqual([1, 3, 59]);
    });

    test("what is refused", async () => {
      const of = async (options: modelTypes.CompareOptions): Promise<string> => {
        const { code, message } = await refused(() => models.compareModels(llama, llama, options));
        return `${code} ${message}`;
      };
      expect(await of({ ids: [] })).toBe("OPTION ids: expected 1 token or more, got none");
      expect(await of({ ids: [1], text: "a" })).toBe("OPTION ids: expected a text or ids, got both");
      expect(await of({ ids: [1], tokens: -1 })).toBe("OPTION tokens: expected an integer of 0 or more, got -1");
    });
  });

  test("files by stream, with what lies beside the weights", async () => {
    const folder = mkdtempSync(join(tmpdir(), "diffattn-convert-"));
    afterAll(() => rmSync(folder, { recursive: true, force: true }));
    const source = join(folder, "source");
    const written = new Map<string, number>();
    const target = (name: string): WritableStream<Uint8Array> =>
      new WritableStream({ write: (piece) => void written.set(name, (written.get(name) ?? 0) + piece.byteLength) });
    const record = {
      "config.json": file("llama/config.json"),
      "model.safetensors": file("llama/model.safetensors"),
      "tokenizer.json": new TextEncoder().encode("{}"),
    };
    const { files } = await models.convertModel(record, { target });
    expect(files).toBeUndefined();
    expect([...written.keys()].sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    // The same as a folder.
    await models.convertModel(record, { target: source });
    for (const [name, length] of written) expect(readFileSync(join(source, name)).byteLength).toBe(length);
    using model = await models.LanguageModel.load({
      "config.json": readFileSync(join(source, "config.json")),
      "model.safetensors": readFileSync(join(source, "model.safetensors")),
    });
    expect(model.family).toBe("diffattn_llama");
  });
});
