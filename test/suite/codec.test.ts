// The audio codec through the public API, on every backend: against float64, the same bits however
// it is called, aborts, what is refused.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as types from "../../packages/diffattn/src/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { sameBits, within } from "./compare.js";
import { uniform } from "./random.js";
import { float32, float64, readFixture, stored } from "./safetensors.js";

const folder = fileURLToPath(new URL("../../test/models/same_s", import.meta.url));
const read = (name: string): Uint8Array => readFileSync(`${folder}/${name}`);
const expected = readFixture(read("expected.safetensors"));

const given = (name: string): { data: Float32Array; shape: number[] } => {
  const found = stored(expected, name);
  return { data: float32(found), shape: found.shape };
};

/** 2e-5 of what the values spread over. */
function close(actual: types.Tensor, name: string): void {
  const found = stored(expected, name);
  expect(actual.shape).toEqual(found.shape);
  const values = Array.from(float64(found));
  const bound = 2e-5 * (Math.max(...values) - Math.min(...values));
  within(actual.data, values, () => bound);
}

const random = (seed: number, shape: number[]): { data: Float32Array; shape: number[] } => {
  const next = uniform(seed);
  return { data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * next() - 1), shape };
};

const told = async (body: () => unknown): Promise<string> => {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
};

onEachIsa(() => {
  let codec: modelTypes.AudioCodec;
  beforeAll(async () => {
    codec = await models.AudioCodec.load(folder);
  });
  afterAll(() => codec.dispose());

  test("audio to latents, latents to audio", async () => {
    close(await codec.encode(given("pcm")), "expected.latents");
    close(await codec.encode(given("pcm_ragged")), "expected.latents_ragged");
    close(await codec.decode(given("latents")), "expected.pcm");
  });

  test("patches of both channels behind one another", async () => {
    const { data, shape } = given("audio");
    const [batch = 0, channels = 0, length = 0] = shape;
    const patch = channels / 2;
    const pcm = new Float32Array(data.length);
    pcm.forEach((_, at) => {
      const [plane, sample] = [Math.floor(at / (length * patch)), at % (length * patch)];
      pcm[at] = data[(plane * patch + (sample % patch)) * length + Math.floor(sample / patch)] ?? NaN;
    });
    close(await codec.encode({ data: pcm, shape: [batch, 2, length * patch] }), "expected.latents");
  });

  test("what it is made of", () => {
    expect(codec.config).toMatchObject({ architecture: "same_s", channels: 20, latent_dim: 12, audio_channels: 2, sample_rate: 44100 });
  });

  test("a piece of audio has the same bits alone, from bytes in memory, and with progress", async () => {
    const pcm = random(1, [3, 2, 80 * 11]);
    const whole = await codec.encode(pcm);
    const other = await models.AudioCodec.load({ "config.json": read("config.json"), "model.safetensors": read("model.safetensors") });
    const steps: number[] = [];
    const one = pcm.data.length / 3;
    const alone = await other.encode(
      { data: pcm.data.slice(one, 2 * one), shape: [1, 2, 80 * 11] },
      { onProgress: ({ done, total }) => steps.push(done / total) },
    );
    const size = whole.data.length / 3;
    sameBits(alone, { data: whole.data.slice(size, 2 * size), dtype: "float32" });
    expect(steps.at(-1)).toBe(1);
    const twice = await codec.decode(whole);
    sameBits(await other.decode(whole), twice);
    expect(twice.shape).toEqual([3, 2, 80 * 11]);
    other.dispose();
  });

  test("nothing stays nothing", async () => {
    expect((await codec.encode({ data: new Float32Array(0), shape: [0, 2, 100] })).shape).toEqual([0, 12, 4]);
    expect((await codec.encode({ data: new Float32Array(0), shape: [2, 2, 0] })).shape).toEqual([2, 12, 0]);
    expect((await codec.decode({ data: new Float32Array(0), shape: [2, 12, 0] })).shape).toEqual([2, 2, 0]);
  });

  test("what is refused, and the next call", async () => {
    const zeros = (...shape: number[]): types.TensorLike => ({ data: new Float32Array(shape.reduce((a, b) => a * b)), shape });
    expect(await told(() => codec.encode(zeros(1, 1, 80)))).toBe("SHAPE pcm: expected shape [B, 2, samples], got [1, 1, 80]");
    expect(await told(() => codec.decode(zeros(1, 12, 3)))).toBe(
      "SHAPE latents: expected shape [B, 12, T], T a multiple of 2, got [1, 12, 3]",
    );
    expect(await told(() => codec.encode({ data: new Float64Array(160), shape: [1, 2, 80] } as unknown as types.TensorLike))).toMatch(
      /^DTYPE pcm: /,
    );
    expect(await told(() => codec.encode(zeros(1, 2, 80), { top: 1 } as object))).toMatch(/^OPTION /);
    expect(await told(() => codec.encode(undefined as unknown as types.TensorLike))).toMatch(/^DTYPE pcm: /);
    const reason = new Error("enough");
    const aborted = await refused(() => codec.decode(given("latents"), { signal: AbortSignal.abort(reason) }));
    expect(aborted).toMatchObject({ code: "ABORTED", cause: reason });
    close(await codec.decode(given("latents")), "expected.pcm");
    const gone = await models.AudioCodec.load(folder);
    gone.dispose();
    expect(await told(() => gone.decode(given("latents")))).toMatch(/^DISPOSED /);
  });

  test("checkpoints that are no codec, and a codec where another model is wanted", async () => {
    const llama = fileURLToPath(new URL("../../test/models/llama", import.meta.url));
    expect(await told(() => models.AudioCodec.load(llama))).toBe(
      'FILE config.architecture: expected "same_s", got the configuration of a Llama, a language model: LanguageModel loads it, and the commands generate and maps',
    );
    expect(await told(() => models.DiffViT.load(folder))).toMatch(/^FILE config.architecture: /);
    const file = await models.openSafetensors(`${folder}/model.safetensors`);
    const renamed = await Promise.all(file.names.map(async (name) => [`pretransform.${name}`, await file.readFloat32(name)] as const));
    file.dispose();
    const bytes = await models.saveSafetensors(Object.fromEntries(renamed));
    const source = { "config.json": read("config.json"), "model.safetensors": bytes ?? new Uint8Array() };
    expect(await told(() => models.AudioCodec.load(source))).toMatch(
      /^FILE weights: expected names as those of the files same_s_decoder_f32 and same_s_encoder_f32, .* such as "pretransform\./,
    );
  });

  test("an inspection knows it, and what is missing", async () => {
    const found = await models.inspectCheckpoint(folder);
    expect(found).toMatchObject({ architecture: "same_s", layers: [], missing: [], unexpected: [], warnings: [] });
    const file = await models.openSafetensors(`${folder}/model.safetensors`);
    const kept = file.names.filter((name) => name.startsWith("decoder.") && name !== "decoder.blocks.1.attn.q_norm.beta");
    const weights = await Promise.all(kept.map(async (name) => [name, await file.readFloat32(name)] as const));
    file.dispose();
    const bytes = await models.saveSafetensors(Object.fromEntries(weights));
    const half = await models.inspectCheckpoint({ "config.json": read("config.json"), "model.safetensors": bytes ?? new Uint8Array() });
    expect(half).toMatchObject({
      architecture: "same_s",
      missing: ["decoder.blocks.1.attn.q_norm.beta"],
      warnings: ["there is no encoder in it"],
    });
  });
});
