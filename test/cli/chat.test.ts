// Conversations by the built program, from a pipe and before a person; and how lines become what is
// said.

import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { said } from "../../packages/diffattn/src/cli/chat.js";
import { END, INTERRUPTED, type Line } from "../../packages/diffattn/src/cli/dialogue.js";
import { diffattn, folder, program, trained } from "./run.js";

const model = join(folder(), "chat");
cpSync(trained, model, { recursive: true });
const TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
writeFileSync(join(model, "tokenizer_config.json"), JSON.stringify({ chat_template: TEMPLATE }));

/** What was written comes again, and no end. */
const ENDLESS = ["-n", "1000000", "--frequency-penalty=-2"];

interface Answer {
  text: string;
  ids: number[];
  finish: string;
}

/** What `generate` makes of a prompt. */
async function continued(prompt: string): Promise<Answer> {
  const { out } = await diffattn(["generate", model, prompt, "-n", "5", "--json"]);
  return JSON.parse(out) as Answer;
}

const answers = (out: string): Answer[] =>
  out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Answer);

describe("from a pipe", () => {
  test("each line is a message, and the conversation goes on", async () => {
    const { code, out, err } = await diffattn(["chat", model, "-n", "5", "--json"], { input: "A thread\nMore\n/clear\nA thread\n" });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const [first, second, third] = answers(out);
    const { text, ids, finish } = await continued("[user] A thread\n[assistant]");
    expect(first).toEqual({ text, ids, finish });
    const next = await continued(`[user] A thread\n[assistant] ${text}\n[user] More\n[assistant]`);
    expect(second?.ids).toEqual(next.ids);
    expect(third).toEqual(first);
    expect(answers(out).length).toBe(3);
  });

  test("what is said first, lines that go on, and the text alone", async () => {
    const input = '/system Be brief.\nA \\\nthread\n/clear\n"""\nA\nthread\n"""\n/exit\nNot said\n';
    const { code, out } = await diffattn(["chat", model, "-n", "5"], { input });
    const { text } = await continued("[system] Be brief.\n[user] A \nthread\n[assistant]");
    const quoted = await continued("[system] Be brief.\n[user] A\nthread\n[assistant]");
    expect({ code, out }).toEqual({ code: 0, out: `${text}\n${quoted.text}\n` });
    const option = await diffattn(["chat", model, "-n", "5", "--system", "Be brief."], { input: "A \\\nthread" });
    expect(option.out).toBe(`${text}\n`);
  });

  test("what is no command, and no model for it", async () => {
    const wrong = await diffattn(["chat", model, "-n", "1"], { input: "/nothing\n//etc\n" });
    expect(wrong.err).toContain("there is no /nothing");
    expect(wrong.code).toBe(0);
    const { code, err } = await diffattn(["chat", trained], { input: "A\n" });
    expect(code).toBe(1);
    expect(err).toContain("it has no chat template");
    const nan = await diffattn(["chat", model, "--presence-penalty", "much"]);
    expect({ code: nan.code, err: nan.err }).toEqual({ code: 2, err: expect.stringContaining("Expected a number.") as string });
  });

  test("SIGINT stops the answer, and not the program", async () => {
    let count = 0;
    const { code, out, err } = await diffattn(["chat", model, ...ENDLESS, "--verbose"], {
      input: "A thread\n/clear\n/exit\n",
      onOutput: (child) => {
        count += 1;
        if (count === 3) child.kill("SIGINT");
      },
    });
    expect({ code, ends: out.endsWith("\n") }).toEqual({ code: 0, ends: true });
    expect(err).toMatch(/^\d+ tokens, [\d.]+ tokens\/s, stopped\na new conversation\n$/m);
  });
});

describe("before a person", () => {
  /** What a pseudo terminal shows, where keys come one after the other. */
  const typed = (keys: readonly string[], more: readonly string[] = []): { status: number | null; stdout: string } => {
    const script = [
      "import os, pty, select, sys, time",
      "keys, command = eval(sys.argv[1]), sys.argv[2:]",
      "pid, fd = pty.fork()",
      "if pid == 0: os.execvp(command[0], command)",
      "shown = b''",
      "at = 0",
      "def read(until, limit):",
      "  global shown, at",
      "  end = time.time() + limit",
      "  while time.time() < end:",
      "    found = shown.find(until, at) if until else -1",
      "    if found >= 0:",
      "      at = found + len(until)",
      "      return",
      "    if select.select([fd], [], [], 0.05)[0]:",
      "      try: piece = os.read(fd, 65536)",
      "      except OSError: return",
      "      if not piece: return",
      "      shown += piece",
      "for wait, key in keys:",
      "  read(wait.encode(), 60) if wait else read(b'', 2)",
      "  os.write(fd, key.encode())",
      "read(b'', 60)",
      "status = os.waitpid(pid, 0)[1]",
      "sys.stdout.buffer.write(shown)",
      "sys.exit(os.waitstatus_to_exitcode(status))",
    ].join("\n");
    const pairs = `[${keys.map((key) => `(${JSON.stringify(key.split("|")[0])}, ${JSON.stringify(key.split("|")[1])})`).join(", ")}]`;
    const run = spawnSync("python3", ["-c", script, pairs, process.execPath, program, "chat", model, ...more], {
      encoding: "utf8",
      timeout: 120_000,
    });
    return { status: run.status, stdout: run.stdout };
  };

  test("Ctrl-C stops an answer and not the program; Ctrl-D ends", () => {
    const { status, stdout } = typed(["> |A thread\r", "|\u0003", "stopped|", "> |/clear\r", "> |half a line\u0003", "> |\u0004"], ENDLESS);
    expect(stdout).toContain("stopped");
    expect(stdout).toContain("a new conversation");
    expect(stdout).toContain("Ctrl-D, ends");
    expect(status).toBe(0);
  });
});

describe("what is said", () => {
  const of = async (...lines: Line[]): Promise<unknown> => said({ next: () => Promise.resolve(lines.shift() ?? END) });

  test.each([
    [["a"], { message: "a" }],
    [["a\\", "b"], { message: "a\nb" }],
    [["a\\"], { message: "a" }],
    [['"""', "a", "", "b\\", '"""', "c"], { message: "a\n\nb\\" }],
    [['"""', "a"], { message: "a" }],
    [["/clear"], { command: "clear", rest: "" }],
    [["  /system  Be brief. "], { command: "system", rest: "Be brief. " }],
    [["//etc/passwd"], { message: "/etc/passwd" }],
    [["/etc/passwd"], { message: "/etc/passwd" }],
    [["a\\", INTERRUPTED], INTERRUPTED],
    [[INTERRUPTED], INTERRUPTED],
    [[], END],
  ] as [Line[], unknown][])("%j", async (lines, expected) => {
    expect(await of(...lines)).toEqual(expected);
  });
});
