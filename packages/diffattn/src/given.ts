// What `init({ wasm })` takes: a folder with the package's files, or a module of the caller's.

import { arrayType, isAbsent, show, tagOf } from "./check.js";
import { fail } from "./errors.js";
import { checked, fromResponse, isNamed, rethrow } from "./module.js";
import { fileOf, type OwnFiles } from "./own-files.js";
import type { Platform, Source } from "./platform.js";
import { BUILDS, type Part } from "./port.js";

/** The folder that `init({ wasm })` names: an address that ends with "/". */
export function folderOf(wasm: unknown): URL | undefined {
  if (tagOf(wasm) !== "URL") return undefined;
  const url = wasm as URL;
  return url.pathname.endsWith("/") ? url : undefined;
}

/** The files in a folder. */
export const inFolder = (folder: URL, part: Part): OwnFiles => ({
  builds: BUILDS,
  module: (build) => new URL(fileOf(build, part), folder),
  worker: () => new URL("worker.js", folder),
});

/** Refuses what no module is made of. */
export const notModule = (source: unknown): never =>
  fail("OPTION", "wasm", "a URL, a Response, bytes or a WebAssembly.Module", show(source));

/** The module of whatever is no folder. */
export async function compileGiven(given: unknown, platform: Pick<Platform, "loadModule">): Promise<WebAssembly.Module> {
  try {
    if (isNamed(given, "Response")) return await fromResponse(given as Response);
    if (isNamed(given, "ArrayBuffer") || arrayType(given))
      return await WebAssembly.compile(checked(given as BufferSource, "the bytes given"));
    if (isNamed(given, "URL") || isNamed(given, "WebAssembly.Module")) return await platform.loadModule(given as URL);
  } catch (error) {
    return rethrow(error, "what was given");
  }
  return notModule(given);
}

/** Where modules come from, of what the caller gave. */
export function sourceOf(wasm: unknown): Source | undefined {
  if (isAbsent(wasm)) return undefined;
  if (typeof wasm !== "object") return notModule(wasm);
  const folder = folderOf(wasm);
  if (folder) return { files: (part) => inFolder(folder, part) };
  let module: WebAssembly.Module | undefined;
  // A response can be read once only.
  return { load: async (platform) => (module ??= await compileGiven(wasm, platform)) };
}
