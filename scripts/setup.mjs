// Brings a machine to where the project builds and its tests run. Idempotent: a second run takes
// seconds. Installs inside the project (.cache, node_modules) where possible. The system's package
// manager is used only as root on Debian; elsewhere the one line to run is printed. Plain Node, no
// dependencies.
//
//   node scripts/setup.mjs [--browsers] [--neon]
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  ask,
  browsers,
  cache,
  cargoTool,
  cargoTools,
  CommandFailed,
  crossRust,
  isDebianRoot,
  isMain,
  newerNode,
  newerNodePrefix,
  onPath,
  pnpm,
  pnpmPrefix,
  root,
  run,
  seconds,
  versions,
} from "./tools.mjs";

/**
 * What makes WebAssembly's modules; what it is compiled with, and takes to compile, where its
 * project's own is not to be had.
 */
const webAssemblyTools = {
  // Without TLS, which only its runner of tests has a use for.
  "wasm-bindgen": { crate: "wasm-bindgen-cli", version: versions.wasmBindgen, options: ["--no-default-features"], minutes: "2 minutes" },
  "wasm-pack": { crate: "wasm-pack", version: versions.wasmPack, minutes: "2 minutes" },
};

/**
 * They run for seconds, six times: what an optimiser would do for them costs more than it saves.
 */
const soonCompiled = { CARGO_PROFILE_RELEASE_OPT_LEVEL: "0", CARGO_PROFILE_RELEASE_DEBUG: "0", CARGO_PROFILE_RELEASE_LTO: "off" };

const say = (text) => console.log(`setup: ${text}`);

/** Says what is there, or installs it and says how long that took. */
export function need(what, isThere, install) {
  if (isThere()) return say(`${what}: present`);
  const start = Date.now();
  say(`${what}: installing`);
  install();
  if (!isThere()) throw new CommandFailed(`${what} is still missing after its installation`);
  say(`${what}: installed in ${seconds(start)}`);
}

let aptUpdated = false;
/** Debian packages as root; anywhere else an error that names the one line to run. */
export function apt(...packages) {
  if (!isDebianRoot) throw new CommandFailed(`run: sudo apt-get install ${packages.join(" ")}   (or what your system calls them)`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  if (!aptUpdated) run("apt-get", ["update"], { env, quiet: true });
  aptUpdated = true;
  // Another of the machine's installations, an automatic one for instance, is waited for.
  const patient = ["-o", "DPkg::Lock::Timeout=300"];
  run("apt-get", [...patient, "install", "-y", "--no-install-recommends", ...packages], { env, quiet: true });
}

/**
 * One npm package in a folder of its own. Its install script puts the platform's binary, another
 * npm package, in place.
 */
export function npmInstall(prefix, name, version, ...more) {
  mkdirSync(prefix, { recursive: true });
  const manifest = { private: true, dependencies: { [name]: version }, allowScripts: { [name]: true } };
  writeFileSync(join(prefix, "package.json"), JSON.stringify(manifest));
  run("npm", ["install", "--no-fund", "--no-audit", ...more], { cwd: prefix, quiet: true });
}

/** Packages of PyPI in a folder of their own; `more` says for which platform. */
export function pipInstall(prefix, packages, ...more) {
  const python = onPath("python3", "python");
  if (python === undefined) throw new CommandFailed("Python with pip is missing; install it and run this again");
  const options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target", prefix];
  run(python, ["-m", "pip", "install", ...options, ...more, ...packages], { quiet: true });
}

/** A program from crates.io, compiled into .cache/tools: soon, rather than to be fast. */
function cargoInstall(crate, program, version, options) {
  const env = { ...process.env, CARGO_TARGET_DIR: join(cache, "cargo-install"), ...soonCompiled };
  const install = (...more) =>
    run("cargo", ["install", crate, "--version", version, "--bin", program, "--root", cargoTools, "--force", ...options, ...more], {
      env,
      quiet: true,
    });
  try {
    install("--locked");
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    say(`${crate}: its own lock file does not resolve here, taking the newest dependencies that fit`);
    install();
  }
}

/**
 * One of the two programs that make WebAssembly's modules: as its project compiled it, else
 * compiled here.
 */
function webAssemblyTool(program) {
  const { crate, version, options = [], minutes } = webAssemblyTools[program];
  need(
    `${program} ${version}`,
    () => ask(cargoTool(program), ["--version"]).endsWith(` ${version}`),
    () => {
      // A process of its own: what waits for servers cannot be written in a script that does one
      // thing after the other.
      const env = { ...process.env, NODE_USE_ENV_PROXY: "1" };
      const missing = run(process.execPath, [join(root, "scripts/prebuilt.mjs"), program], { env, capture: true }).trim();
      if (!missing) return;
      say(`${program}: none that is compiled can be had (${missing})`);
      say(`compiling ${crate}: about ${minutes} of CPU time, once`);
      cargoInstall(crate, program, version, options);
    },
  );
}

/** The compiler with std's source: rustup's if rustup can fetch, else Debian's. */
function rustForWebAssembly() {
  const wanted = process.env.DIFFATTN_RUST;
  if (wanted !== "debian" && onPath("rustup")) {
    try {
      run("rustup", ["component", "add", "rust-src"], { quiet: true });
      run("rustup", ["target", "add", "wasm32-unknown-unknown"], { quiet: true });
      return;
    } catch (error) {
      if (!(error instanceof CommandFailed) || wanted === "rustup") throw error;
      say("rustup can fetch nothing here, taking Debian's compiler");
    }
  }
  apt("rustc-web", "cargo-web", "rust-web-src", `lld-${versions.lld}`);
  // wasm-pack only looks whether this folder exists.
  mkdirSync("/usr/lib/rustlib/wasm32-unknown-unknown/lib", { recursive: true });
}

export function setup({ withBrowsers = false, withNeon = false } = {}) {
  const start = Date.now();
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19))
    throw new CommandFailed(`Node 20.19 or newer is needed, this is ${process.versions.node}`);

  need(
    `pnpm ${versions.pnpm}`,
    () => existsSync(pnpm) && ask(pnpm, ["--version"]) === versions.pnpm,
    () => npmInstall(pnpmPrefix, "pnpm", versions.pnpm),
  );
  say("npm packages: pnpm install --frozen-lockfile");
  run(pnpm, ["install", "--frozen-lockfile"], { env: { ...process.env, CI: "true" }, quiet: true });

  need(
    `Node ${versions.node}`,
    () => ask(newerNode, ["--version"]) === `v${versions.node}`,
    () => npmInstall(newerNodePrefix, "node", versions.node),
  );

  if (!onPath("cargo")) {
    if (isDebianRoot) rustForWebAssembly();
    else throw new CommandFailed("Rust is missing; install it from https://rustup.rs and run this again");
  }
  need("Rust with std's source, for WebAssembly", () => crossRust() !== undefined, rustForWebAssembly);
  say(`WebAssembly is compiled by ${crossRust().version} (${crossRust().name})`);
  for (const program of Object.keys(webAssemblyTools)) webAssemblyTool(program);

  if (withBrowsers) {
    need(
      "Chromium",
      () => browsers.chromium() !== undefined,
      () => apt("chromium"),
    );
    need(
      "Firefox",
      () => browsers.firefox() !== undefined,
      () => apt("firefox-esr"),
    );
  }
  if (withNeon)
    need(
      "NEON emulation (gcc-aarch64-linux-gnu, qemu-user)",
      () => Boolean(onPath("aarch64-linux-gnu-gcc") && onPath("qemu-aarch64")),
      () => apt("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"),
    );
  say(`done in ${seconds(start)}`);
}

/**
 * Ends the process with a plain sentence when a command failed; a bug of the script keeps its
 * trace.
 */
export function main(body) {
  try {
    body();
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    console.error(`failed: ${error.message}`);
    process.exit(1);
  }
}

if (isMain(import.meta))
  main(() => setup({ withBrowsers: process.argv.includes("--browsers"), withNeon: process.argv.includes("--neon") }));
