// diffattn convert --adapter: a folder with the differences merged, quantised where it is asked for,
// and what does not go together.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { diffattn, folder, modelOf } from "./run.js";

const llama = modelOf("llama");
const adapter = modelOf("diffattn_llama/adapter");

interface Config {
  readonly model_type: string;
  readonly diff_attention: object;
  readonly quantization?: object;
}
const configOf = (folder: string): Config => JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Config;

test("an adapter is merged over the conversion that it names", async () => {
  const out = join(folder(), "healed");
  const { code, err } = await diffattn(["convert", llama, out, "--adapter", adapter]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(configOf(out)).toMatchObject({ model_type: "diffattn_llama", diff_attention: { kind: "v2", order: "pairs" } });
  expect((await diffattn(["inspect", out])).out).toContain("unexpected: none");
});

test("--dtype is that of all weights, not only of those that an adapter changes", async () => {
  const out = join(folder(), "bf16");
  expect(await diffattn(["convert", llama, out, "--adapter", adapter, "--dtype", "bf16"])).toMatchObject({ code: 0 });
  const { dtypes } = JSON.parse((await diffattn(["inspect", out, "--json"])).out) as { dtypes: { dtype: string }[] };
  expect(dtypes.map(({ dtype }) => dtype)).toEqual(["BF16"]);
});

test("a quantised source, quantised again", async () => {
  const out = join(folder(), "q8");
  const gguf = join(modelOf("gguf"), "q4_1", "model.gguf");
  // (Its heads are others than the adapter's.)
  const { code, err } = await diffattn(["convert", gguf, out, "--adapter", adapter, "--dtype", "q8"]);
  expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("adapter") as string });
  expect(existsSync(out)).toBe(false);
  const converted = join(folder(), "converted");
  expect(await diffattn(["convert", gguf, converted, "--to", "diff", "--share", "1"])).toMatchObject({ code: 0 });
  expect(configOf(converted)).toMatchObject({ model_type: "diffattn_llama", quantization: { bits: 4, group_size: 32 } });
});

test.each([
  ["--to", "diff"],
  ["--share", "1/2"],
  ["--lambda", "0.3"],
])("%s does not go with an adapter", async (...option) => {
  const { code, err } = await diffattn(["convert", llama, join(folder(), "out"), "--adapter", adapter, ...option]);
  expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining("--adapter names its conversion") as string });
});
