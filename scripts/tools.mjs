// What the scripts share: versions, places, how a command is run on any platform, and which Rust
// compiles for WebAssembly. It installs nothing; setup.mjs does.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readSync, readdirSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, extname, join, posix, relative, win32 } from "node:path";
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
  wasmPack: "0.15.0",
  /**
   * The command-line tool and the crate must be the same version, so Cargo.toml says it for both.
   */
  wasmBindgen: /^wasm-bindgen = "=([\d.]+)"/m.exec(workspace)[1],
  /** Debian's linker for WebAssembly, used where rustup can fetch nothing. */
  lld: "22",
  /** Checks the policy of deny.toml. */
  cargoDeny: "0.20.2",
  /** Of PyPI: what builds the addon for other targets, and a Node for musl. */
  zig: "0.17.1",
  cargoZigbuild: "0.24.1",
  muslNode: "24.19.0",
  /** The Debian whose musl is new enough for that Node. */
  muslDebian: "trixie",
};

/**
 * The SHA-256 of wasm-pack's archives, which its releases do not publish: they go with
 * `versions.wasmPack`.
 */
export const wasmPackArchives = {
  "x86_64-unknown-linux-musl": "c09f971ecaed9a2efc80fdcea7a00ef6b53c7fadc8c57d1f61b53a6aa66b668a",
  "aarch64-unknown-linux-musl": "e17ef0806381c3a0acb9c9ddad643a49facaa5a2ecf657a421d4d8f3357a24b7",
  "x86_64-apple-darwin": "d3f1a4a33e95f8f0d7801b024e08624c479999ac96aa150908b2394015cd0363",
  "aarch64-apple-darwin": "0abff4a03d670b6c00ea31d0e1608a72407e355f3d3765e9c30eb45cd5b7e318",
  "x86_64-pc-windows-msvc": "518dc51180c7bc864699c9279b3bc99025bc109123e0249a34ba34d130a509bf",
};

const windows = process.platform === "win32";
const { delimiter } = windows ? win32 : posix;

/** The file name of a compiled program. */
export const executable = (name) => (windows ? `${name}.exe` : name);

export const pnpmPrefix = join(cache, `pnpm-${versions.pnpm}`);
/** Its own file: what npm puts into .bin is a batch file on Windows. */
export const pnpm = join(pnpmPrefix, "node_modules", "pnpm", executable("pnpm"));
export const newerNodePrefix = join(cache, `node-${versions.node}`);
export const newerNode = join(newerNodePrefix, "node_modules", "node", "bin", executable("node"));
export const cargoTools = join(cache, "tools");
/** A program of the WebAssembly tools. */
export const cargoTool = (name) => join(cargoTools, "bin", executable(name));

/**
 * A program of the root's dev dependencies: the script that its package names, which `launch` gives
 * to Node. (What lies in node_modules/.bin starts it by a shell.)
 */
export function bin(name) {
  for (const owner of Object.keys(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).devDependencies)) {
    const folder = join(root, "node_modules", owner);
    if (!existsSync(folder)) continue;
    const { bin: files = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = typeof files === "string" ? { [owner.split("/").at(-1)]: files }[name] : files[name];
    if (file) return join(folder, file);
  }
  throw new CommandFailed(`${name} is missing; run: node scripts/setup.mjs`);
}

/**
 * The machine's compiler builds the addon and the Rust tests; CARGO_TARGET_DIR moves its outputs.
 */
export const targetDir = process.env.CARGO_TARGET_DIR ?? join(root, "target");

/** A command that failed: its name and how it ended. Its output was already shown. */
export class CommandFailed extends Error {}

/** Whether a file's first line gives it to Node. */
function isNodeScript(path) {
  const start = Buffer.alloc(64);
  try {
    const file = openSync(path, "r");
    readSync(file, start);
    closeSync(file);
  } catch {
    return false;
  }
  return /^#!.*\bnode\b/.test(start.toString("latin1"));
}

/**
 * What to spawn, `[file, arguments]`, for a program (its path, or a name on PATH). No shell is
 * asked, which would read the arguments its own way: a script is given to this Node. Of Windows'
 * batch files, which nothing but a shell runs, npm's lead to such a script.
 */
export function launch(command, args = []) {
  let file = command;
  if (windows) {
    file = extname(command) || command !== basename(command) ? command : (onPath(command) ?? command);
    if (/\.(cmd|bat)$/i.test(file)) {
      const script = join(dirname(file), "node_modules", "npm", "bin", `${basename(file, extname(file)).toLowerCase()}-cli.js`);
      if (!existsSync(script)) throw new CommandFailed(`${file}: a batch file, which cannot be run without a shell`);
      file = script;
    }
  }
  return isNodeScript(file) ? [process.execPath, [file, ...args]] : [file, args];
}

/**
 * Runs a command to its end. `quiet` keeps its output back unless it fails.
 * Returns what it printed (with `quiet` or `capture`), throws CommandFailed when it fails.
 */
export function run(command, args, { cwd = root, env = process.env, quiet = false, capture = false } = {}) {
  const kept = quiet || capture;
  const result = spawnSync(...launch(command, args), {
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
  const result = spawnSync(...launch(command, args), { cwd: root, env, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  return result.status === 0 ? result.stdout.trim() : "";
}

/**
 * True as root on a Debian-like machine: the only place where the system's package manager is used.
 */
export const isDebianRoot = process.getuid?.() === 0 && existsSync("/etc/debian_version") && existsSync("/usr/bin/apt-get");

/**
 * The full path of a program on PATH, or undefined. Windows has a list of the endings that make a
 * file a program.
 */
export function onPath(...names) {
  const endings = windows ? (process.env.PATHEXT ?? ".COM;.EXE;.BAT;.CMD").split(";") : [""];
  for (const name of names)
    for (const folder of (process.env.PATH ?? "").split(delimiter))
      for (const ending of endings) {
        const path = join(folder, `${name}${ending.toLowerCase()}`);
        if (folder && existsSync(path)) return path;
      }
  return undefined;
}

/**
 * An environment whose PATH begins with a folder. (A copy of Windows' environment may call it
 * Path.)
 */
export function pathFirst(folder, env) {
  const name = Object.keys(env).find((key) => key.toUpperCase() === "PATH") ?? "PATH";
  return { ...env, [name]: `${folder}${delimiter}${env[name] ?? ""}` };
}

/**
 * The environment of a program that must be as on a machine of its own: nothing that chooses a
 * backend, or speaks of the npm that started this.
 */
export const plainEnvironment = () =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(DIFFATTN_|NODE_OPTIONS|NODE_PATH|NODE_ENV$|npm_)/.test(name)));

/**
 * Whether a script is the one that Node was started with, rather than imported: by any link, and by
 * a drive's letter in any case.
 */
export const isMain = ({ filename }) =>
  existsSync(process.argv[1] ?? "") && realpathSync.native(process.argv[1]) === realpathSync.native(filename);

/** The browsers of the browser tests: an environment variable, else what is on PATH. */
export const browsers = {
  chromium: () => process.env.DIFFATTN_CHROMIUM ?? onPath("chromium", "chromium-browser", "google-chrome"),
  firefox: () => process.env.DIFFATTN_FIREFOX ?? onPath("firefox-esr", "firefox"),
};

/**
 * Debian's compilers put first on PATH, and its linker named. The toolchain brings std's source,
 * not std.
 */
function debianRust() {
  const env = {
    ...pathFirst("/usr/bin", process.env),
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER: `/usr/lib/llvm-${versions.lld}/bin/wasm-ld`,
  };
  // A rustup toolchain chosen by the environment must not leak into Debian's.
  for (const name of ["RUSTUP_TOOLCHAIN", "RUSTC", "CARGO"]) delete env[name];
  return env;
}

/**
 * The Rust that compiles std itself for other targets (WebAssembly's three builds, NEON): rustup's
 * with the component rust-src, else Debian's rustc-web. DIFFATTN_RUST=rustup|debian asks for one of
 * them. Undefined when there is neither.
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

/** What Cargo says of the workspace's own crates. */
export const ownMetadata = () => JSON.parse(run("cargo", ["metadata", "--no-deps", "--format-version", "1", "--locked"], { quiet: true }));

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
