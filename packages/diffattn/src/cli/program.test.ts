// Arguments, help, exit codes and sentences, in this process; test/package and test/suite run the
// built program.

import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { expect, test, vi } from "vitest";
import { bytes } from "./format.js";
import { main, program } from "./program.js";
import { Terminal } from "./terminal.js";

vi.stubGlobal("__VERSION__", "1.2.3");

interface Told {
  out: string;
  err: string;
}

/** A terminal whose streams are read afterwards. */
function scene({ input = "", tty = false, aborted = false } = {}): { terminal: Terminal; end: () => Promise<Told> } {
  const stdin = Object.assign(new PassThrough(), { isTTY: false });
  stdin.end(input);
  const stdout = Object.assign(new PassThrough(), { isTTY: tty });
  const stderr = Object.assign(new PassThrough(), { isTTY: tty });
  const told = Promise.all([text(stdout), text(stderr)]);
  return {
    terminal: new Terminal({ stdin, stdout, stderr }, aborted ? AbortSignal.abort() : new AbortController().signal),
    end: async () => {
      stdout.end();
      stderr.end();
      const [out, err] = await told;
      return { out, err };
    },
  };
}

async function run(...args: string[]): Promise<Told & { code: number }> {
  const { terminal, end } = scene();
  const written = vi.spyOn(process.stdout, "write").mockImplementation(() => true);
  const complained = vi.spyOn(process.stderr, "write").mockImplementation(() => true);
  try {
    const code = await main(terminal, args);
    const printed = written.mock.calls.map(([part]) => String(part)).join("");
    const { out, err } = await end();
    return { code, out: printed + out, err: complained.mock.calls.map(([part]) => String(part)).join("") + err };
  } finally {
    written.mockRestore();
    complained.mockRestore();
  }
}

const commands = ["generate", "maps", "classify", "convert", "inspect", "evaluate", "bench", "doctor"];

test.each(commands)("%s --help has examples and says what every argument is", async (command) => {
  const { code, out, err } = await run(command, "--help");
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(out).toContain(`Usage: diffattn ${command}`);
  expect(out).toMatch(new RegExp(`Examples:\\n( .*\\n)* .*diffattn ${command}`));
});

test("the help lists every command, the version is the package's", async () => {
  const { code, out } = await run("--help");
  expect(code).toBe(0);
  for (const command of commands) expect(out).toMatch(new RegExp(`^ {2}${command} `, "m"));
  expect(await run("--version")).toMatchObject({ code: 0, out: "1.2.3\n", err: "" });
});

test("without a command the help is an error", async () => {
  const { code, out, err } = await run();
  expect(code).toBe(2);
  expect(out).toBe("");
  expect(err).toContain("Usage: diffattn");
});

test.each([
  [["unknown"], "diffattn: unknown command 'unknown'"],
  [["generate"], "diffattn: missing required argument 'model'"],
  [["generate", "m", "--colour"], "diffattn: unknown option '--colour'"],
  [["generate", "m", "-n", "0"], "option '-n, --max-new-tokens <count>' argument '0' is invalid. Expected an integer of 1 or more."],
  [["generate", "m", "-n", "1.5"], "Expected an integer of 1 or more."],
  [["generate", "m", "-t", "-1"], "Expected a number of 0 or more."],
  [["generate", "m", "--top-p", "0"], "Expected a number above 0 and at most 1."],
  [["generate", "m", "--top-p", "1.01"], "Expected a number above 0 and at most 1."],
  [["generate", "m", "--seed", ""], "Expected an integer from 0 to 9007199254740991."],
  [["generate", "m", "--backend", "gpu"], "Allowed choices are native, wasm."],
  [["maps", "m", "a", "--format", "gif"], "Allowed choices are html, svg, png, json."],
  [["maps", "m", "a", "-o", "file.gif"], "diffattn: file.gif: expected a name that ends with .html, .svg, .png or .json, or --format"],
  [["classify", "m"], "diffattn: missing required argument 'picture'"],
  [["convert", "a", "b", "--dtype", "f64"], "Allowed choices are f32, f16, bf16, float32, float16, bfloat16, q8, q4."],
  [["convert", "a", "b"], "diffattn: convert: expected --to, --adapter, --fold, --dtype or --layout, got none of them"],
  [["evaluate", "m"], "diffattn: evaluate: expected --data FILE, or --needle LENGTHS with or without it, got neither"],
  [["evaluate", "m", "--needle", "1k", "--limit", "9"], "--context and --limit are for the loss of --data, without --needle"],
  [["evaluate", "m", "--data", "f", "--draws", "9"], "--depths, --draws, --seed and --attention are for --needle"],
  [["evaluate", "m", "--needle", "1k,0"], "argument '1k,0' is invalid. Expected numbers of tokens, as \"1k,2k,4096\"."],
  [["evaluate", "m", "--needle", "0.5k"], 'Expected numbers of tokens, as "1k,2k,4096".'],
  [["evaluate", "m", "--needle", "8", "--depths", "0,2"], 'Expected a share from 0 to 1, as "1/2" or 0.5.'],
  [["evaluate", "m", "--data", "f", "--context", "1"], "Expected an integer of 2 or more."],
  [["bench", "--seconds", "0"], "Expected a number above 0 and at most 600."],
])("%j is one sentence and code 2", async (args, sentence) => {
  const { code, out, err } = await run(...args);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain(sentence);
  expect(err.trimEnd()).not.toContain("\n");
});

test("options arrive as numbers, and a prompt as the words it was given as", () => {
  const { terminal } = scene();
  const root = program(terminal);
  const generate = root.commands.find((command) => command.name() === "generate");
  const action = vi.fn();
  generate?.action(action);
  root.parse(["generate", "m", "A", "Vec is", "-n", "3", "--top-p", "0.5", "--stop", "a", "--stop", "b", "--isa", "avx2"], {
    from: "user",
  });
  expect(action.mock.calls[0]?.slice(0, 3)).toEqual([
    "m",
    ["A", "Vec is"],
    { maxNewTokens: 3, temperature: 0, topP: 0.5, stop: ["a", "b"], isa: "avx2" },
  ]);
});

test("lengths and depths arrive as numbers", () => {
  const { terminal } = scene();
  const root = program(terminal);
  const action = vi.fn();
  root.commands.find((command) => command.name() === "evaluate")?.action(action);
  root.parse(["evaluate", "a", "b", "--needle", "1k,8K,300", "--depths", "0,1/4,0.5"], { from: "user" });
  expect(action.mock.calls[0]?.slice(0, 3)).toEqual(["a", "b", { needle: [1024, 8192, 300], depths: [0, 0.25, 0.5] }]);
});

test.each([
  [["\u001b[31munknown\r"], "diffattn: unknown command '\\u001b[31munknown\\u000d'\n"],
  [["generate", "m", "--\u009bcolour"], "diffattn: unknown option '--\\u009bcolour'\n"],
  [
    ["maps", "m", "a", "-o", "\u001bc.gif"],
    "diffattn: \\u001bc.gif: expected a name that ends with .html, .svg, .png or .json, or --format\n",
  ],
])("%j is shown, not obeyed", async (args, sentence) => {
  expect(await run(...args)).toEqual({ code: 2, out: "", err: sentence });
});

test("after an interruption the code is 130 and nothing is said", async () => {
  const { terminal, end } = scene({ aborted: true });
  expect(await main(terminal, ["convert", "a", "b"])).toBe(130);
  expect(await end()).toEqual({ out: "", err: "" });
});

test("a terminal is told more than a pipe", async () => {
  for (const [tty, verbose, expected] of [
    [true, false, "speed\n"],
    [false, false, ""],
    [false, true, "speed\n"],
  ] as const) {
    const { terminal, end } = scene({ tty });
    terminal.isVerbose = verbose;
    terminal.note("speed");
    expect(await end()).toEqual({ out: "", err: expected });
  }
});

test("a bar is drawn on a terminal, for long work only", async () => {
  vi.stubEnv("TERM", "xterm");
  vi.useFakeTimers();
  try {
    for (const [tty, wait, drawn] of [
      [true, 1000, true],
      [true, 10, false],
      [false, 1000, false],
    ] as const) {
      const { terminal, end } = scene({ tty });
      const bar = terminal.bar("loading", bytes);
      bar.update({ done: 1000, total: 4000 });
      vi.advanceTimersByTime(wait);
      bar.update({ done: 2000, total: 4000 });
      bar.stop();
      const { err } = await end();
      expect(err.includes("loading"), `${tty} ${wait}`).toBe(drawn);
      if (drawn) expect(err).toContain("2.0 KB of 4.0 KB");
    }
  } finally {
    vi.useRealTimers();
    vi.unstubAllEnvs();
  }
});

test("nothing that leaves is obeyed, but what was asked for itself is as it is in a pipe", async () => {
  const trick = "\u001b]0;a\u0007\u009b\r\u007f";
  const shown = "\\u001b]0;a\\u0007\\u009b\\u000d\\u007f";
  for (const tty of [true, false]) {
    const { terminal, end } = scene({ tty });
    terminal.isVerbose = true;
    await terminal.line(`${trick}\t\n`);
    await terminal.text(`${trick}\n`);
    await terminal.json({ [trick]: trick }, 1);
    // A character's code units may come apart.
    for (const unit of `${trick}\n\u{1F600}`.match(/./gsu) ?? []) await terminal.content(unit);
    terminal.note(trick);
    terminal.complain(trick);
    const { out, err } = await end();
    const json = `{\n "${shown.replaceAll("\\u000d", "\\r")}": "${shown.replaceAll("\\u000d", "\\r")}"\n}\n`;
    expect(out).toBe(`${shown}\t\\u000a\n${shown}\n${json}${tty ? shown : trick}\n\u{1F600}`);
    expect(err).toBe(`${shown}\n${shown}\n`);
  }
});

test("bytes are nothing for a terminal", () => {
  const { terminal } = scene({ tty: true });
  expect(() => terminal.content(new Uint8Array(1))).toThrow("bytes are nothing for a terminal");
});

test("a terminal that cannot move its cursor has no bar", async () => {
  vi.stubEnv("TERM", "dumb");
  vi.useFakeTimers();
  try {
    const { terminal, end } = scene({ tty: true });
    const bar = terminal.bar("loading", bytes);
    vi.advanceTimersByTime(1000);
    bar.update({ done: 1, total: 2 });
    bar.stop();
    expect((await end()).err).toBe("");
  } finally {
    vi.useRealTimers();
    vi.unstubAllEnvs();
  }
});

test("standard input is read whole; who types is told", async () => {
  const { terminal } = scene({ input: "a\nb\n" });
  expect((await terminal.input("the prompt")).toString()).toBe("a\nb\n");
  const stdin = Object.assign(new PassThrough(), { isTTY: true });
  const typing = new Terminal({ stdin, stdout: new PassThrough(), stderr: new PassThrough() }, new AbortController().signal);
  await expect(typing.input("the prompt")).rejects.toThrow("the prompt is missing: give it as an argument or on standard input");
});
