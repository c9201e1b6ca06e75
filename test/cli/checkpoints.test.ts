// Checkpoints inspected and converted.

import { cpSync, existsSync, linkSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSafetensors } from "./models.js";
import type { Inspection } from "../../packages/diffattn/src/models/types.js";
import { diffattn, folder, modelOf, trained } from "./run.js";

const out = folder();

async function inspected(path: string): Promise<Inspection> {
  const { code, out, err } = await diffattn(["inspect", path, "--json"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return JSON.parse(out) as Inspection;
}

/** Names of tensors whose bytes differ; an absent one counts. */
async function differing(a: string, b: string): Promise<string[]> {
  using first = await openSafetensors(a);
  using second = await openSafetensors(b);
  const names = new Set([...first.names, ...second.names]);
  const different: string[] = [];
  for (const name of names) {
    if (!first.names.includes(name) || !second.names.includes(name)) different.push(name);
    else {
      const [x, y] = [await first.read(name), await second.read(name)];
      if (x.dtype !== y.dtype || x.shape.join() !== y.shape.join() || !Buffer.from(x.data).equals(y.data)) different.push(name);
    }
  }
  return different;
}

test.each([
  ["diffllama_bias", "diffllama", "halves"],
  ["diffllama_gqa", "diffllama", "halves"],
  ["diffllama_llama3_rope", "diffllama", "halves"],
  ["diffllama_mha", "diffllama", "halves"],
  ["diff_vit", "diff_vit", "interleaved"],
])("%s is a whole %s", async (name, architecture, pairing) => {
  const found = await inspected(modelOf(name));
  expect(found).toMatchObject({ architecture, missing: [], unexpected: [] });
  expect(found.layers).toHaveLength(3);
  for (const layer of found.layers) expect(layer).toMatchObject({ pairing });
  const { out } = await diffattn(["inspect", modelOf(name), "--tensors"]);
  expect(out).toContain(`architecture   ${architecture}\n`);
  expect(out).toContain("missing: none\nunexpected: none\n");
  using file = await openSafetensors(modelOf(name));
  for (const tensor of file.names) expect(out).toContain(tensor);
});

test("the trained model's report", async () => {
  const { out } = await diffattn(["inspect", trained]);
  expect(out.split("\n").slice(0, 4)).toEqual([
    "architecture   diffllama",
    "parameters     6,952,192",
    "element types  BF16: 106 tensors, 6,952,192 parameters, 13.9 MB",
    "layers         8 with differential attention",
  ]);
});

test("head counts that are halved in the configuration are a warning", async () => {
  const odd = join(out, "halved");
  cpSync(trained, odd, { recursive: true });
  const path = join(odd, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8")) as Record<string, number | undefined>;
  delete config["head_dim"];
  writeFileSync(path, JSON.stringify({ ...config, num_attention_heads: 4, num_key_value_heads: 2 }));
  const { code, out: told } = await diffattn(["inspect", odd]);
  expect(code).toBe(0);
  expect(told).toMatch(
    /^warning: config\.json says num_attention_heads 4, .*it seems to count output heads; diffllama counts flat heads, of which q_proj has 8$/m,
  );
});

test("float32 and back is the same file, and a folder brings what belongs to it", async () => {
  const [wide, narrow] = [join(out, "f32"), join(out, "bf16")];
  expect(await diffattn(["convert", trained, wide, "--dtype", "f32"])).toMatchObject({ code: 0, out: "", err: "" });
  expect(readdirSync(wide).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]);
  expect(JSON.parse(readFileSync(join(wide, "config.json"), "utf8"))).toMatchObject({ dtype: "float32", num_attention_heads: 8 });
  const found = await inspected(wide);
  expect(found.dtypes.map(({ dtype, bytes }) => [dtype, bytes])).toEqual([["F32", 4 * 6952192]]);
  expect(found).toMatchObject({ architecture: "diffllama", missing: [], unexpected: [], warnings: [] });

  expect((await diffattn(["convert", wide, narrow, "--dtype", "bf16"])).code).toBe(0);
  expect((await inspected(narrow)).dtypes.map(({ dtype }) => dtype)).toEqual(["BF16"]);
  expect(await differing(trained, narrow)).toEqual([]);
  const generated = (folder: string): Promise<{ out: string }> => diffattn(["generate", folder, "A thread is", "-n", "16"]);
  expect((await generated(wide)).out).toBe((await generated(trained)).out);
});

test.each(["diffllama_bias", "diffllama_gqa", "diffllama_mha"])("%s in unilm's layout and back is the same", async (name) => {
  const [there, back] = [join(out, `${name}-unilm.safetensors`), join(out, `${name}.safetensors`)];
  expect((await diffattn(["convert", modelOf(name), there, "--layout", "unilm"])).code).toBe(0);
  const found = await inspected(there);
  expect(found).toMatchObject({ architecture: "unilm" });
  for (const layer of found.layers) expect(layer).toMatchObject({ pairing: "interleaved", normWeight: true, rope: { interleaved: true } });
  expect(await differing(modelOf(name), there)).not.toEqual([]);
  expect((await diffattn(["convert", there, back, "--layout", "diffllama"])).code).toBe(0);
  expect(await differing(modelOf(name), back)).toEqual([]);
});

test("a target that is there stays, unless --force says otherwise; a failure leaves nothing", async () => {
  const target = join(out, "kept.safetensors");
  writeFileSync(target, "mine");
  const refused = await diffattn(["convert", trained, target, "--dtype", "f16"]);
  expect(refused).toMatchObject({ code: 1, err: `diffattn: ${target}: it is there already; --force replaces it\n` });
  expect(readFileSync(target, "utf8")).toBe("mine");
  expect((await diffattn(["convert", trained, target, "--dtype", "f16", "--force"])).code).toBe(0);
  expect((await inspected(target)).dtypes.map(({ dtype }) => dtype)).toEqual(["F16"]);

  const half = join(out, "half.safetensors");
  writeFileSync(half, readFileSync(join(trained, "model.safetensors")).subarray(0, 1_000_000));
  const failed = await diffattn(["convert", half, join(out, "never.safetensors"), "--dtype", "f16"]);
  expect(failed).toMatchObject({ code: 1, out: "" });
  expect(failed.err).toMatch(/^diffattn: half\.safetensors, tensor \S.*\n$/);
  expect((await diffattn(["convert", half, join(out, "never", "at", "all"), "--dtype", "f16"])).code).toBe(1);
  expect(readdirSync(out).filter((name) => name.startsWith("never") || name.endsWith(".tmp"))).toEqual([]);
});

test("the source is never the target, by whatever name; what a link leads to is not written", async () => {
  const source = join(out, "source");
  cpSync(modelOf("diffllama_mha"), source, { recursive: true });
  symlinkSync("source", join(out, "same"));
  linkSync(join(source, "model.safetensors"), join(out, "second.safetensors"));
  for (const target of [join(out, "same"), `${source}/../source/`, join(out, "second.safetensors"), join(source, "model.safetensors")]) {
    const ended = await diffattn(["convert", source, target, "--dtype", "f16", "--force"]);
    expect(ended, target).toMatchObject({ code: 2, out: "" });
    expect(await differing(source, modelOf("diffllama_mha"))).toEqual([]);
  }
  writeFileSync(join(out, "elsewhere"), "mine");
  symlinkSync("elsewhere", join(out, "link.safetensors"));
  expect((await diffattn(["convert", source, join(out, "link.safetensors"), "--dtype", "f16"])).err).toMatch(/it is there already/);
  expect((await diffattn(["convert", source, join(out, "link.safetensors"), "--dtype", "f16", "--force"])).code).toBe(0);
  expect(readFileSync(join(out, "elsewhere"), "utf8")).toBe("mine");
  expect((await inspected(join(out, "link.safetensors"))).dtypes.map(({ dtype }) => dtype)).toEqual(["F16"]);
});

test("what is no checkpoint is named, with what one is", async () => {
  const passwd = join(out, "passwd");
  writeFileSync(passwd, "root:x:0:0:root:/root:/bin/sh\n".repeat(20));
  const { code, err } = await diffattn(["inspect", passwd]);
  expect(code).toBe(1);
  expect(err).toMatch(/^diffattn: passwd: .* \(a checkpoint is a folder, a safetensors or GGUF file, or an address: \S+passwd\)\n$/);
  expect((await diffattn(["inspect", join(out, "nowhere")])).err).toBe(
    `diffattn: ${join(out, "nowhere")}: there is no such file or folder\n`,
  );
});

test.each([
  ["inspect", [join(out, "nowhere")], 1],
  ["inspect", [join(trained, "README.md")], 1],
  ["inspect", [join(trained, "config.json")], 1],
  ["convert", [trained, trained, "--dtype", "f32"], 2],
  ["convert", [join(modelOf("diff_vit"), "config.json"), join(out, "x"), "--layout", "unilm"], 1],
] as const)("%s %j is one sentence and its code", async (command, args, code) => {
  const ended = await diffattn([command, ...args]);
  expect(ended).toMatchObject({ code, out: "" });
  expect(ended.err).toMatch(/^diffattn: \S.*\n$/);
  expect(existsSync(join(out, "x", "model.safetensors"))).toBe(false);
});
