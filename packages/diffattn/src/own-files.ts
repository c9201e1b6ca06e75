// The package's own files, the WASM modules and the worker's script: how they are called, and where
// they lie: beside the scripts, in a folder of the caller's (given.ts), or within the
// script `diffattn/inline`. Loads none of them.

import { fail } from "./errors.js";
import { BUILDS, type Build, type InThread, type Part } from "./port.js";

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

const NAMES: Record<Build, string> = { simd128: "simd128", "relaxed-simd": "relaxed", "relaxed-simd+threads": "threads" };

/** What a build's file is called. */
export const fileOf = (build: Build, part: Part): string => `diffattn-${part === "operators" ? "" : `${part}-`}${NAMES[build]}.wasm`;

/** Modules that are at hand, and the worker beside them. */
export function ownFiles(modules: Partial<Record<Build, Carried | WebAssembly.Module>>, worker: OwnFiles["worker"]): OwnFiles {
  const builds = BUILDS.filter((build) => modules[build] !== undefined);
  return { builds, module: (build) => modules[build] ?? fail("UNAVAILABLE", "wasm", `a module of ${builds.join(", ")}`, build), worker };
}

/** What helps where a tool did not carry the files along. */
export const INSTEAD =
  'import "diffattn/inline" (models: "diffattn/inline-models", gradients: "diffattn/inline-training"), or a folder with the files, init({ wasm: folder })';

/**
 * Files beside the script, by their literal addresses. A runtime that gives scripts no address has
 * none.
 */
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

/** Inflates at once. */
export type Inflate = (bytes: Uint8Array) => Uint8Array<ArrayBuffer>;

/**
 * What `diffattn/inline` and its like (carried.ts) and `diffattn/in-thread` leave for the entries,
 * whichever copy of them runs.
 */
export interface Inline {
  /** Modules by their files' names: deflated, in base64. */
  readonly modules?: Readonly<Record<string, string>>;
  /** The files, where there are any of that kind. */
  readonly files?: (part: Part, inflate: Inflate | undefined) => OwnFiles | undefined;
  readonly inThread: InThread;
}

/** Where they leave it. */
const inlineKey = (): symbol => Symbol.for(`diffattn.inline ${__VERSION__}`);

export const inline = (): Inline | undefined => (globalThis as unknown as Record<symbol, Inline | undefined>)[inlineKey()];

/** Leaves something beside what is there. */
export const leave = (left: Inline): void => void Object.assign(globalThis, { [inlineKey()]: { ...inline(), ...left } });

/**
 * The files that a script carries; undefined where none does. `inflate`: how it is done at once.
 */
export const inlineFiles = (part: Part, inflate?: Inflate): OwnFiles | undefined => inline()?.files?.(part, inflate);
