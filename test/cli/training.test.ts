// The commands of training: texts to tokens, a model trained and sampled, the curve; what is saved by
// a signal, what kill −9 leaves, and that both are gone on from to the same bits.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LanguageModel } from "./models.js";
import { diffattn, folder, program, trained } from "./run.js";

const out = folder();
const text = join(out, "text.txt");
writeFileSync(text, Array.from({ length: 400 }, (_, i) => `A Vec of ${i} elements is a contiguous growable array type.\n`).join(""));

const at = (...names: string[]): string => join(out, ...names);
const common = ["--data", text, "--context", "32", "--batch", "8", "--lr", "1e-3", "--eval", "0.1"];
const train = (name: string, ...more: string[]) => diffattn(["train", trained, "--out", at(name), ...common, ...more]);
const same = (one: string, other: string): boolean => readFileSync(one).equals(readFileSync(other));

interface Step {
  step: number;
  loss: number;
  saved?: string;
}

const stepsOf = (lines: string): Step[] =>
  lines
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Step)
    .filter((line) => "loss" in line);

describe("tokens", () => {
  test("texts become a file of tokens", async () => {
    const made = await diffattn(["tokens", text, text, at("two.tokens"), "--tokenizer", trained, "--end-id", "0", "-v"]);
    expect(made.code).toBe(0);
    expect(made.err).toMatch(/tokens of 2 documents in /);
    expect(readFileSync(at("two.tokens")).subarray(0, 4).toString()).toBe("DATK");
    const again = await diffattn(["tokens", text, at("two.tokens"), "--tokenizer", trained]);
    expect(again).toMatchObject({ code: 1, err: expect.stringMatching(/it is there already; --force replaces it/) as string });
    expect((await diffattn(["tokens", at("none.txt"), at("x.tokens"), "--tokenizer", trained])).err).toMatch(/there is no such file/);
    expect((await diffattn(["tokens", text, "--tokenizer", trained])).code).toBe(2);
  });
});

describe("train", () => {
  test("a model learns a text; it is sampled, drawn and loaded", async () => {
    const run = await train("run", "--steps", "6", "--eval-every", "3", "--sample", "A Vec", "--sample-tokens", "4", "-v");
    expect(run.err).toMatch(/values move .* windows of 32 tokens to train on/);
    expect(run.code).toBe(0);
    expect(run.out).toMatch(/^step 1\/6 {2}loss \d\.\d{3}/);
    expect(run.out).toMatch(/^step 3\/6 {2}loss \d\.\d{3} \(eval \d\.\d{3}\) /m);
    expect(run.out).toMatch(/^ {2}A Vec\|/m);
    expect(readdirSync(at("run")).sort()).toEqual(["latest", "loss.csv", "loss.svg", "step-000006"]);
    expect(readFileSync(at("run", "loss.svg"), "utf8")).toMatch(/^<svg [^>]*role="img".*<\/svg>\n$/s);
    const rows = readFileSync(at("run", "loss.csv"), "utf8").trim().split("\n");
    expect(rows).toHaveLength(7);
    expect(Number(rows[6]?.split(",")[2])).toBeLessThan(Number(rows[1]?.split(",")[2]));
    using model = await LanguageModel.load(at("run", "step-000006"));
    expect(model.tokenizer).not.toBeNull();
    // Nothing is left to do.
    const more = await train("run", "--steps", "6", "--resume");
    expect(more).toMatchObject({ code: 0, out: "" });
  });

  // (Seven runs of a model of 7 million weights, which a busy machine takes its time for.)
  test("Ctrl-C and SIGTERM end the step and save; what is killed lost no checkpoint; all go on to the same bits", async () => {
    const long = ["--steps", "12", "--save-every", "2", "--keep", "9", "--json"];
    const whole = await train("whole", ...long);
    const expected = stepsOf(whole.out);
    expect(expected).toHaveLength(12);
    for (const [signal, code] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
      ["SIGKILL", null],
    ] as const) {
      const name = `by-${signal}`;
      const child = spawn(process.execPath, [program, "train", trained, "--out", at(name), ...common, ...long], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      let [seen, sent] = ["", false];
      child.stdout.on("data", (piece: Buffer) => {
        seen += piece.toString();
        if (seen.split("\n").length > 5 && !sent) sent = child.kill(signal);
      });
      const [ended] = (await once(child, "close")) as [number | null];
      expect(ended, signal).toBe(code);
      const made = stepsOf(seen.slice(0, seen.lastIndexOf("\n"))).at(-1)?.step ?? 0;
      expect(made, signal).toBeLessThan(12);
      const latest = readFileSync(at(name, "latest"), "utf8").trim();
      // (A signal saves where it is; kill −9 leaves the last that was saved.)
      expect(existsSync(at(name, latest, "training.json"))).toBe(true);
      const rest = await train(name, ...long, "--resume");
      expect(rest.code, rest.err).toBe(0);
      const from = Number(latest.slice(5));
      expect(from).toBeGreaterThanOrEqual(made - 2);
      expect(stepsOf(rest.out).map(({ step, loss }) => [step, loss])).toEqual(expected.slice(from).map(({ step, loss }) => [step, loss]));
      for (const file of ["model.safetensors", "optimizer.safetensors"])
        expect(same(at(name, "step-000012", file), at("whole", "step-000012", file)), `${signal} ${file}`).toBe(true);
    }
  }, 300_000);

  test("what kill −9 leaves in the middle of a checkpoint is never taken for one", async () => {
    await train("part", "--steps", "4", "--save-every", "2");
    mkdirSync(at("part", "step-000006.part"));
    writeFileSync(at("part", "step-000006.part", "model.safetensors"), "half");
    const rest = await train("part", "--steps", "4", "--resume");
    expect(rest.code, rest.err).toBe(0);
    writeFileSync(at("part", "latest"), "../../etc\n");
    expect((await train("part", "--steps", "4", "--resume")).err).toMatch(/latest: expected the name of a checkpoint/);
  });

  test("from nothing, and adapters", async () => {
    const config = JSON.parse(readFileSync(join(trained, "config.json"), "utf8")) as object;
    writeFileSync(
      at("config.json"),
      JSON.stringify({
        ...config,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
      }),
    );
    const scratch = ["train", at("config.json"), "--from-scratch", "--tokenizer", trained, "--out", at("fresh"), ...common];
    const fresh = await diffattn([...scratch, "--steps", "3", "--json"]);
    expect(fresh.code, fresh.err).toBe(0);
    expect(stepsOf(fresh.out)[0]?.loss).toBeGreaterThan(5);
    const adapters = await train("adapters", "--steps", "2", "--rank", "4", "--teacher", trained, "--json");
    expect(adapters.code, adapters.err).toBe(0);
    expect(readdirSync(at("adapters", "step-000002"))).toContain("adapter_model.safetensors");
  });

  test("what cannot be meant, and what stands in the way", async () => {
    const said = async (...args: string[]): Promise<string> => (await diffattn(["train", ...args])).err;
    expect(await said(trained, "--out", at("x"))).toMatch(/--data/);
    expect(await said(trained, "--data", at("none.txt"), "--out", at("x"))).toMatch(/none.txt: cannot be read: there is no such file/);
    expect(await said(trained, "--data", text, "--out", at("x"), "--lr", "-1")).toMatch(/--lr/);
    expect(await said(at("text.txt"), "--from-scratch", "--data", text, "--out", at("x"))).toMatch(/expected a config.json/);
    expect(await said(trained, "--data", text, "--out", text)).toMatch(/text.txt/);
    expect(await said(trained, "--data", text, "--out", at("x"), "--freeze", "no such thing")).toMatch(/freeze: expected patterns/);
    const diverged = await train("diverged", "--steps", "9", "--lr", "1e30", "--clip", "0", "--warmup", "0");
    expect(diverged.code).toBe(1);
    expect(diverged.err).toMatch(/training diverged in step \d: the loss is .*; try a smaller --lr/);
  });
});
