// MLX's quantised Llamas made differential and given adapters, on every backend: the same bits as a
// GGUF file of the same codes, which stay as they are; floats where they are asked for; what codes
// have no exact form for.

import { describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa } from "./backends.js";
import { within } from "./compare.js";
import { path, sentence } from "./language-models.js";

const mlx = path("mlx");
const gguf = path("gguf/q4_1/model.gguf");
const IDS = [5, 9, 3, 57, 12, 40, 8];
/** All four heads of both layers, and the last two: those of a whole group of 32 columns. */
const LAST = [
  [2, 3],
  [2, 3],
];

type Source = Parameters<typeof models.LanguageModel.load>[0];
type Files = Record<string, Uint8Array<ArrayBuffer>>;

async function logitsOf(source: Source, options: modelTypes.ModelLoadOptions = {}): Promise<number[]> {
  using model = await models.LanguageModel.load(source, { tokenizer: null, ...options });
  return [...(await model.forward(IDS)).data];
}

async function converted(source: modelTypes.CheckpointSource, options?: modelTypes.ConvertModelOptions) {
  const made = await models.convertModel(source, options);
  return { ...made, files: made.files as Files };
}

/** The element types and shapes of a checkpoint, by name. */
async function shapesOf(source: modelTypes.CheckpointSource): Promise<Record<string, string>> {
  using opened = await models.openSafetensors(source);
  return Object.fromEntries(opened.tensors.map(({ name, dtype, shape }) => [name, `${dtype} ${shape.join()}`]));
}

async function bytesOf(source: modelTypes.CheckpointSource): Promise<Record<string, string>> {
  using opened = await models.openSafetensors(source);
  const read = async (name: string): Promise<[string, string]> => {
    const { dtype, shape, data } = await opened.read(name);
    return [name, `${dtype} ${shape.join()} ${Buffer.from(data).toString("base64")}`];
  };
  return Object.fromEntries(await Promise.all(opened.names.map(read)));
}

const configOf = (files: Files): Record<string, unknown> =>
  JSON.parse(new TextDecoder().decode(files["config.json"])) as Record<string, unknown>;

const attention = (layer: number, name: string): string => `model.layers.${layer}.self_attn.${name}`;

/** An adapter for it: q and o of both layers low-rank, λ's projection whole, all of small numbers. */
async function adapter(heads: "all" | number[][]): Promise<Files> {
  let seed = 1;
  const next = (): number => {
    seed = (seed * 48271) % 2147483647;
    return (seed / 2147483647 - 0.5) / 4;
  };
  const tensor = (...shape: number[]) => ({ data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, next), shape });
  const weights = [0, 1].flatMap((layer): [string, modelTypes.AdapterWeight][] => {
    const count = heads === "all" ? 4 : (heads[layer]?.length ?? 0);
    return [
      [attention(layer, "q_proj.weight"), { a: tensor(3, 64), b: tensor(64 + 16 * count, 3) }],
      [attention(layer, "o_proj.weight"), { a: tensor(3, 64), b: tensor(64, 3) }],
      [attention(layer, "lambda_proj.weight"), tensor(count, 64)],
    ];
  });
  return (await models.saveAdapter(Object.fromEntries(weights), { alpha: 6, conversion: { heads } })) as Files;
}

/** Floats of the same values. */
async function floatsOf(source: Source): Promise<Files> {
  const { file, files } = await models.convertCheckpoint(source, { dtype: "F32" });
  return { ...files, "model.safetensors": file } as Files;
}

onEachIsa(() => {
  describe("a Llama of MLX's codes made differential", () => {
    test.each([
      ["v2, all heads", { heads: "all" }],
      ["v2, those of a group", { heads: LAST }],
      ["v1", { to: "v1" }],
      ["dex", { to: "dex" }],
    ] as [string, modelTypes.ConvertModelOptions][])("%s: codes stay, and the model computes what it did", async (_, options) => {
      const { files, exact, parameters, added } = await converted(mlx, options);
      expect(exact).toBe(true);
      expect(configOf(files)["quantization"]).toEqual({
        group_size: 32,
        bits: 4,
        mode: "affine",
        "model.embed_tokens": { group_size: 32, bits: 8 },
      });
      const found = await models.inspectCheckpoint(files);
      expect(found).toMatchObject({ architecture: "diffattn_llama", parameters, missing: [], unexpected: [], warnings: [] });
      expect(parameters - added).toBe((await models.inspectCheckpoint(mlx)).parameters);
      const { relative, sameTokens } = await models.compareModels(mlx, files, { ids: IDS, tokens: 16 });
      expect(relative).toBeLessThanOrEqual(2e-6);
      expect(sameTokens).toBe(true);
      // A GGUF file of the same codes becomes the same.
      const other = await converted(gguf, options);
      expect(await logitsOf(files)).toEqual(await logitsOf(other.files));
      expect({ parameters, added }).toEqual({ parameters: other.parameters, added: other.added });
    });

    test("rows of q are doubled with their codes, and o's scales with its heads", async () => {
      const [before, after] = [await bytesOf(mlx), await bytesOf((await converted(mlx, { heads: LAST })).files)];
      const name = attention(0, "o_proj");
      expect(after[`${name}.weight`]).toBe(before[`${name}.weight`]);
      expect(after[`${name}.scales`]).not.toBe(before[`${name}.scales`]);
      const shapes = await shapesOf((await converted(mlx, { heads: LAST })).files);
      for (const [part, shape] of [
        ["weight", "U32 96,8"],
        ["scales", "F16 96,2"],
        ["biases", "F16 96,2"],
      ])
        expect(shapes[attention(1, `q_proj.${part}`)]).toBe(shape);
      expect(shapes[attention(1, "lambda_proj.weight")]).toBe("F32 2,64");
      // What belongs to no attention is as it was.
      const changed = Object.keys(before).filter((key) => after[key] !== before[key]);
      expect(changed.every((key) => /\.(q_proj|o_proj)\./.test(key))).toBe(true);
    });

    test("as floats: what the floats of its codes become", async () => {
      const { files } = await converted(mlx, { heads: "all", dtype: "F32" });
      expect(configOf(files)).not.toHaveProperty("quantization");
      expect(await bytesOf(files)).toEqual(await bytesOf((await converted(await floatsOf(mlx), { heads: "all", dtype: "F32" })).files));
      // With any λ, and from noise: floats hold both.
      const { exact } = await converted(mlx, { heads: [[3], []], lambda: 0.3, dtype: "BF16" });
      expect(exact).toBe(false);
      expect((await converted(mlx, { start: "mix", dtype: "F32" })).exact).toBe(true);
      expect((await converted(mlx, { to: "diffllama", dtype: "F32" })).exact).toBe(false);
    });

    test("quantised anew: codes of as few bits stay", async () => {
      const kept = await logitsOf((await converted(mlx, { heads: "all" })).files);
      for (const dtype of ["q8", "q4"] as const)
        expect(await logitsOf((await converted(mlx, { heads: "all", dtype })).files)).toEqual(kept);
      const { files } = await converted(mlx, { heads: "all", dtype: "q4", head: "q4" });
      expect((await shapesOf(files))["model.embed_tokens.weight"]).toBe("U32 97,8");
    });

    test("what codes have no exact form for", async () => {
      const of = (options: modelTypes.ConvertModelOptions): Promise<string> => sentence(() => converted(mlx, options));
      const divided = `DTYPE weights.${attention(0, "o_proj.weight")}: expected floats, not MLX's codes, which cannot be divided by `;
      expect(await of({ heads: [[3], [3]] })).toBe(`${divided}0.5 exactly, got heads that are parts of groups`);
      expect(await of({ heads: "all", lambda: 0.3 })).toMatch(/exactly, got scales that are rounded then$/);
      expect(await of({ start: "mix" })).toBe(
        `DTYPE weights.${attention(0, "q_proj.weight")}: expected floats, behind which there can be heads of noise, got U32`,
      );
      expect(await of({ to: "diffllama" })).toBe(
        `DTYPE weights.${attention(0, "o_proj.weight")}: expected floats, of which heads are doubled, got MLX's codes`,
      );
    });

    test("with DEX, folded: the output projections become floats", async () => {
      const { files } = await converted(mlx, { to: "dex" });
      const folded = await models.foldDex(files);
      const shapes = await shapesOf(folded.files ?? {});
      expect([shapes[attention(0, "o_proj.weight")], shapes[attention(0, "q_proj.weight")]]).toEqual(["F32 64,64", "U32 64,8"]);
      expect(shapes).not.toHaveProperty([attention(0, "o_proj.scales")]);
      const [want, got] = [await logitsOf(mlx, { dtype: "float32" }), await logitsOf(folded.files ?? {}, { dtype: "float32" })];
      const largest = Math.max(...want.map(Math.abs));
      within(Float32Array.from(got), Float64Array.from(want), () => 2e-6 * largest);
    });
  });

  describe("an adapter over MLX's codes", () => {
    test.each([
      ["all heads", "all"],
      ["those of a group", LAST],
    ] as const)("%s: beside the codes, as over GGUF's", async (_, heads) => {
      const own = await adapter(heads);
      using model = await models.LanguageModel.load(mlx, { adapter: own, tokenizer: null });
      expect([model.family, model.dtype]).toEqual(["diffattn_llama", "q4"]);
      const logits = [...(await model.forward(IDS)).data];
      expect(logits).toEqual(await logitsOf(gguf, { adapter: own }));
      expect(logits).not.toEqual(await logitsOf(mlx));
      // Over the model that was converted already.
      expect(await logitsOf((await converted(mlx, { heads })).files, { adapter: own })).toEqual(logits);
      // Nothing but x as int8 is between them and floats.
      const floats = await logitsOf(await floatsOf(mlx), { adapter: own });
      const spread = Math.max(...floats) - Math.min(...floats);
      within(Float32Array.from(logits), Float64Array.from(floats), () => 0.05 * spread);
    });

    test("merged into floats: as into those of its codes", async () => {
      const own = await adapter("all");
      const merged = await logitsOf(await floatsOf(mlx), { adapter: own });
      expect(await logitsOf(mlx, { adapter: own, dtype: "float32" })).toEqual(merged);
    });

    test("merged into what is written: floats where it changes something, or everywhere, or codes again", async () => {
      const own = await adapter("all");
      const { files } = await converted(mlx, { adapter: own });
      const shapes = await shapesOf(files);
      expect(shapes).toMatchObject({
        [attention(0, "q_proj.weight")]: "F32 128,64",
        [attention(0, "k_proj.weight")]: "U32 32,8",
        [attention(0, "lambda_proj.weight")]: "F32 4,64",
      });
      expect(shapes).not.toHaveProperty([attention(0, "q_proj.scales")]);
      expect(await models.inspectCheckpoint(files)).toMatchObject({ missing: [], unexpected: [], warnings: [] });
      const floats = await logitsOf(await floatsOf(mlx), { adapter: own });
      expect(await logitsOf(files, { dtype: "float32" })).toEqual(floats);
      const all = (await converted(mlx, { adapter: own, dtype: "F32" })).files;
      expect(configOf(all)).not.toHaveProperty("quantization");
      expect(await logitsOf(all)).toEqual(floats);
      const coded = (await converted(mlx, { adapter: own, dtype: "q4" })).files;
      expect((await shapesOf(coded))[attention(0, "q_proj.weight")]).toBe("U32 128,8");
      expect(configOf(coded)).toHaveProperty("quantization");
    });
  });

  test("a file whose scales do not fit its codes is refused", async () => {
    using opened = await models.openSafetensors(`${mlx}/model.safetensors`);
    const tensors: Record<string, modelTypes.StoredLike> = {};
    for (const name of opened.names) tensors[name] = await opened.read(name);
    const name = attention(0, "o_proj.scales");
    tensors[name] = { dtype: "F16", shape: [64, 1], data: new Uint8Array(128) };
    const { readFileSync } = await import("node:fs");
    const files = {
      "config.json": new Uint8Array(readFileSync(`${mlx}/config.json`)),
      "model.safetensors": await models.saveSafetensors(tensors),
    };
    expect(await sentence(() => converted(files as Files))).toMatch(/^FILE weights\.model\.layers\.0\.self_attn\.o_proj\./);
  });
});
