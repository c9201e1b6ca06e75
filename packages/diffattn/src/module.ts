// A compiled module from whatever `init({ wasm })` takes. Names an HTML answer as such. Chooses nothing.

import { arrayType, show, tagOf } from "./check.js";
import { DiffAttnError, fail, reasonOf } from "./errors.js";

const refuse = (got: string, cause?: unknown): never => fail("UNAVAILABLE", "wasm", "a WebAssembly file", got, cause);

function rethrow(error: unknown, from: string): never {
  if (error instanceof DiffAttnError) throw error;
  return refuse(`${reasonOf(error)} from ${from}`, error);
}

/** Bytes that are a module, not a page that a server sent in its place. */
function checked(bytes: BufferSource, from: string): BufferSource {
  const view = ArrayBuffer.isView(bytes) ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes);
  const isModule = view[0] === 0 && view[1] === 0x61 && view[2] === 0x73 && view[3] === 0x6d;
  if (isModule) return bytes;
  const start = new TextDecoder().decode(view.slice(0, 64)).trimStart();
  return refuse(`${start.startsWith("<") ? "an HTML page" : "something else"} from ${from}`);
}

async function fromResponse(response: Response): Promise<WebAssembly.Module> {
  const from = response.url || "the response";
  if (!response.ok) refuse(`the status ${response.status} from ${from}`);
  // Streaming compiles while it loads and lets the browser cache the code; it insists on the media type.
  if (response.headers.get("content-type")?.startsWith("application/wasm")) return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(checked(await response.arrayBuffer(), from));
}

// By their tags, so that values of another realm count too.
const isNamed = (value: unknown, name: string): boolean => tagOf(value) === name;

/** Refuses what no module is made of. */
export const notModule = (source: unknown): never =>
  fail("OPTION", "wasm", "a URL, a Response, bytes or a WebAssembly.Module", show(source));

export async function compile(source: unknown): Promise<WebAssembly.Module> {
  try {
    if (isNamed(source, "WebAssembly.Module")) return source as WebAssembly.Module;
    if (isNamed(source, "Response")) return await fromResponse(source as Response);
    if (isNamed(source, "URL")) return await fromResponse(await fetch(source as URL));
    if (isNamed(source, "ArrayBuffer") || arrayType(source))
      return await WebAssembly.compile(checked(source as BufferSource, "the bytes given"));
  } catch (error) {
    rethrow(error, isNamed(source, "URL") ? String(source) : "what was given");
  }
  return notModule(source);
}

/** The same of bytes that are read at once. */
export function compileSync(read: () => BufferSource, from: string): WebAssembly.Module {
  try {
    return new WebAssembly.Module(checked(read(), from));
  } catch (error) {
    return rethrow(error, from);
  }
}
