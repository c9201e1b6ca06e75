// How tests of what is published run a command: to its end, in an environment that chooses no
// backend. Knows no test.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { launch, plainEnvironment } from "../scripts/tools.mjs";

/** Of every command that such a test starts. */
export const env = plainEnvironment();

/** Runs a command to its end; returns what it printed, fails with all of it. */
export function run(command, args, cwd) {
  const { status, signal, stdout, stderr, error } = spawnSync(...launch(command, args), { cwd, env, encoding: "utf8", timeout: 240_000 });
  assert.ok(status === 0, `${command} ${args.join(" ")}: ${error?.message ?? signal ?? `exit ${status}`}\n${stdout}${stderr}`);
  return stdout;
}
