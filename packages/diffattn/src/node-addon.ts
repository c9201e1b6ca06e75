// Loads the native addon, and says in one line why it does not load: which platform this is, which package holds its binary, and
// what the system said. (The loader that napi-rs generates gives one advice for every failure.)

import { createRequire } from "node:module";
import type { Addon } from "./backend/native.js";
import { cut, reasonOf } from "./errors.js";
import { scriptAddress } from "./script-address.js";

const PACKAGE = "@diffattn/native";

/** The platforms that a binary is published for, as packages/native/package.json has them. */
export const TARGETS = ["linux-x64-gnu", "linux-arm64-gnu", "darwin-x64", "darwin-arm64", "win32-x64-msvc"];

/** A machine, as far as it decides which binary fits. */
export interface Machine {
  readonly platform: string;
  readonly arch: string;
  /** Of Linux: whether its C library is musl. */
  readonly musl: boolean;
}

function isMusl(): boolean {
  try {
    const { report } = process;
    // (Else it asks for the names of open connections.)
    Object.assign(report, { excludeNetwork: true });
    const { header, sharedObjects } = report.getReport() as unknown as {
      header?: { glibcVersionRuntime?: string };
      sharedObjects?: string[];
    };
    return !header?.glibcVersionRuntime && (sharedObjects ?? []).some((file) => /libc\.musl-|ld-musl-/.test(file));
  } catch {
    return false;
  }
}

const machine = (): Machine => ({ platform: process.platform, arch: process.arch, musl: process.platform === "linux" && isMusl() });

/** A machine's name among the targets. */
export function targetOf({ platform, arch, musl }: Machine): string {
  const abi = { linux: musl ? "-musl" : "-gnu", win32: "-msvc" }[platform] ?? "";
  return `${platform}-${arch}${abi}`;
}

/** What was said of a failure and of its causes, the last failure first. */
function chainOf(error: unknown): string[] {
  const chain: string[] = [];
  // (A chain may be a circle.)
  for (let at = error; at !== undefined && at !== null && chain.length < 32; at = (at as { cause?: unknown }).cause) {
    chain.push(reasonOf(at));
  }
  return chain;
}

/** What is looked for and is not there, which is no reason of its own where something else was there and failed. */
const NOT_THERE = /^(Cannot find (native binding|(module|package) '(\.\/diffattn\.|@diffattn\/native))|Unsupported (OS|architecture))/;

/** An error's first line that says something; its stack of requires does not. */
const firstLine = (message: string): string =>
  cut(
    message
      .split("\n")
      .find((line) => line.trim() !== "")
      ?.trim() ?? "no reason",
  );

/** Why the addon did not load, in one line. */
export function whyNot(error: unknown, on: Machine): string {
  const target = targetOf(on);
  const c = on.platform === "linux" ? (on.musl ? " (musl)" : " (glibc)") : "";
  const where = `${on.platform}-${on.arch}${c}`;
  const wanted = `${PACKAGE}-${target}`;
  const chain = chainOf(error);
  const cause = chain.find((message) => !NOT_THERE.test(message));
  if (cause !== undefined) return `the binary of ${wanted}, for ${where}, did not load: ${firstLine(cause)}`;
  if (!TARGETS.includes(target)) return `no binary is published for ${where}`;
  // Without the loader nothing brings the binary.
  const missing = chain[0]?.includes(`'${PACKAGE}'`) ? `${PACKAGE} with ${wanted}` : wanted;
  return `the package ${missing}, for ${where}, is not installed (it is an optional dependency)`;
}

/** Asks for the binary without napi-rs's loader, which reads variables of the environment and fails where that is refused. */
function direct(require: NodeJS.Require, on: Machine): Addon {
  const target = targetOf(on);
  const beside = createRequire(require.resolve(`${PACKAGE}/package.json`));
  try {
    return beside(`${PACKAGE}-${target}`) as Addon;
  } catch (error) {
    if ((error as { code?: string }).code !== "MODULE_NOT_FOUND") throw error;
    return beside(`./diffattn.${target}.node`) as Addon;
  }
}

/** What napi-rs's loader reads of the environment. */
const READ = ["NAPI_RS_WASI_FLAVOR", "NAPI_RS_FORCE_WASI", "NAPI_RS_NATIVE_LIBRARY_PATH", "NAPI_RS_ENFORCE_VERSION_CHECK"];

/** Whether it may. */
function readable(): boolean {
  try {
    return READ.map((name) => process.env[name]).length > 0;
  } catch {
    return false;
  }
}

/** The addon; throws an error whose message is one line, and whose cause is what the loader threw. */
export function loadAddon(): Addon {
  const require = createRequire(scriptAddress());
  try {
    return readable() ? (require(PACKAGE) as Addon) : direct(require, machine());
  } catch (cause) {
    throw new Error(whyNot(cause, machine()), { cause });
  }
}
