// Low-rank adapters through the public API, on every backend: over the Llama that they convert
// first and over the model that was converted already, from a folder and from bytes; written and
// read again; and what is refused.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { within } from "./compare.js";
import { file, path, sentence } from "./language-models.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const ADAPTER = "diffattn_llama/adapter";

/** The adapter's files in memory, its configuration as it is to be. */
const filesOf = (changes: object = {}): Record<string, Uint8Array<ArrayBuffer>> => {
  const config = JSON.parse(new TextDecoder().decode(file(`${ADAPTER}/adapter_config.json`))) as object;
  return {
    "adapter_config.json": new TextEncoder().encode(JSON.stringify({ ...config, ...changes })),
    "adapter_model.safetensors": file(`${ADAPTER}/adapter_model.safetensors`),
  };
};

/** What the adapter's file has, by the weights' own names. */
async function weightsOf(): Promise<Record<string, modelTypes.AdapterWeight>> {
  using opened = await models.openSafetensors(`${path(ADAPTER)}/adapter_model.safetensors`);
  const weights: Record<string, Record<string, modelTypes.StoredTensor> | modelTypes.StoredTensor> = {};
  for (const name of opened.names) {
    const own = name.replace("base_model.model.", "");
    const tensor = await opened.read(name);
    const [, module = "", part = ""] = /^(.*)\.lora_([AB])\.weight$/.exec(own) ?? [];
    if (part) weights[`${module}.weight`] = { ...weights[`${module}.weight`], [part.toLowerCase()]: tensor };
    else weights[own] = tensor;
  }
  return weights as Record<string, modelTypes.AdapterWeight>;
}

/** The tensors of a file in memory, as text by name. */
async function tensorsOf(bytes: Uint8Array | undefined): Promise<Record<string, string>> {
  using opened = await models.openSafetensors(bytes ?? new Uint8Array());
  const read = async (name: string): Promise<[string, string]> => {
    const { dtype, shape, data } = await opened.read(name);
    return [name, `${dtype} ${shape.join()} ${Buffer.from(data).toString("base64")}`];
  };
  return Object.fromEntries(await Promise.all(opened.names.map(read)));
}

const configOf = (files: Readonly<Record<string, Uint8Array>> | undefined): Record<string, unknown> =>
  JSON.parse(new TextDecoder().decode(files?.["adapter_config.json"])) as Record<string, unknown>;

const Q = "model.layers.0.self_attn.q_proj.weight";
const LAMBDA = "model.layers.0.self_attn.lambda_proj.weight";
const floats = (...shape: number[]) => ({ data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5), shape });

onEachIsa(() => {
  describe("a low-rank adapter", () => {
    test.each([
      ["over the Llama that it converts", "llama", path(ADAPTER)],
      ["over the model that was converted", "diffattn_llama/v2_mirror", path(ADAPTER)],
      ["in memory", "llama", filesOf()],
    ])("%s", async (_, base, adapter) => {
      const expected = readFixture(file(`${ADAPTER}/expected.safetensors`));
      const [B = 0, L = 0] = stored(expected, "input_ids").shape;
      const ids = integers(stored(expected, "input_ids"));
      using model = await models.LanguageModel.load(path(base), { adapter });
      expect(model.family).toBe("diffattn_llama");
      const y = await model.forward({ data: Int32Array.from(ids), shape: [B, L] });
      const want = float64(stored(expected, "expected.logits"));
      within(y.data, want, () => 2e-5 * (Math.max(...want) - Math.min(...want)));
    });

    test("over a quantised Llama it stands beside the codes", async () => {
      // The Llama of the GGUF files is wider than the adapter's: one of its own, of zeros but for A.
      const config = { peft_type: "LORA", r: 2, lora_alpha: 2, diff_attention: { kind: "v2", heads: "all" } };
      const tensor = (shape: number[], value: number) => ({ data: new Float32Array(shape.reduce((a, b) => a * b)).fill(value), shape });
      const tensors = Object.fromEntries(
        [0, 1].flatMap((layer) => {
          const q = `base_model.model.model.layers.${layer}.self_attn.q_proj`;
          return [
            [`${q}.lora_A.weight`, tensor([2, 64], 0.25)],
            [`${q}.lora_B.weight`, tensor([128, 2], 0)],
          ];
        }),
      );
      const weights = (await models.saveSafetensors(tensors)) ?? new Uint8Array();
      const adapter = { "adapter_config.json": new TextEncoder().encode(JSON.stringify(config)), "adapter_model.safetensors": weights };
      using llama = await models.LanguageModel.load(path("gguf/q4_1/model.gguf"), { tokenizer: null });
      using model = await models.LanguageModel.load(path("gguf/q4_1/model.gguf"), { adapter, tokenizer: null });
      const ids = [3, 1, 4, 1, 5, 9, 2, 6];
      const [was, is] = [await llama.forward(ids), await model.forward(ids)];
      const largest = Math.max(...Array.from(was.data as Float32Array, Math.abs));
      within(is.data, Float64Array.from(was.data as Float32Array), () => 2e-6 * largest);
    });

    test("what is refused", async () => {
      const load = (base: string, adapter: unknown) => models.LanguageModel.load(path(base), { adapter: adapter as string });
      for (const [code, words, base, adapter] of [
        ["OPTION", "adapter", "diffattn_llama/share_half", path(ADAPTER)],
        ["FILE", "adapter_config.json", "llama", path("llama")],
        ["FILE", "expected a matrix with 5 on axis 0", "llama", filesOf({ r: 5 })],
        ["FILE", '"IA3"', "llama", filesOf({ peft_type: "IA3" })],
        ["OPTION", "adapter", "llama", 5],
      ] as const) {
        const error = await refused(() => load(base, adapter));
        expect([error.code, error.message]).toEqual([code, expect.stringContaining(words)]);
      }
      // The next call is right.
      using model = await models.LanguageModel.load(path("llama"), { adapter: path(ADAPTER) });
      expect(model.family).toBe("diffattn_llama");
    });
  });

  describe("an adapter that is written", () => {
    const conversion = { to: "v2", heads: "all", start: "mirror" } as const;

    test("is the reference's, and the model is the same to the last bit", async () => {
      const files = await models.saveAdapter(await weightsOf(), { alpha: 10, conversion, baseModel: "../llama" });
      expect(Object.keys(files ?? {}).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
      expect(await tensorsOf(files?.["adapter_model.safetensors"])).toEqual(await tensorsOf(file(`${ADAPTER}/adapter_model.safetensors`)));
      const { diff_attention, ...reference } = configOf(filesOf());
      const written = configOf(files);
      // (Names of modules in any order.)
      const sorted = (config: Record<string, unknown>) => ({
        ...config,
        target_modules: [...(config["target_modules"] as string[])].sort(),
      });
      expect(sorted(written)).toMatchObject(sorted(reference));
      expect(diff_attention).toMatchObject(written["diff_attention"] as object);
      const logits = async (adapter: modelTypes.CheckpointSource): Promise<number[]> => {
        using model = await models.LanguageModel.load(path("llama"), { adapter });
        return [...(await model.forward([3, 1, 4, 1, 5])).data];
      };
      expect(await logits(files ?? {})).toEqual(await logits(path(ADAPTER)));
    });

    test("of listed heads, to a folder and to streams, without a conversion", async () => {
      const folder = mkdtempSync(join(tmpdir(), "diffattn-adapter-"));
      afterAll(() => rmSync(folder, { recursive: true, force: true }));
      const heads = [
        [1, 4],
        [0, 5],
      ];
      const weights = { [Q]: { a: floats(2, 48), b: floats(64, 2) }, [LAMBDA]: floats(2, 48) };
      const target = join(folder, "adapter");
      expect(await models.saveAdapter(weights, { conversion: { heads }, target })).toBeUndefined();
      using model = await models.LanguageModel.load(path("llama"), { adapter: target });
      expect(model.config["diff_attention"]).toMatchObject({ heads });
      const config = configOf({ "adapter_config.json": readFileSync(join(target, "adapter_config.json")) });
      expect(config).toMatchObject({ r: 2, lora_alpha: 2, target_modules: ["q_proj"], modules_to_save: ["lambda_proj"] });
      const written = new Map<string, number>();
      const stream = (name: string): WritableStream<Uint8Array> =>
        new WritableStream({ write: (piece) => void written.set(name, (written.get(name) ?? 0) + piece.byteLength) });
      await models.saveAdapter(weights, { conversion: { heads }, target: stream });
      expect(written.get("adapter_model.safetensors")).toBe(readFileSync(join(target, "adapter_model.safetensors")).byteLength);
      const plain = await models.saveAdapter({ [Q]: { a: floats(1, 48), b: floats(48, 1) } }, { alpha: 0.5 });
      expect(configOf(plain)).toMatchObject({ r: 1, lora_alpha: 0.5 });
      expect(configOf(plain)).not.toHaveProperty("diff_attention");
      using merged = await models.LanguageModel.load(path("llama"), { adapter: plain ?? {} });
      expect(merged.family).toBe("llama");
    });

    test("what is refused, and nothing is there", async () => {
      const folder = mkdtempSync(join(tmpdir(), "diffattn-adapter-"));
      afterAll(() => rmSync(folder, { recursive: true, force: true }));
      const target = join(folder, "refused");
      const good = { a: floats(2, 48), b: floats(96, 2) };
      const of = (weights: object, options: object = {}): Promise<string> =>
        sentence(() => models.saveAdapter(weights as Record<string, modelTypes.AdapterWeight>, { target, ...options }));
      const named = (name: string): string =>
        `OPTION weights.${name}: expected the name of a module's weight, as the model has it: NAME.weight, got "${name}"`;
      for (const name of ["q_proj", ".weight", `base_model.model.${Q}`, "q_proj.lora_A.weight"])
        expect(await of({ [name]: good })).toBe(named(name));
      expect(await of({})).toBe("OPTION weights: expected a low-rank difference or more, got none");
      expect(await of({ [LAMBDA]: floats(6, 48) })).toBe("OPTION weights: expected a low-rank difference or more, got none");
      expect(await of({ [Q]: { a: floats(2, 48), b: floats(96, 3) } })).toBe(
        `SHAPE weights.${Q}.b: expected 2 on axis 1, the rank of the first, got [96, 3]`,
      );
      expect(await of({ [Q]: { a: floats(96), b: floats(96, 2) } })).toBe(
        `SHAPE weights.${Q}.a: expected 2 axes, [rank, inputs], got [96]`,
      );
      expect(await of({ [Q]: { a: floats(0, 48), b: floats(96, 0) } })).toBe(
        `SHAPE weights.${Q}.a: expected a rank of 1 or more, got [0, 48]`,
      );
      const other = Q.replace("layers.0", "layers.1");
      expect(await of({ [Q]: good, [other]: { a: floats(3, 48), b: floats(96, 3) } })).toBe(
        `SHAPE weights.${other}.a: expected 2 on axis 0, the rank of the first, got [3, 48]`,
      );
      expect(await of({ [Q]: good, [other]: floats(96, 48) })).toBe(
        'OPTION weights: expected low-rank differences or whole weights of a module, not both, got "q_proj"',
      );
      const integers = { dtype: "I32", data: new Uint8Array(8 * 48), shape: [2, 48] };
      expect(await of({ [Q]: { a: integers, b: floats(96, 2) } })).toBe(`DTYPE weights.${Q}.a: expected F32, F16 or BF16, got I32`);
      expect(await of({ [Q]: { a: floats(2, 48) } })).toMatch(new RegExp(`^DTYPE weights\\.${Q.replaceAll(".", "\\.")}\\.b: `));
      expect(await of({ [Q]: 5 })).toMatch(/^DTYPE weights\.model/);
      const short = { dtype: "F32", data: new Uint8Array(8), shape: [2, 48] };
      expect(await of({ [Q]: { a: short, b: floats(96, 2) } })).toBe(`SHAPE weights.${Q}.a: expected 384 bytes, for [2, 48] of F32, got 8`);
      expect(await of([])).toMatch(/^OPTION weights: expected tensors by name, got /);
      for (const [options, words] of [
        [{ alpha: NaN }, "OPTION alpha: expected a finite number, got NaN"],
        [{ baseModel: 5 }, "OPTION baseModel: expected a text, got 5"],
        [{ conversion: { to: "v1" } }, 'OPTION conversion.to: expected "v2", which adapters are of, got another'],
        [{ conversion: { start: "mix" } }, 'OPTION conversion.start: expected "mirror", which adapters are of, got another'],
        [{ conversion: { heads: "last" } }, 'OPTION conversion.heads: expected "all" or lists of numbers for each layer, got another'],
        [{ conversion: { heads: [[3, 1]] } }, "OPTION conversion.heads[0]: expected ascending numbers of heads, got [3, 1]"],
      ] as const)
        expect(await of({ [Q]: good }, options)).toBe(words);
      expect(await of({ [Q]: good }, { conversion: { lambda: 0.5 } })).toMatch(/^OPTION /);
      expect(await of({ [Q]: good }, { rank: 2 })).toMatch(/^OPTION /);
      expect(await of({ [Q]: good }, { target: 5 })).toMatch(/^OPTION target: expected the path of a folder/);
      expect(await of({ [Q]: good }, { signal: AbortSignal.abort() })).toMatch(/^ABORTED/);
      expect(existsSync(target)).toBe(false);
      // The next call is right.
      expect(await models.saveAdapter({ [Q]: good }, { target })).toBeUndefined();
      expect(existsSync(join(target, "adapter_model.safetensors"))).toBe(true);
    });
  });
});
