// What the environment says of the hub, in Node: by the names and defaults of the hub's own tools.
// Reads the token's file, and nothing else.

import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fail } from "../errors.js";
import { HUB } from "./hub-name.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** Milliseconds that are waited for the hub where the cache could answer, where none is said. */
const PATIENCE = 10_000;

const isTrue = (text: string | undefined): boolean => /^(1|true|yes|on)$/i.test(text ?? "");

/** A path of the environment, with what stands for others in it. */
function pathOf(text: string, env: Environment): string {
  const home = text.replace(/^~(?=$|[\\/])/, homedir());
  return home.replace(/\$(?:(\w+)|\{(\w+)\})/g, (all, bare?: string, braced?: string) => env[bare ?? braced ?? ""] ?? all);
}

/** Where the hub is, without slashes at the end. */
export function endpointOf(env: Environment = process.env): string {
  const given = env["HF_ENDPOINT"] || HUB;
  let url: URL | undefined;
  try {
    url = new URL(given);
  } catch {
    // Told below.
  }
  const isPlain = url && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search && !url.hash;
  return url && isPlain ? url.href.replace(/\/+$/, "") : fail("OPTION", "HF_ENDPOINT", "the address of a hub", JSON.stringify(given));
}

/**
 * Where the hub is, for who only looks whether an address is one of its own: a wrong setting is
 * told by who asks the hub.
 */
export function knownEndpoint(): string {
  try {
    return endpointOf();
  } catch {
    return HUB;
  }
}

export interface HubSettings {
  /** The folder of the cache. */
  readonly cache: string;
  readonly isOffline: boolean;
  /** Whether snapshots may be links to blobs. */
  readonly links: boolean;
  /** Milliseconds that are waited for the hub where the cache could answer. */
  readonly patience: number;
  /** The token that there is, where there is one. */
  token(): Promise<string | undefined>;
}

export function hubSettings(env: Environment = process.env): HubSettings {
  const home = pathOf(env["HF_HOME"] || join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "huggingface"), env);
  const seconds = Number(env["HF_HUB_ETAG_TIMEOUT"]);
  return {
    cache: pathOf(env["HF_HUB_CACHE"] || env["HUGGINGFACE_HUB_CACHE"] || join(home, "hub"), env),
    isOffline: isTrue(env["HF_HUB_OFFLINE"] || env["TRANSFORMERS_OFFLINE"]),
    links: !isTrue(env["HF_HUB_DISABLE_SYMLINKS"]),
    patience: seconds > 0 ? 1000 * seconds : PATIENCE,
    async token() {
      const given = env["HF_TOKEN"] || env["HUGGING_FACE_HUB_TOKEN"];
      if (isTrue(env["HF_HUB_DISABLE_IMPLICIT_TOKEN"])) return undefined;
      const path = pathOf(env["HF_TOKEN_PATH"] || join(home, "token"), env);
      // (Where there is no such file, or none that can be read, there is no token.)
      const token = (given ?? (await readFile(path, "utf8").catch(() => ""))).trim();
      if (token === "") return undefined;
      if (!/^[\x21-\x7e]+$/.test(token)) fail("OPTION", "HF_TOKEN", "a token of the hub", "another text");
      return token;
    },
  };
}
