// The package's own files, the WASM modules and the worker's script: how they are called, and where they lie: beside the scripts, in a
// folder of the caller's (`init({ wasm })`), or within the script `diffattn/inline`. Loads none of them.

import { fail } from "./errors.js";
import { tagOf } from "./check.js";
import { BUILDS, type Build } from "./platform.js";

/** A file that a script carries. */
export interface Carried {
  readonly carried: true;
  readonly name: string;
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** Absent where a runtime inflates in the background only. */
  bytesNow?: (() => Uint8Array<ArrayBuffer>) | undefined;
}

export interface OwnFiles {
  /** The builds that are there. */
  readonly builds: readonly Build[];
  /** Where a build's module comes from. */
  module(build: Build): URL | Carried | WebAssembly.Module;
  /** The address of the worker's script, or its text. */
  worker(): URL | string;
}

export const isCarried = (file: unknown): file is Carried => (file as Partial<Carried> | null)?.carried === true;

const PARTS: Record<Build, string> = { simd128: "simd128", "relaxed-simd": "relaxed", "relaxed-simd+threads": "threads" };

/** What a build's file is called. */
export const fileOf = (build: Build, models: boolean): string => `diffattn-${models ? "models-" : ""}${PARTS[build]}.wasm`;

/** The folder that `init({ wasm })` names: an address that ends with "/". */
export function folderOf(wasm: unknown): URL | undefined {
  if (tagOf(wasm) !== "URL") return undefined;
  const url = wasm as URL;
  return url.pathname.endsWith("/") ? url : undefined;
}

/** Modules that are at hand, and the worker beside them. */
export function ownFiles(modules: Partial<Record<Build, Carried | WebAssembly.Module>>, worker: OwnFiles["worker"]): OwnFiles {
  const builds = BUILDS.filter((build) => modules[build] !== undefined);
  return { builds, module: (build) => modules[build] ?? fail("UNAVAILABLE", "wasm", `a module of ${builds.join(", ")}`, build), worker };
}

/** The files in a folder. */
export const inFolder = (folder: URL, models: boolean): OwnFiles => ({
  builds: BUILDS,
  module: (build) => new URL(fileOf(build, models), folder),
  worker: () => new URL("worker.js", folder),
});

/** What helps where a tool did not carry the files along. */
export const INSTEAD = 'import "diffattn/inline" (models: "diffattn/inline-models"), or a folder with the files, init({ wasm: folder })';

/** Files beside the script, by their literal addresses. A runtime that gives scripts no address has none. */
export const besideScript = (modules: Record<Build, () => URL>, worker: () => URL): OwnFiles => {
  const found = (address: () => URL): URL => {
    try {
      return address();
    } catch (cause) {
      return fail("UNAVAILABLE", "wasm", `a script with an address, for the files beside it, or ${INSTEAD}`, "none", cause);
    }
  };
  return { builds: BUILDS, module: (build) => found(modules[build]), worker: () => found(worker) };
};

/** What `diffattn/inline` and `diffattn/inline-models` leave for the entries, whichever copy of them runs. */
export interface Inline {
  /** The worker's script. */
  worker: string;
  /** Modules by their files' names: deflated, in base64. */
  modules: Record<string, string>;
}

const key = (): symbol => Symbol.for(`diffattn.inline ${__VERSION__}`);
const scope = globalThis as unknown as Record<symbol, Inline | undefined>;

/** Leaves files for the entries. */
export function carry({ worker, modules }: Inline): void {
  scope[key()] = { worker, modules: { ...scope[key()]?.modules, ...modules } };
}

/** Raw bytes of a text in base64. */
function decoded(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < bytes.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

async function inflated(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The files that a script carries; undefined where none does. `inflate`: how it is done at once. */
export function inlineFiles(models: boolean, inflate?: (bytes: Uint8Array) => Uint8Array<ArrayBuffer>): OwnFiles | undefined {
  const inline = scope[key()];
  if (!inline) return undefined;
  const carried = (build: Build): Carried | undefined => {
    const name = fileOf(build, models);
    const text = inline.modules[name];
    if (text === undefined) return undefined;
    return { carried: true, name, bytes: () => inflated(decoded(text)), bytesNow: inflate && (() => inflate(decoded(text))) };
  };
  const files = ownFiles(Object.fromEntries(BUILDS.map((build) => [build, carried(build)])), () => inline.worker);
  return files.builds.length > 0 ? files : undefined;
}
