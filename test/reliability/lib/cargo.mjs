// Builds the Rust attacks and runs them on through crashes: what kills one of their processes is
// one fault, and the next process goes on behind the case that did it.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ask, run, targetDir } from "../../../scripts/tools.mjs";

/**
 * The crates as `npm test` builds them, so that its builds are taken: optimised, with assertions.
 */
const PROFILE = ["--profile", "test"];
const WORKSPACE = ["--workspace", "--features", "diffattn-reference/fixture,diffattn-nn/models,diffattn-door/training"];

/** Processes that may die before an attack is given up. */
const LIVES = 20;

/** Builds one of the programs as the tests are built. */
export function build(name) {
  run("cargo", ["build", ...PROFILE, ...WORKSPACE, "--bin", name], { quiet: true });
  return join(targetDir, "debug", name);
}

/**
 * Whether the toolchain has AddressSanitizer's runtime for this machine, and which target that is.
 */
export function sanitizer() {
  const target = /^host: (.*)$/m.exec(ask("rustc", ["-vV"]))?.[1] ?? "";
  const library = join(ask("rustc", ["--print", "sysroot"]), "lib/rustlib", target, "lib/librustc-stable_rt.asan.a");
  return existsSync(library) ? target : undefined;
}

/**
 * The same program with AddressSanitizer. Of the profile that is soonest built: under a sanitizer
 * the kernels, which it never calls, take minutes to optimise.
 */
export function buildSanitized(name, target) {
  const folder = join(targetDir, "asan");
  const env = {
    ...process.env,
    RUSTC_BOOTSTRAP: "1",
    RUSTFLAGS: "-Zsanitizer=address",
    CARGO_TARGET_DIR: folder,
    CARGO_PROFILE_DEV_DEBUG: "0",
  };
  run("cargo", ["build", "--target", target, "-p", "diffattn-reliability", "--bin", name], { env, quiet: true });
  return join(folder, target, "debug", name);
}

/**
 * Runs cases `0` to `count` of a program; adds up the figures that it prints. `crashes` is how many
 * of its processes died.
 */
export function cases(program, { count, seed, trace, miss }) {
  const folder = mkdtempSync(join(tmpdir(), "diffattn-reliability-"));
  const log = join(folder, "trace");
  const figures = { crashes: 0 };
  try {
    let first = 0;
    // In pieces, so that whoever waits sees that it goes on.
    const piece = Math.max(1, Math.ceil(count / 20));
    while (first < count && figures.crashes < LIVES) {
      const wanted = Math.min(piece, count - first);
      const args = ["--seed", String(seed), "--first", String(first), "--count", String(wanted), "--trace", log];
      const { status, signal, stdout, stderr } = spawnSync(program, args, { encoding: "utf8", maxBuffer: 1 << 28 });
      for (const [, text] of stdout.matchAll(/^miss (.*)$/gm)) miss("", text);
      for (const [, name, value] of stdout.matchAll(/^(\w+) (\d+)$/gm)) figures[name] = (figures[name] ?? 0) + Number(value);
      if (/^unavailable (.*)$/m.test(stdout)) return { unavailable: /^unavailable (.*)$/m.exec(stdout)[1] };
      if (status === 0) {
        first += wanted;
      } else {
        const at = existsSync(log) ? readFileSync(log, "utf8").trim() : "";
        const said = stderr.split("\n").find((line) => /ERROR|panicked|rror:/.test(line)) ?? stderr.slice(0, 200);
        figures.crashes++;
        miss(at, `ended by ${signal ?? `exit ${status}`}: ${said}`);
        first = Math.max(first, Number(/^\d+/.exec(at)?.[0] ?? first)) + 1;
      }
      trace(first, program);
    }
    return figures;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
