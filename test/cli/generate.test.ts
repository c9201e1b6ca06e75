// Text out of the trained model: the words that float64 expects, in every way of asking.

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { readFixture, stored } from "../suite/safetensors.js";
import { diffattn, modelOf, trained } from "./run.js";

interface Case {
  prompt: string;
  continuation: string;
}

const fixture = readFixture(readFileSync(join(trained, "expected.safetensors")));
const cases = (fixture.options as unknown as Case[]).map(({ prompt, continuation }, i) => {
  const { bytes } = stored(fixture, `${i}.greedy`);
  const ids = [...new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8)].map(Number);
  // The cases go on after the id that ends a text.
  const end = ids.slice(ids.length - 48).indexOf(0);
  return { prompt, continuation: end < 0 ? continuation : continuation.slice(0, continuation.indexOf("\n") + 1), ends: end >= 0 };
});

test("one of the cases ends by itself", () => expect(cases.map(({ ends }) => ends)).toEqual([false, true, false, false]));

describe.each(cases)("after $prompt", ({ prompt, continuation }) => {
  test("the text is the expected one, and nothing else", async () => {
    const { code, out, err } = await diffattn(["generate", trained, prompt, "-n", "48"]);
    expect({ code, out, err }).toEqual({ code: 0, out: continuation, err: "" });
  });
});

const { prompt, continuation } = cases[0] as Case;

test.each(["native", "wasm"])("%s", async (backend) => {
  const { code, out } = await diffattn(["generate", trained, prompt, "-n", "48", "--backend", backend, "--threads", "1"]);
  expect({ code, out }).toEqual({ code: 0, out: continuation });
});

test("standard input is a prompt; its last line end is not part of it", async () => {
  for (const input of [prompt, `${prompt}\n`, `${prompt}\r\n`]) {
    const { code, out } = await diffattn(["generate", trained, "-n", "8"], { input });
    expect(code).toBe(0);
    expect(continuation.startsWith(out) && out.length > 8, out).toBe(true);
  }
});

test("words without quotes are one prompt", async () => {
  const { out } = await diffattn(["generate", trained, "-n", "8", ...prompt.split(" ")]);
  expect(continuation.startsWith(out) && out.length > 8, out).toBe(true);
});

test("--verbose tells a pipe the speed, on standard error", async () => {
  const { out, err } = await diffattn(["generate", trained, prompt, "-n", "48", "--verbose"]);
  expect(out).toBe(continuation);
  expect(err).toMatch(/^48 tokens, [\d.]+ tokens\/s; prompt of 4 tokens, first token after [\d.]+ m?s\n$/);
});

test("what is odd about a checkpoint is told on standard error, and the text is its own", async () => {
  const path = join(mkdtempSync(join(tmpdir(), "diffattn-odd-")), "odd");
  try {
    cpSync(trained, path, { recursive: true });
    const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8")) as { num_hidden_layers: number };
    writeFileSync(join(path, "config.json"), JSON.stringify({ ...config, num_hidden_layers: config.num_hidden_layers - 1 }));
    const { code, out, err } = await diffattn(["generate", path, prompt, "-n", "4"]);
    expect(code).toBe(0);
    expect(out).not.toBe("");
    expect(err).toMatch(/^note: config.json says 7 layers, .*\n(note: .*\n)*$/);
  } finally {
    rmSync(dirname(path), { recursive: true, force: true });
  }
});

test("--json is one object", async () => {
  const { code, out } = await diffattn(["generate", trained, prompt, "-n", "5", "--json"]);
  expect(code).toBe(0);
  const told = JSON.parse(out) as Record<string, unknown>;
  expect(told).toMatchObject({ prompt, promptTokens: 4, finish: "length", ids: [1138, 14, 199, 199, 3] });
  expect(continuation.startsWith(told["text"] as string)).toBe(true);
  expect(told["tokensPerSecond"]).toBeGreaterThan(0);
});

test("text ends before a stop string", async () => {
  const { out } = await diffattn(["generate", trained, prompt, "-n", "48", "--stop", "# Examples", "--stop", "never"]);
  expect(out).toBe(continuation.slice(0, continuation.indexOf("# Examples")));
});

test("a seed gives the same text again, another one another", async () => {
  const sampled = async (seed: string): Promise<string> =>
    (
      await diffattn([
        "generate",
        trained,
        prompt,
        "-n",
        "24",
        "-t",
        "1",
        "--top-k",
        "50",
        "--top-p",
        "0.95",
        "--repetition-penalty",
        "1.1",
        "--seed",
        seed,
      ])
    ).out;
  const [first, again, other] = [await sampled("7"), await sampled("7"), await sampled("8")];
  expect(again).toBe(first);
  expect(other).not.toBe(first);
});

test("SIGINT ends generation with 130 and without a word", async () => {
  let sent = false;
  const { code, out, err } = await diffattn(["generate", trained, prompt, "-n", "100000", "--window", "64"], {
    onOutput: (child) => {
      if (!sent) child.kill("SIGINT");
      sent = true;
    },
  });
  expect({ code, err }).toEqual({ code: 130, err: "" });
  expect(out.length).toBeGreaterThan(0);
});

test("a reader that goes away ends it quietly", async () => {
  const { code, err } = await diffattn(["generate", trained, prompt, "-n", "100000", "--window", "64"], {
    onOutput: (child) => child.stdout?.destroy(),
  });
  expect({ code, err }).toEqual({ code: 0, err: "" });
});

test.each([
  ["no such model", [join(trained, "nowhere"), "a"], /^diffattn: .*nowhere: there is no such file or folder\n$/],
  ["no tokenizer", [modelOf("diffllama_mha"), "a"], /^diffattn: tokenizer: expected .*, got none\n$/],
  [
    "a picture model",
    [modelOf("diff_vit"), "a"],
    /^diffattn: .*diff_vit: it is a DIFF vision transformer, which looks at pictures; "diffattn classify" and "diffattn maps" take it\n$/,
  ],
  ["an address that answers nothing", ["http://127.0.0.1:9/", "a"], /^diffattn: \S.*\n$/],
])("%s: one sentence and code 1", async (_, args, sentence) => {
  const { code, out, err } = await diffattn(["generate", ...args]);
  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(err).toMatch(sentence);
});

test("a tokenizer without an end, or one that is a FIFO: one sentence and code 1", async () => {
  const spaces = new Uint8Array(2 ** 16).fill(32);
  const server = createServer(({ url = "" }, response) => {
    const path = join(trained, url);
    if (!existsSync(path)) return void response.writeHead(404).end();
    response.writeHead(200);
    if (url !== "/tokenizer.json") return void response.end(readFileSync(path));
    const more = (): void => {
      while (!response.destroyed && response.write(spaces));
    };
    response.on("drain", more);
    more();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const folder = mkdtempSync(join(tmpdir(), "diffattn-cli-"));
  try {
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const endless = await diffattn(["generate", address, "a"]);
    expect({ code: endless.code, out: endless.out }).toEqual({ code: 1, out: "" });
    expect(endless.err).toMatch(/^diffattn: .*tokenizer\.json: expected at most 67108864 bytes .*\n$/);
    if (process.platform === "win32") return;
    for (const name of ["config.json", "model.safetensors"]) symlinkSync(join(trained, name), join(folder, name));
    execFileSync("mkfifo", [join(folder, "tokenizer.json")]);
    const fifo = await diffattn(["generate", folder, "a"]);
    expect({ code: fifo.code, out: fifo.out }).toEqual({ code: 1, out: "" });
    expect(fifo.err).toMatch(/^diffattn: .*tokenizer\.json: expected a regular file at .*, got a FIFO\n$/);
  } finally {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true });
  }
});
