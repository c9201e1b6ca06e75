// Loads the native addon. Why a binary does not load is told by its package
// (packages/native/loader.js); here only what that package cannot tell: that it is not there
// itself, or is one of another release.

import { createRequire } from "node:module";
import type { Addon } from "@diffattn/native";
import { reasonOf } from "./errors.js";
import { scriptAddress } from "./script-address.js";

const PACKAGE = "@diffattn/native";

/**
 * What the native package exports. (By a name that no bundler follows: Turbopack would want the
 * binaries of all platforms.)
 */
const native = (name: string): unknown => createRequire(scriptAddress())(name);

/**
 * The addon; throws an error whose message is one sentence, and whose cause is what was thrown.
 * `load` may be given for tests.
 */
export function loadAddon(load: (name: string) => unknown = native): Addon {
  let addon: Addon;
  try {
    addon = load(PACKAGE) as Addon;
  } catch (cause) {
    const [said = ""] = reasonOf(cause).split("\n");
    const missing = (cause as { code?: unknown } | undefined)?.code === "MODULE_NOT_FOUND" && said.includes(PACKAGE);
    const reason = missing
      ? `the package ${PACKAGE}, which brings the binary for ${process.platform}-${process.arch}, is not installed: ` +
        "it is an optional dependency, which --omit=optional leaves out"
      : said;
    throw new Error(reason, { cause });
  }
  const { version } = addon.info();
  if (version !== __VERSION__) {
    throw new Error(`the package ${PACKAGE}: expected version ${__VERSION__}, as this package has, got ${version}`);
  }
  return addon;
}
