// Quantised weights through the public API, on every backend: held as asked, out of GGUF and MLX
// files, written in MLX's layout and read back; what is told and refused.

import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { within } from "./compare.js";
import { float64, integers, readFixture, stored } from "./safetensors.js";

const path = (name: string): string => fileURLToPath(new URL(`../../test/models/${name}`, import.meta.url));
const trained = fileURLToPath(new URL("../../examples/model", import.meta.url));
const IDS = [5, 9, 3, 57, 12, 40, 8];

type Source = Parameters<typeof models.LanguageModel.load>[0];

const loaded = async (source: Source, options: modelTypes.ModelLoadOptions = {}): Promise<modelTypes.LanguageModel> =>
  models.LanguageModel.load(source, { tokenizer: null, ...options });

/** Logits of a few ids. */
async function logitsOf(source: Source, options?: modelTypes.ModelLoadOptions): Promise<number[]> {
  using model = await loaded(source, options);
  return [...(await model.forward(IDS)).data];
}

/** A written checkpoint as `load` takes it. */
const filesOf = ({ file, files }: modelTypes.Conversion): Record<string, Uint8Array<ArrayBuffer>> => ({
  ...files,
  "model.safetensors": file as Uint8Array<ArrayBuffer>,
});

const distance = (a: readonly number[], b: readonly number[]): number => {
  const scale = Math.sqrt(a.reduce((sum, x) => sum + x * x, 0) / a.length);
  return Math.sqrt(a.reduce((sum, x, i) => sum + (x - (b[i] ?? NaN)) ** 2, 0) / a.length) / scale;
};

const sentence = async (body: () => unknown): Promise<string> => {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
};

onEachIsa(() => {
  describe("weights held as asked", () => {
    test("eight bits are nearer than four, and both are near", async () => {
      const float = await logitsOf(trained);
      const [q8, q4, all] = await Promise.all([
        logitsOf(trained, { dtype: "q8" }),
        logitsOf(trained, { dtype: "q4" }),
        logitsOf(trained, { dtype: "q4", head: "q4" }),
      ]);
      const far = [q8, q4, all].map((logits) => distance(float, logits));
      expect(far[0]).toBeGreaterThan(0);
      expect(far[0]).toBeLessThan(0.03);
      expect(far[1]).toBeGreaterThan(2 * (far[0] ?? 1));
      expect(far[1]).toBeLessThan(0.4);
      expect(all).not.toEqual(q4);
      expect(await logitsOf(trained, { dtype: "q4", head: "q8" })).toEqual(q4);
    });

    test("floats of floats are their values", async () => {
      expect(await logitsOf(trained, { dtype: "float32" })).toEqual(await logitsOf(trained));
      expect(await logitsOf(path("llama"), { dtype: "bfloat16" })).not.toEqual(await logitsOf(path("llama")));
    });

    test("token by token is the prompt at once", async () => {
      using model = await loaded(trained, { dtype: "q4" });
      const whole = [...(await model.forward(IDS)).data];
      using cache = await model.createCache();
      const steps: number[] = [];
      for (const id of IDS) steps.push(...(await model.forward([id], { cache })).data);
      expect(steps).toEqual(whole);
    });

    test("rows that are no whole blocks stay, which is told", async () => {
      const notices: string[] = [];
      using model = await loaded(path("llama"), { dtype: "q8", onNotice: (text) => notices.push(text) });
      expect(notices).toEqual([
        "weights whose rows are no multiple of 32 stay as they are stored: model.embed_tokens.weight, lm_head.weight, model.layers.0.self_attn.q_proj.weight, model.layers.0.self_attn.k_proj.weight and 10 more",
      ]);
      expect(model.family).toBe("llama");
    });

    test("what is no format", async () => {
      for (const name of ["dtype", "head"] as const)
        for (const value of ["q5", "F32", 4, {}]) {
          const options = { [name]: value } as unknown as modelTypes.ModelLoadOptions;
          expect(await sentence(() => loaded(trained, options))).toMatch(new RegExp(`^OPTION ${name}: expected .*float32.*q4`));
        }
    });
  });

  describe("quantised files", () => {
    test.each(["q8_0", "q4_0", "q4_1"])("GGUF's %s as they are, and as floats", async (name) => {
      const gguf = path(`gguf/${name}/model.gguf`);
      const { options, tensors } = readFixture(new Uint8Array(readFileSync(path(`gguf/${name}/expected.safetensors`))));
      const fixture = { options, tensors };
      const { shape } = stored(fixture, "input_ids");
      const ids = { data: Int32Array.from(integers(stored(fixture, "input_ids"))), shape };
      const want = float64(stored(fixture, "expected.logits"));
      using floats = await loaded(gguf, { dtype: "float32" });
      const spread = Math.max(...want) - Math.min(...want);
      within((await floats.forward(ids)).data, want, () => 2e-5 * spread);
      using codes = await loaded(gguf);
      const got = [...(await codes.forward(ids)).data];
      const far = distance([...want], got);
      expect(far).toBeGreaterThan(1e-5);
      expect(far).toBeLessThan(0.05);
    });

    test("MLX's of the same codes give the same bits", async () => {
      expect(await logitsOf(path("mlx"))).toEqual(await logitsOf(path("gguf/q4_1/model.gguf")));
      const floats = await logitsOf(path("mlx"), { dtype: "float32" });
      expect(floats).toEqual(await logitsOf(path("gguf/q4_1/model.gguf"), { dtype: "float32" }));
    });

    test("what an inspection says of them", async () => {
      const found = await models.inspectCheckpoint(path("mlx"));
      expect(found.quantized).toEqual([
        { bits: 4, groupSize: 32, weights: 14, parameters: 61440, bytes: 38400 },
        { bits: 8, groupSize: 32, weights: 1, parameters: 6208, bytes: 6984 },
      ]);
      expect(found).toMatchObject({ architecture: "llama", parameters: 67968, missing: [], unexpected: [], warnings: [] });
      const gguf = await models.inspectCheckpoint(path("gguf/q4_1/model.gguf"));
      expect(gguf.quantized).toEqual([]);
      expect(found.plainLayers).toEqual(gguf.plainLayers);
    });

    test("a configuration that says another packing, and files that are cut", async () => {
      const weights = new Uint8Array(readFileSync(path("mlx/model.safetensors")));
      const config = JSON.parse(readFileSync(path("mlx/config.json"), "utf8")) as { quantization: Record<string, unknown> };
      const load = (change: Record<string, unknown>, file = weights): Promise<number[]> => {
        const text = JSON.stringify({ ...config, quantization: { ...config.quantization, ...change } });
        return logitsOf({ "config.json": new TextEncoder().encode(text), "model.safetensors": file });
      };
      for (const [change, wanted] of [
        [{ bits: 2 }, "FILE config.quantization.bits: expected 4 or 8, got 2"],
        [{ mode: "nvfp4" }, 'FILE config.quantization.mode: expected "affine", got "nvfp4"'],
        [{ group_size: 16 }, "FILE config.quantization.group_size: expected a multiple of 32, got 16"],
      ] as const)
        expect(await sentence(() => load(change))).toBe(wanted);
      expect(await sentence(() => load({ group_size: 64 }))).toMatch(
        /^FILE weights\.\S+: expected 4 bits and groups of 64, as config\.quantization says/,
      );
      expect(await sentence(() => load({}, weights.slice(0, -1)))).toMatch(/^FILE model\.safetensors[:,] /);
      expect(await load({})).toEqual(await logitsOf(path("mlx")));
    });
  });

  describe("written in MLX's layout", () => {
    test.each([
      ["q4", undefined],
      ["q8", undefined],
      ["q4", "q4"],
    ] as const)("%s, head %s: read back it is what quantising at load makes", async (dtype, head) => {
      const conversion = await models.convertCheckpoint(trained, { dtype, head });
      expect(conversion.notes).toEqual([]);
      const config = JSON.parse(new TextDecoder().decode(conversion.files["config.json"])) as { quantization: unknown };
      const bits = dtype === "q4" ? 4 : 8;
      expect(config.quantization).toEqual({
        group_size: 32,
        bits,
        mode: "affine",
        ...(dtype === "q4" && head === undefined && { "model.embed_tokens": { group_size: 32, bits: 8 } }),
      });
      expect(await logitsOf(filesOf(conversion))).toEqual(await logitsOf(trained, { dtype, head }));
    });

    test("in groups of 64, by MLX's rule: scales and biases of BF16, read back", async () => {
      const float = await logitsOf(trained);
      const [q8, q4] = await Promise.all(
        (["q8", "q4"] as const).map(async (dtype) => {
          const conversion = await models.convertCheckpoint(trained, { dtype, groupSize: 64 });
          const config = JSON.parse(new TextDecoder().decode(conversion.files["config.json"])) as { quantization: unknown };
          const bits = dtype === "q4" ? 4 : 8;
          expect(config.quantization).toEqual({
            group_size: 64,
            bits,
            mode: "affine",
            ...(dtype === "q4" && { "model.embed_tokens": { group_size: 64, bits: 8 } }),
          });
          const files = filesOf(conversion);
          const found = await models.inspectCheckpoint(files);
          expect(found.quantized.every(({ groupSize }) => groupSize === 64)).toBe(true);
          expect(found).toMatchObject({ missing: [], unexpected: [], warnings: [] });
          using opened = await models.openSafetensors(files);
          const numbers = opened.tensors.filter(({ name }) => /\.(scales|biases)$/.test(name));
          expect(numbers.length).toBeGreaterThan(0);
          expect(numbers.every(({ dtype }) => dtype === "BF16")).toBe(true);
          return distance(float, await logitsOf(files));
        }),
      );
      expect(q8).toBeLessThan(0.03);
      expect(q4).toBeLessThan(0.4);
      expect(q4).toBeGreaterThan(2 * (q8 ?? 1));
      // 32 is what nothing said is.
      const [said, unsaid] = [
        await models.convertCheckpoint(trained, { dtype: "q4", groupSize: 32 }),
        await models.convertCheckpoint(trained, { dtype: "q4" }),
      ];
      // (Not by toEqual, which takes long over so many bytes.)
      expect(Buffer.compare(said.file ?? Buffer.of(), unsaid.file ?? Buffer.of(0))).toBe(0);
    });

    test("in groups of 64: codes keep their groups, and narrow rows have groups of 32", async () => {
      const conversion = await models.convertCheckpoint(path("mlx"), { dtype: "q8", groupSize: 64 });
      expect(conversion.file).toEqual((await models.convertCheckpoint(path("mlx"), { dtype: "q8" })).file);
      const floats = filesOf(await models.convertCheckpoint(path("mlx"), { dtype: "F32" }));
      const anew = await models.convertCheckpoint(floats, { dtype: "q4", groupSize: 64 });
      const found = await models.inspectCheckpoint(filesOf(anew));
      // (The MLP's last map, of rows of 96.)
      expect(found.quantized.map(({ bits, groupSize, weights }) => [bits, groupSize, weights])).toEqual([
        [4, 32, 2],
        [4, 64, 12],
        [8, 64, 1],
      ]);
      expect(distance(await logitsOf(floats), await logitsOf(filesOf(anew)))).toBeLessThan(0.4);
      const made = await models.convertModel(floats, { heads: "all", dtype: "q4", groupSize: 64 });
      expect((await models.inspectCheckpoint(made.files ?? {})).quantized).toContainEqual(
        expect.objectContaining({ bits: 4, groupSize: 64 }),
      );
    });

    test("of a GGUF file, with its configuration and tokenizer, and once more: byte for byte", async () => {
      const gguf = path("gguf/q4_1/model.gguf");
      const conversion = await models.convertCheckpoint(gguf, { dtype: "q4" });
      expect(Object.keys(conversion.files).sort()).toEqual([
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
      ]);
      using written = await models.LanguageModel.load(filesOf(conversion));
      using first = await models.LanguageModel.load(gguf);
      expect([...(await written.forward(IDS)).data]).toEqual([...(await first.forward(IDS)).data]);
      expect(written.encode("the cat sat")).toEqual(first.encode("the cat sat"));
      const again = await models.convertCheckpoint(filesOf(conversion), { dtype: "q4" });
      expect(again.file).toEqual(conversion.file);
      const floats = await models.convertCheckpoint(filesOf(conversion), { dtype: "F32" });
      expect(JSON.parse(new TextDecoder().decode(floats.files["config.json"]))).not.toHaveProperty("quantization");
      expect(await logitsOf(filesOf(floats))).toEqual(await logitsOf(gguf, { dtype: "float32" }));
    });

    test("to a file and to a stream", async () => {
      const folder = await mkdtemp(join(tmpdir(), "diffattn-quantised-"));
      try {
        const target = join(folder, "model.safetensors");
        const { file, files } = await models.convertCheckpoint(path("mlx"), { dtype: "q8", target });
        expect(file).toBeUndefined();
        await writeFile(join(folder, "config.json"), files["config.json"] ?? "");
        const pieces: Uint8Array[] = [];
        const stream = new WritableStream<Uint8Array>({ write: (piece) => void pieces.push(piece.slice()) });
        await models.convertCheckpoint(path("mlx"), { dtype: "q8", target: stream });
        expect(Buffer.concat(pieces).equals(await readFile(target))).toBe(true);
        expect(await logitsOf(folder)).toEqual(await logitsOf(path("mlx"), { dtype: "q8" }));
      } finally {
        await rm(folder, { recursive: true });
      }
    });

    test("what is not written", async () => {
      for (const [options, words] of [
        [{ dtype: "q4", groupSize: 48 }, "OPTION groupSize: expected 32 or 64, got 48"],
        [{ dtype: "q4", groupSize: "64" }, 'OPTION groupSize: expected 32 or 64, got "64"'],
        [{ dtype: "F16", groupSize: 64 }, 'OPTION groupSize: expected none but with "q8" or "q4", got 64'],
      ] as const) {
        expect(await sentence(() => models.convertCheckpoint(trained, options as modelTypes.ConvertOptions))).toBe(words);
        expect(await sentence(() => models.convertModel(path("llama"), options as modelTypes.ConvertModelOptions))).toBe(words);
      }
      expect(await sentence(() => models.convertCheckpoint(trained, { dtype: "q4", layout: "unilm" }))).toMatch(/^OPTION layout: /);
      expect(await sentence(() => models.convertCheckpoint(path("mlx"), { layout: "unilm" }))).toMatch(/^OPTION layout: /);
      const only = new Uint8Array(readFileSync(path("llama/model.safetensors")));
      expect(await sentence(() => models.convertCheckpoint(only, { dtype: "q8" }))).toMatch(/^FILE config\.json: /);
    });
  });
});
