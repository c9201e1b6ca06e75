// A compiled module of one of the package's own files. Names an HTML answer as such. Chooses
// nothing.

import { tagOf } from "./check.js";
import { DiffAttnError, fail, reasonOf } from "./errors.js";
import { type Carried, INSTEAD, isCarried } from "./own-files.js";

/** `hint`: what helps where the file was to be the package's own. */
const refuse = (got: string, cause?: unknown, hint = ""): never => fail("UNAVAILABLE", "wasm", `a WebAssembly file${hint}`, got, cause);

/** What helps where a tool left the package's own file behind. */
export const NOT_CARRIED = ` (where a tool does not carry it along: ${INSTEAD})`;

export function rethrow(error: unknown, from: string, hint = ""): never {
  if (error instanceof DiffAttnError) throw error;
  return refuse(`${reasonOf(error)} from ${from}`, error, hint);
}

/** Bytes that are a module, not a page that a server sent in its place. */
export function checked(bytes: BufferSource, from: string, hint = ""): BufferSource {
  const view = ArrayBuffer.isView(bytes) ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes);
  const isModule = view[0] === 0 && view[1] === 0x61 && view[2] === 0x73 && view[3] === 0x6d;
  if (isModule) return bytes;
  const start = new TextDecoder().decode(view.slice(0, 64)).trimStart();
  return refuse(`${start.startsWith("<") ? "an HTML page" : "something else"} from ${from}`, undefined, hint);
}

export async function fromResponse(response: Response, hint?: string): Promise<WebAssembly.Module> {
  const from = response.url || "the response";
  if (!response.ok) refuse(`the status ${response.status} from ${from}`, undefined, hint);
  // Streaming compiles while it loads and lets the browser cache the code; it insists on the media
  // type.
  if (response.headers.get("content-type")?.startsWith("application/wasm")) return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(checked(await response.arrayBuffer(), from, hint));
}

// By their tags, so that values of another realm count too.
export const isNamed = (value: unknown, name: string): boolean => tagOf(value) === name;

/** The module of one of the package's own files. `hint`: what helps where it is not there. */
export async function compile(file: URL | Carried | WebAssembly.Module, hint = ""): Promise<WebAssembly.Module> {
  if (isNamed(file, "WebAssembly.Module")) return file;
  try {
    if (isCarried(file)) return await WebAssembly.compile(checked(await file.bytes(), file.name));
    return await fromResponse(await fetch(file as URL), hint);
  } catch (error) {
    return rethrow(error, isCarried(file) ? file.name : (file as URL).href, hint);
  }
}

/**
 * A module at once, of a file that was compiled before, that is carried, or that `read` gives the
 * bytes of.
 */
export function compileSync(file: URL | Carried | WebAssembly.Module, read: (file: URL) => BufferSource): WebAssembly.Module {
  if (isNamed(file, "WebAssembly.Module")) return file;
  if (!isCarried(file)) return compiled(() => read(file as URL), (file as URL).href, NOT_CARRIED);
  const now = file.bytesNow ?? fail("UNAVAILABLE", "init", "an init() that has ended, where a script carries the module", "none");
  return compiled(now, file.name);
}

function compiled(read: () => BufferSource, from: string, hint = ""): WebAssembly.Module {
  try {
    return new WebAssembly.Module(checked(read(), from, hint));
  } catch (error) {
    return rethrow(error, from, hint);
  }
}
