// Brings wasm-bindgen and wasm-pack as their projects compiled them, from the archives of their
// releases. Taken is only the archive whose SHA-256 is known (tools.mjs, or beside the archive) and
// whose program says the version that was asked for. A server that is not there, or slow to say so,
// costs seconds. Compiles nothing: where there is no such archive, setup.mjs does.
//
//   node scripts/prebuilt.mjs wasm-bindgen|wasm-pack      prints nothing, or why there is none
import { createHash } from "node:crypto";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ask, cargoTool, CommandFailed, ensureFolder, executable, isMain, run, versions, wasmPackArchives } from "./tools.mjs";

/**
 * Static where there is a choice, so that no C library is asked for. Windows on ARM runs programs
 * for x64.
 */
const targets = {
  "linux-x64": "x86_64-unknown-linux-musl",
  "linux-arm64": "aarch64-unknown-linux-musl",
  "darwin-x64": "x86_64-apple-darwin",
  "darwin-arm64": "aarch64-apple-darwin",
  "win32-x64": "x86_64-pc-windows-msvc",
  "win32-arm64": "x86_64-pc-windows-msvc",
};

/**
 * Where a release keeps its archives, how they are called, and their SHA-256 by target. Without
 * one, it is published beside the archive.
 */
const releases = {
  "wasm-bindgen": {
    version: versions.wasmBindgen,
    folder: `https://github.com/wasm-bindgen/wasm-bindgen/releases/download/${versions.wasmBindgen}`,
    name: (target) => `wasm-bindgen-${versions.wasmBindgen}-${target}`,
  },
  "wasm-pack": {
    version: versions.wasmPack,
    folder: `https://github.com/wasm-bindgen/wasm-pack/releases/download/v${versions.wasmPack}`,
    name: (target) => `wasm-pack-v${versions.wasmPack}-${target}`,
    sums: wasmPackArchives,
  },
};

/** Milliseconds without a byte, and in all; bytes. */
const LIMITS = { silence: 10_000, whole: 180_000, size: 64 << 20 };

/** The bytes behind an address, or an error that says in words why there are none. */
async function download(address, { silence, whole, size }) {
  const { host } = new URL(address);
  const stop = new AbortController();
  const end = (why) => () => stop.abort(new CommandFailed(`${host} ${why}`));
  const timer = setTimeout(end(`was silent for ${silence / 1000} s`), silence);
  const last = setTimeout(end(`took longer than ${whole / 1000} s`), whole);
  try {
    const response = await fetch(address, { signal: stop.signal });
    if (!response.ok) throw new CommandFailed(`${address}: status ${response.status}`);
    const pieces = [];
    let length = 0;
    for await (const piece of response.body) {
      timer.refresh();
      length += piece.length;
      if (length > size) throw new CommandFailed(`${address}: longer than ${size} bytes`);
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  } catch (error) {
    if (error instanceof CommandFailed) throw error;
    throw new CommandFailed(`${address}: ${error.cause?.message ?? error.message}`);
  } finally {
    clearTimeout(timer);
    clearTimeout(last);
    // What is still to come is not waited for.
    stop.abort();
  }
}

/**
 * Puts a program into its place. Throws CommandFailed, and leaves that place as it was, when that
 * cannot be done. What may be given for tests: another release's folder, sums, limits, and place.
 */
export async function fetchTool(program, { limits, destination = cargoTool(program), ...other } = {}) {
  const { version, folder, name, sums } = { ...releases[program], ...other };
  const target = targets[`${process.platform}-${process.arch}`];
  if (!target) throw new CommandFailed(`no archive for ${process.platform}-${process.arch}`);
  const archive = `${name(target)}.tar.gz`;
  const address = `${folder}/${archive}`;
  const patience = { ...LIMITS, ...limits };
  const sum = sums?.[target] ?? /^[0-9a-f]{64}\b/.exec((await download(`${address}.sha256sum`, patience)).toString("latin1"))?.[0];
  if (!sum) throw new CommandFailed(`${address}.sha256sum: holds no SHA-256`);
  const bytes = await download(address, patience);
  const found = createHash("sha256").update(bytes).digest("hex");
  if (found !== sum) throw new CommandFailed(`${address}: its SHA-256 is ${found}, expected ${sum}`);

  // Beside the place, so that the program arrives there whole or not at all.
  const workshop = mkdtempSync(join(ensureFolder(dirname(destination)), "unpacking-"));
  try {
    writeFileSync(join(workshop, archive), bytes);
    const inside = `${name(target)}/${executable(program)}`;
    run("tar", ["-xzf", archive, inside], { cwd: workshop, quiet: true });
    const unpacked = join(workshop, inside);
    const said = ask(unpacked, ["--version"]);
    if (!said.endsWith(` ${version}`)) throw new CommandFailed(`${address}: its ${program} says "${said}", expected version ${version}`);
    rmSync(destination, { force: true });
    renameSync(unpacked, destination);
  } finally {
    rmSync(workshop, { recursive: true, force: true });
  }
}

if (isMain(import.meta)) {
  // Ended by itself: the system may still be looking for the address of a host that was given up.
  const end = (text) => process.stdout.write(text, () => process.exit());
  try {
    await fetchTool(process.argv[2]);
    end("");
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    end(`${error.message}\n`);
  }
}
