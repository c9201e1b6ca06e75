// What timm makes of a DIFF vision transformer by an option: without a head, of other channels, of
// any whole patches. Made of one checkpoint, so that each is compared with what the other gives.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as types from "../../packages/diffattn/src/types.js";
import { models, onEachIsa, refused } from "./backends.js";
import { sameBits, within } from "./compare.js";
import { uniform } from "./random.js";
import { float32, readFixture, stored } from "./safetensors.js";

const path = (name: string): string => fileURLToPath(new URL(`../../test/models/diff_vit/${name}`, import.meta.url));
const CONFIG = JSON.parse(readFileSync(path("config.json"), "utf8")) as Record<string, unknown>;
const WIDTH = 64;

type Weights = Record<string, types.Tensor>;

/** The checkpoint's weights, float32. */
async function weights(): Promise<Weights> {
  const file = await models.openSafetensors(path("model.safetensors"));
  const read = await Promise.all(file.names.map(async (name) => [name, await file.readFloat32(name)] as const));
  file.dispose();
  return Object.fromEntries(read);
}

const tensor = (data: Float32Array, shape: number[]): types.Tensor =>
  ({ data, shape, dims: shape, dtype: "float32", type: "float32" }) as unknown as types.Tensor;

/** A model of the checkpoint with another config and other weights. */
async function variant(config: Record<string, unknown>, change: (weights: Weights) => void = () => {}): Promise<modelTypes.DiffViT> {
  const changed = await weights();
  change(changed);
  const file = await models.saveSafetensors(changed);
  return models.DiffViT.load({
    "config.json": new TextEncoder().encode(JSON.stringify({ ...CONFIG, ...config })),
    "model.safetensors": file ?? new Uint8Array(),
  });
}

/**
 * The patches' map, of other channels: `of` tells which of the three colours each takes, and how
 * much of it.
 */
const channels =
  (count: number, share: (channel: number, colour: number) => number) =>
  (all: Weights): void => {
    const name = "patch_embed.proj.weight";
    const { data, shape } = all[name] as types.Tensor;
    const [outputs = 0, , rows = 0, columns = 0] = shape;
    const area = rows * columns;
    const made = new Float32Array(outputs * count * area);
    for (let i = 0; i < made.length; i++) {
      const [output, channel, at] = [Math.floor(i / area / count), Math.floor(i / area) % count, i % area];
      for (let colour = 0; colour < 3; colour++)
        made[i] = (made[i] ?? 0) + share(channel, colour) * (data[(output * 3 + colour) * area + at] ?? NaN);
    }
    all[name] = tensor(made, [outputs, count, rows, columns]);
  };

const { shape: SHAPE } = stored(readFixture(readFileSync(path("expected.safetensors"))), "image");
const PIXELS = float32(stored(readFixture(readFileSync(path("expected.safetensors"))), "image"));
const pixels = (): types.Tensor => tensor(PIXELS, SHAPE);

/** 2e-5 of what the values spread over. */
function close(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  const values = Array.from(expected);
  const bound = 2e-5 * (Math.max(...values) - Math.min(...values));
  within(actual, expected, () => bound);
}

function image(seed: number, width: number, height: number): modelTypes.ImageLike {
  const next = uniform(seed);
  return { width, height, data: Uint8Array.from({ length: width * height * 3 }, () => Math.floor(next() * 256)) };
}

const told = async (body: () => unknown): Promise<string> => {
  const { code, message } = await refused(body);
  return `${code} ${message}`;
};

onEachIsa(() => {
  let plain: modelTypes.DiffViT;
  beforeAll(async () => {
    plain = await models.DiffViT.load(fileURLToPath(new URL("../../test/models/diff_vit", import.meta.url)));
  });

  test("without a head: the features that logits are made of", async () => {
    const all = await weights();
    const [head, bias] = [all["head.weight"]?.data ?? [], all["head.bias"]?.data ?? []];
    const model = await variant({ num_classes: 0 }, (some) => {
      for (const name of ["head.weight", "head.bias"]) Reflect.deleteProperty(some, name);
    });
    const features = await model.forward(pixels());
    expect(features.shape).toEqual([2, WIDTH]);
    const logits = await plain.forward(pixels());
    const made = Array.from({ length: 20 }, (_, i) => {
      const [row, of] = [Math.floor(i / 10), i % 10];
      let sum = bias[of] ?? 0;
      for (let at = 0; at < WIDTH; at++) sum += (features.data[row * WIDTH + at] ?? NaN) * (head[of * WIDTH + at] ?? NaN);
      return sum;
    });
    close(logits.data, made);
    expect((await model.forward(image(1, 40, 50))).shape).toEqual([1, WIDTH]);
    expect((await model.maps(image(1, 40, 50), 0)).diff.shape).toEqual([1, 2, 17, 17]);
    expect(await told(() => model.classify(image(1, 40, 50)))).toBe(
      "UNAVAILABLE model: expected one with a head (head.weight) to tell classes by, got one without, whose forward gives features",
    );
    // As timm has it: no classes, whatever the file holds.
    const beside = await variant({ num_classes: 0 });
    sameBits(await beside.forward(pixels()), features);
    model.dispose();
    beside.dispose();
  });

  test("one channel: pixels, and the luminance of images", async () => {
    const model = await variant(
      { in_chans: 1, mean: [0.5] },
      channels(1, () => 1),
    );
    expect(model.config).toMatchObject({ in_chans: 1 });
    // Three equal colours through the three maps are one through their sum.
    const [B = 0, , S = 0] = SHAPE;
    const area = S * S;
    const grey = Float32Array.from({ length: B * area }, (_, i) => PIXELS[Math.floor(i / area) * 3 * area + (i % area)] ?? NaN);
    const three = Float32Array.from({ length: B * 3 * area }, (_, i) => grey[Math.floor(i / area / 3) * area + (i % area)] ?? NaN);
    close((await model.forward(tensor(grey, [B, 1, S, S]))).data, (await plain.forward(tensor(three, [B, 3, S, S]))).data);
    // An image of equal colours is its own luminance (Pillow's weights, of 2^16 in all).
    const coloured = image(2, 70, 90);
    const L = (i: number): number => {
      const [r = 0, g = 0, b = 0] = coloured.data.subarray(3 * i, 3 * i + 3);
      return (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    };
    const equal = { ...coloured, data: coloured.data.map((_, i) => L(Math.floor(i / 3))) };
    close((await model.forward(coloured)).data, (await plain.forward(equal)).data);
    sameBits(await model.forward(coloured), await model.forward(equal));
    expect((await model.classify(coloured, { top: 1 })).length).toBe(1);
    expect(await told(() => model.forward(pixels()))).toBe(`SHAPE pixels: expected shape [B, 1, 64, 64], got [2, 3, 64, 64]`);
    model.dispose();
  });

  test("other channels: pixels alone", async () => {
    const model = await variant(
      { in_chans: 4, mean: [0, 0, 0, 0] },
      channels(4, (channel, colour) => Number(channel === colour)),
    );
    const area = 64 * 64;
    // The fourth is not looked at.
    const four = Float32Array.from({ length: 2 * 4 * area }, (_, i) => {
      const [row, channel] = [Math.floor(i / area / 4), Math.floor(i / area) % 4];
      return channel === 3 ? i % 7 : (PIXELS[(row * 3 + channel) * area + (i % area)] ?? NaN);
    });
    const given = tensor(four, [2, 4, 64, 64]);
    close((await model.forward(given)).data, (await plain.forward(pixels())).data);
    expect((await model.maps(given, 1)).diff.shape).toEqual([2, 2, 17, 17]);
    const first = tensor(four.slice(0, 4 * area), [1, 4, 64, 64]);
    const [best] = await model.classify(first, { top: 1 });
    const [expected] = await plain.classify(tensor(PIXELS.slice(0, 3 * area), [1, 3, 64, 64]), { top: 1 });
    expect(best?.index).toBe(expected?.index);
    const sentence = "DTYPE image: expected a tensor [B, 4, H, W], as the model takes 4 channels, got an image, which has colours";
    for (const call of [
      () => model.forward(image(1, 8, 8)),
      () => model.forward([image(1, 8, 8)]),
      () => model.classify(image(1, 8, 8)),
      () => model.maps(image(1, 8, 8), 0),
    ])
      expect(await told(call)).toBe(sentence);
    expect(await told(() => model.classify(given))).toBe("SHAPE image: expected one image, [1, C, H, W], got [2, 4, 64, 64]");
    model.dispose();
  });

  describe("any whole patches", () => {
    let model: modelTypes.DiffViT;
    beforeAll(async () => {
      model = await variant({ dynamic_img_size: true });
    });

    test("of the config's own size nothing changes", async () => {
      expect(model.config).toMatchObject({ dynamic_img_size: true, img_size: 64 });
      sameBits(await model.forward(pixels()), await plain.forward(pixels()));
      sameBits(await model.forward(image(3, 50, 30)), await plain.forward(image(3, 50, 30)));
    });

    test("of other sizes there are as many tokens as patches", async () => {
      const next = uniform(9);
      for (const [rows, columns] of [
        [2, 6],
        [7, 1],
        [5, 5],
      ] as const) {
        const shape = [1, 3, rows * 16, columns * 16];
        const some = tensor(
          Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => next() - 0.5),
          shape,
        );
        expect((await model.forward(some)).shape).toEqual([1, 10]);
        const tokens = 1 + rows * columns;
        const { diff, map1 } = await model.maps(some, 2);
        expect(diff.shape).toEqual([1, 2, tokens, tokens]);
        let sum = 0;
        for (let at = 0; at < tokens; at++) sum += map1?.data[at] ?? NaN;
        expect(sum).toBeCloseTo(1, 5);
      }
    });

    test("others are refused", async () => {
      for (const shape of [
        [1, 3, 40, 64],
        [1, 3, 0, 16],
        [1, 1, 16, 16],
      ])
        expect(await told(() => model.forward(tensor(new Float32Array(shape.reduce((a, b) => a * b)), shape)))).toBe(
          `SHAPE pixels: expected shape [B, 3, H, W], H and W multiples of the patch size 16, got [${shape.join(", ")}]`,
        );
      expect(await told(() => variant({ model_args: { dynamic_img_pad: true } }))).toMatch(/^FILE .*dynamic_img_pad: expected false: /);
    });
  });
});
