// What the models' entries do differently in Node and in browsers. Types only, and the one state
// that says which it is.

import type { Platform } from "../platform.js";
import type { Access, ByteSource, Folder } from "./byte-source.js";
import type { HubPlace } from "./hub-name.js";

/** Where bytes are written, one piece after the other. */
export interface Sink {
  write(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
  abort(reason: unknown): Promise<void>;
}

/** Files by path. */
export interface Files {
  /** The names in a folder; undefined when it is none. */
  list(folder: string | URL): Promise<string[] | undefined>;
  /** A path as a folder and a name in it. */
  split(path: string | URL): { folder: string; name: string };
  /** undefined when there is no such file. */
  open(folder: string | URL, name: string): Promise<ByteSource | undefined>;
  write(path: string | URL): Promise<Sink>;
  /** The path of a file in a folder, which is made where there is none. */
  within(folder: string | URL, name: string): Promise<string>;
  /** Gives a folder another name, under which there is nothing. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a folder with all that is in it; nothing where there is none. */
  remove(folder: string): Promise<void>;
  /** Whether a path leads to a folder, or to a file in it. */
  isSame(path: string | URL, folder: string | URL): Promise<boolean>;
}

/** What is known of servers where redirects are followed by the package itself. */
export interface Web {
  /** Whether a host, as addresses have it, has an address that is not public. */
  isPrivate(host: string): Promise<boolean>;
}

/** The hub, and what this machine keeps of it. */
export interface Hub {
  /** Where it is, as the environment says, without a slash at the end. */
  endpoint(): string;
  /** What there is of a model; a file comes when it is opened. */
  open(place: HubPlace, access: Access): Promise<Folder>;
}

/** Which modules on WASM: those of models, or those that train them, too. */
export type Home = "models" | "trainer";

export interface ModelsPlatform {
  /** How the WASM builds with models are loaded and run. */
  readonly wasm: Platform;
  /** Absent in browsers, where a text is an address. */
  readonly files?: Files;
  /** Absent in browsers, which follow redirects and resolve names unseen. */
  readonly web?: Web;
  /** Absent in browsers, where the hub is a server as any other. */
  readonly hub?: Hub;
}

let platform: ModelsPlatform;

/** Each entry's first act. */
export function useModelsPlatform(given: ModelsPlatform): void {
  platform = given;
}

export const modelsPlatform = (): ModelsPlatform => platform;

let trainer: Platform | undefined;

/** The first act of the entries of training: how the WASM builds that train models are run. */
export function useTrainerPlatform(given: Platform): void {
  trainer = given;
}

/** Undefined unless such an entry was loaded. */
export const trainerPlatform = (): Platform | undefined => trainer;
