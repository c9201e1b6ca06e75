// Finds the binary of this machine, loads it, and says in one sentence why it does not load: no
// binary is published, none is installed, another machine's is, or what is there is refused, and
// why. Knows nothing of what the binary does.
"use strict";

const { closeSync, existsSync, openSync, readFileSync, readSync } = require("node:fs");
const { join, resolve } = require("node:path");
const { name: PACKAGE, version: VERSION, napi } = require("./package.json");

/**
 * A file that is loaded in the place of the package's: one that was built for a platform without a
 * published binary, for instance.
 */
const VARIABLE = "DIFFATTN_NATIVE";

/** What the binary of a target is called. */
const fileOf = (name) => `${napi.binaryName}.${name}.node`;

/**
 * The targets that a binary is published for, with Node's words for them, and npm's for the C
 * library.
 */
const targets = napi.targets.map((triple) => {
  const [cpu, , system, abi] = triple.split("-");
  const platform = { windows: "win32" }[system] ?? system;
  const arch = { x86_64: "x64", aarch64: "arm64" }[cpu];
  const name = [platform, arch, abi].filter((word) => word !== undefined).join("-");
  return { triple, name, platform, arch, libc: { gnu: "glibc", musl: "musl" }[abi], file: fileOf(name) };
});

/** A machine's name among the targets. */
function targetOf({ platform, arch, libc }) {
  const abi = { linux: libc === "musl" ? "musl" : "gnu", win32: "msvc" }[platform];
  return [platform, arch, abi].filter((word) => word !== undefined).join("-");
}

/** A variable's value; one that may not be read (Deno's permissions) is not set. */
function variable(name) {
  try {
    return process.env[name];
  } catch {
    return undefined;
  }
}

/**
 * What the engine says of itself; it takes a while (some ten milliseconds), so only what does not
 * tell otherwise is asked of it.
 */
function engineReport() {
  const { report } = process;
  // (Else it asks for the names of open connections.)
  Object.assign(report, { excludeNetwork: true });
  return report.getReport();
}

/** The dynamic loader that a program names for itself, near its beginning. */
function loaderOf(program) {
  const bytes = Buffer.alloc(4096);
  const handle = openSync(program);
  try {
    readSync(handle, bytes);
  } finally {
    closeSync(handle);
  }
  return /\/ld-(musl|linux)-/.exec(bytes.toString("latin1"))?.[1];
}

/**
 * The C library of a program of Linux, which is this Node. Where nothing tells, glibc is the
 * likelier one.
 */
function cLibrary(program) {
  try {
    const loader = loaderOf(program);
    if (loader !== undefined) return loader === "musl" ? "musl" : "glibc";
  } catch {
    // It may not be read.
  }
  try {
    const { header, sharedObjects } = engineReport();
    return !header.glibcVersionRuntime && sharedObjects.some((file) => /musl/.test(file)) ? "musl" : "glibc";
  } catch {
    return "glibc";
  }
}

function glibcVersion() {
  try {
    return engineReport().header.glibcVersionRuntime;
  } catch {
    return undefined;
  }
}

/**
 * This machine, as far as it decides which binary fits; and whether Node's permission model is on.
 */
function thisMachine(program = process.execPath) {
  const { platform, arch } = process;
  const machine = { platform, arch, restricted: process.permission !== undefined };
  if (platform !== "linux") return machine;
  const libc = cLibrary(program);
  return libc === "musl" ? { ...machine, libc } : { ...machine, libc, getGlibc: glibcVersion };
}

/** The systems whose binaries are known by their bytes. */
const SYSTEMS = { linux: "Linux", darwin: "macOS", win32: "Windows" };

/**
 * What a file is, by its own bytes: the system and the processor that it is for, of Linux its C
 * library and the glibc that it wants. Undefined for what is no binary.
 */
function identify(bytes) {
  const at = (offset, length) => (offset + length <= bytes.length ? bytes.readUIntLE(offset, length) : undefined);
  const magic = at(0, 4);
  if (magic === 0x464c457f) {
    const text = bytes.toString("latin1");
    const versions = [...text.matchAll(/\0GLIBC_(\d+)\.(\d+)/g)].map(([, major, minor]) => [Number(major), Number(minor)]);
    const [newest] = versions.sort((a, b) => b[0] - a[0] || b[1] - a[1]);
    const arch = { 0x3e: "x64", 0xb7: "arm64" }[at(18, 2)];
    const libc = newest ? "glibc" : /\0libc\.(so|musl-[\w.]+)\0/.test(text) ? "musl" : undefined;
    return { platform: "linux", arch, libc, glibc: newest?.join(".") };
  }
  if (magic === 0xfeedfacf) return { platform: "darwin", arch: { 0x1000007: "x64", 0x100000c: "arm64" }[at(4, 4)] };
  const header = at(0, 2) === 0x5a4d ? at(0x3c, 4) : undefined;
  if (header !== undefined && at(header, 4) === 0x4550)
    return { platform: "win32", arch: { 0x8664: "x64", 0xaa64: "arm64" }[at(header + 4, 2)] };
  return undefined;
}

const older = (a, b) => {
  const [[major, minor], [majorOfB, minorOfB]] = [a, b].map((version) => version.split(".").map(Number));
  return major < majorOfB || (major === majorOfB && minor < minorOfB);
};

/** Why a file cannot run on a machine, by what it is; undefined where it can, or cannot be read. */
function mismatch(file, machine) {
  if (!(machine.platform in SYSTEMS)) return undefined;
  let bytes;
  try {
    bytes = readFileSync(file);
  } catch {
    return undefined;
  }
  const found = identify(bytes);
  if (found === undefined) return `${file} is no binary, but ${bytes.length} bytes of something else`;
  const { platform, arch = "another processor", libc, glibc } = found;
  if (platform !== machine.platform || arch !== machine.arch)
    return `${file} is for ${SYSTEMS[platform]} on ${arch}, and this Node is one for ${SYSTEMS[machine.platform]} on ${machine.arch}`;
  if (libc && libc !== machine.libc) return `${file} is for ${libc}, and the C library of this Node is ${machine.libc}`;
  const has = glibc && machine.getGlibc?.();
  if (has && older(has, glibc)) return `it wants glibc ${glibc} or newer, and this system has ${has}`;
  return undefined;
}

const SHOWN = 300;

/** The first line of what something thrown says; the stack of requires after it does not help. */
function lineOf(thrown) {
  try {
    const text = String(thrown instanceof Error ? thrown.message : thrown);
    const line = text.split("\n").find((line) => line.trim() !== "");
    return (line?.trim() ?? "no reason").slice(0, SHOWN);
  } catch {
    // An object without a prototype, for instance.
    return "something that cannot be shown";
  }
}

/** Why a file that is there was refused. */
function refusal(error, file, machine) {
  const { code, permission } = Object(error);
  if (code === "ERR_DLOPEN_DISABLED")
    return machine.restricted ? "the permission model allows no addons (--allow-addons does)" : "addons are switched off (--no-addons)";
  if (code === "ERR_ACCESS_DENIED") return `the permission model refuses ${permission ?? "access"} (--allow-fs-read=${file} allows that)`;
  const unfit = mismatch(file, machine);
  if (unfit !== undefined) return unfit;
  const said = lineOf(error);
  if (/failed to map segment|Operation not permitted/i.test(said))
    return `the system runs nothing that lies in the folder of ${file}, as where a file system is mounted noexec: ${said}`;
  if (machine.platform === "darwin" && /code sign|system policy/i.test(said))
    return `macOS does not accept its signature, as after a download: ${said}`;
  // Windows says it in its own language, so nothing is read of it.
  if (machine.platform === "win32") return `Windows refuses it, as where an antivirus or a policy does or a library is missing: ${said}`;
  return said;
}

/** Whether a file is there; one that may not be looked for (Deno's permissions) is not. */
function isThere(path) {
  try {
    return existsSync(path);
  } catch {
    return false;
  }
}

/**
 * The binary's exports. `binaries` asks for the package of each target, `require` for a file, and
 * where a package lies; in `folder` a binary is looked for first, as it lies there where it was
 * built; `chosen` is a file in the place of all. Throws an error whose message is one sentence, and
 * whose cause is what was thrown.
 */
function load({ binaries, require, machine = thisMachine(), folder = __dirname, chosen = variable(VARIABLE) }) {
  const target = targetOf(machine);
  const where = `${machine.platform}-${machine.arch}${machine.libc ? ` (${machine.libc})` : ""}`;
  const wanted = `${PACKAGE}-${target}`;
  const found = (name) => {
    try {
      return require.resolve(`${name}/package.json`);
    } catch {
      return undefined;
    }
  };

  const own = join(folder, fileOf(target));
  const given = chosen ? resolve(chosen) : isThere(own) ? own : undefined;
  const what = chosen ? `the binary that ${VARIABLE} names` : `the binary of ${wanted}`;
  const no = (reason, cause) => new Error(`${what}, for ${where}, did not load: ${reason}`, { cause });

  let addon;
  if (given !== undefined) {
    try {
      addon = require(given);
    } catch (cause) {
      throw no(refusal(cause, given, machine), cause);
    }
  } else {
    if (!Object.hasOwn(binaries, target)) throw new Error(`no binary is published for ${where}`);
    try {
      addon = binaries[target]();
    } catch (cause) {
      const manifest = found(wanted);
      if (manifest !== undefined) {
        const file = resolve(manifest, "..", fileOf(target));
        if (Object(cause).code === "MODULE_NOT_FOUND")
          throw no(`its package is there without ${file}; installing it again brings it`, cause);
        throw no(refusal(cause, file, machine), cause);
      }
      if (Object(cause).code !== "MODULE_NOT_FOUND") throw no(lineOf(cause), cause);
      const others = Object.keys(binaries).filter((other) => found(`${PACKAGE}-${other}`) !== undefined);
      const reason =
        others.length > 0
          ? `, but that of ${others.join(", ")} is: node_modules comes from another machine, or was made by a Node for another processor or C library`
          : `: it is an optional dependency, which --omit=optional leaves out, and a lock file that was written on another machine may`;
      throw new Error(`the package ${wanted}, for ${where}, is not installed${reason}`, { cause });
    }
  }

  const version = typeof addon?.info === "function" ? addon.info().version : undefined;
  if (version !== VERSION)
    throw no(`expected version ${VERSION}, as ${PACKAGE} has, got ${version ?? "another addon"}; both must come from one release`);
  return addon;
}

module.exports = { load, targets, targetOf, fileOf, thisMachine, identify };
