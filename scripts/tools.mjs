// What the scripts share: versions, places, how a command is run, and which Rust compiles for WebAssembly.
// It installs nothing; setup.mjs does.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
/** Everything the scripts install or remember; git-ignored, safe to delete. */
export const cache = join(root, ".cache");

const workspace = readFileSync(join(root, "Cargo.toml"), "utf8");

/** The one place for the versions of tools that no lock file pins. */
export const versions = {
  pnpm: "12.21.0",
  /** Relaxed SIMD, Float16Array and `using` want a newer Node than the oldest one supported. */
  node: "24.21.0",
  wasmPack: "0.15.1",
  /** The command-line tool and the crate must be the same version, so Cargo.toml says it for both. */
  wasmBindgen: /^wasm-bindgen = "=([\d.]+)"/m.exec(workspace)[1],
  /** Debian's linker for WebAssembly, used where rustup can fetch nothing. */
  lld: "22",
  /** Of PyPI: what builds the addon for other targets, and a Node for musl. */
  zig: "0.17.1",
  cargoZigbuild: "0.24.1",
  muslNode: "24.19.0",
  /** The Debian whose musl is new enough for that Node. */
  muslDebian: "trixie",
};

export const pnpmPrefix = join(cache, `pnpm-${versions.pnpm}`);
export const pnpm = join(pnpmPrefix, "node_modules", ".bin", "pnpm");
export const newerNodePrefix = join(cache, `node-${versions.node}`);
export const newerNode = join(newerNodePrefix, "node_modules", "node", "bin", "node");
export const cargoTools = join(cache, "tools");

/** Programs of the root's dev dependencies. */
export const bin = (name) => join(root, "node_modules", ".bin", name);

/** The machine's compiler builds the addon and the Rust tests; CARGO_TARGET_DIR moves its outputs. */
export const targetDir = process.env.CARGO_TARGET_DIR ?? join(root, "target");

/** A command that failed: its name and how it ended. Its output was already shown. */
export class CommandFailed extends Error {}

/**
 * Runs a command to its end. `quiet` keeps its output back unless it fails.
 * Returns what it printed (with `quiet` or `capture`), throws CommandFailed when it fails.
 */
export function run(command, args, { cwd = root, env = process.env, quiet = false, capture = false } = {}) {
  const kept = quiet || capture;
  const result = spawnSync(command, args, {
    cwd,
    env,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", kept ? "pipe" : "inherit", quiet ? "pipe" : "inherit"],
  });
  if (result.error || result.status !== 0) {
    if (kept) process.stderr.write((result.stdout ?? "") + (result.stderr ?? ""));
    const end = result.error?.message ?? (result.signal ? `ended by ${result.signal}` : `exit ${result.status}`);
    throw new CommandFailed(`${[command, ...args].join(" ")}: ${end}`);
  }
  return kept ? result.stdout : "";
}

/** What a command prints, trimmed, or "" when it is missing or fails. */
export function ask(command, args, env = process.env) {
  const result = spawnSync(command, args, { cwd: root, env, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  return result.status === 0 ? result.stdout.trim() : "";
}

/** True as root on a Debian-like machine: the only place where the system's package manager is used. */
export const isDebianRoot = process.getuid?.() === 0 && existsSync("/etc/debian_version") && existsSync("/usr/bin/apt-get");

/** The full path of a program on PATH, or undefined. */
export function onPath(...names) {
  for (const name of names)
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      const path = join(folder, name);
      if (folder && existsSync(path)) return path;
    }
  return undefined;
}

/** The browsers of the browser tests: an environment variable, else what is on PATH. */
export const browsers = {
  chromium: () => process.env.DIFFATTN_CHROMIUM ?? onPath("chromium", "chromium-browser", "google-chrome"),
  firefox: () => process.env.DIFFATTN_FIREFOX ?? onPath("firefox-esr", "firefox"),
};

/** Debian's compilers put first on PATH, and its linker named. The toolchain brings std's source, not std. */
function debianRust() {
  const env = {
    ...process.env,
    PATH: `/usr/bin${delimiter}${process.env.PATH}`,
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER: `/usr/lib/llvm-${versions.lld}/bin/wasm-ld`,
  };
  // A rustup toolchain chosen by the environment must not leak into Debian's.
  for (const name of ["RUSTUP_TOOLCHAIN", "RUSTC", "CARGO"]) delete env[name];
  return env;
}

/**
 * The Rust that compiles std itself for other targets (WebAssembly's three builds, NEON): rustup's with the component
 * rust-src, else Debian's rustc-web. DIFFATTN_RUST=rustup|debian asks for one of them. Undefined when there is neither.
 */
export function crossRust() {
  const wanted = process.env.DIFFATTN_RUST;
  const candidates = { rustup: () => ({ ...process.env }), debian: debianRust };
  for (const [name, environment] of Object.entries(candidates)) {
    if (wanted && wanted !== name) continue;
    const env = environment();
    const sysroot = ask("rustc", ["--print", "sysroot"], env);
    const isDebian = sysroot === "/usr";
    if (!sysroot || isDebian !== (name === "debian")) continue;
    const library = join(sysroot, "lib/rustlib/src/rust/library/std/Cargo.toml");
    const target = join(sysroot, "lib/rustlib/wasm32-unknown-unknown/lib");
    const linker = !isDebian || existsSync(env.CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER);
    if (!existsSync(library) || !existsSync(target) || !linker) continue;
    // Building std is an unstable option of cargo; this lets a stable compiler do it.
    return { name, version: ask("rustc", ["-V"], env), env: { ...env, RUSTC_BOOTSTRAP: "1" } };
  }
  return undefined;
}

/** A hash of files (folders: all in them) and of anything else that shapes an output. */
export function fingerprint(paths, ...rest) {
  const hash = createHash("sha256").update(JSON.stringify(rest));
  const add = (path) => {
    if (!existsSync(path)) return;
    if (statSync(path).isDirectory()) {
      if (/(^|[/\\])(node_modules|target|tests|benches)$/.test(path)) return;
      for (const name of readdirSync(path).sort()) add(join(path, name));
    } else hash.update(`\0${relative(root, path)}\0`).update(readFileSync(path));
  };
  paths.forEach((path) => add(join(root, path)));
  return hash.digest("hex");
}

export function ensureFolder(path) {
  mkdirSync(path, { recursive: true });
  return path;
}

export const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`;
