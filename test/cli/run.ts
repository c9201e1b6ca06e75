// Runs the built command line as a user does, in a process of its own.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export const program = here("../../packages/diffattn/dist/cli.js");
export const trained = here("../../examples/model");
export const modelOf = (name: string): string => here(`../models/${name}`);

/** Settings of this process are none of the command line's. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(DIFFATTN_|NODE_OPTIONS|FORCE_COLOR)/.test(name)));

export interface Ended {
  code: number | null;
  out: string;
  err: string;
  bytes: Buffer;
}

export interface Setting {
  input?: string | Buffer;
  environment?: Record<string, string>;
  cwd?: string;
  /** Called with the process once it has written something. */
  onOutput?: (child: ReturnType<typeof spawn>) => void;
}

export function diffattn(args: readonly string[], { input, environment, cwd, onOutput }: Setting = {}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { env: { ...env, ...environment }, cwd });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (piece: Buffer) => {
      out.push(piece);
      onOutput?.(child);
    });
    child.stderr.on("data", (piece: Buffer) => err.push(piece));
    child.on("error", reject);
    child.on("close", (code) => {
      const bytes = Buffer.concat(out);
      resolve({ code, out: bytes.toString(), err: Buffer.concat(err).toString(), bytes });
    });
    // A process that does not read its input may end before.
    child.stdin.on("error", () => undefined);
    child.stdin.end(input ?? "");
  });
}

/** A folder that goes when the tests of a file have run. */
export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "diffattn-cli-"));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/**
 * The same before a person: all that a pseudo terminal showed, line ends as they were written. Its
 * bar stays away.
 */
export function atTerminal(args: readonly string[], { environment }: Pick<Setting, "environment"> = {}): Pick<Ended, "code" | "out"> {
  const quoted = [process.execPath, program, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
  const { status, stdout, error } = spawnSync("script", ["-qec", quoted, "/dev/null"], {
    env: { ...env, ...environment, TERM: "dumb", SHELL: "/bin/sh" },
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
  });
  if (error) throw error;
  return { code: status, out: stdout.replaceAll("\r\n", "\n") };
}
