// How the files of a load may be reached: what its requests carry, where they may go, how much is
// read of a file that comes whole. Every request of a load is made here. Reads no body.

import { oneOf, show } from "../check.js";
import { fail, reasonOf } from "../errors.js";
import { endOf, throwIfAborted, until } from "./abort.js";
import type { Access } from "./byte-source.js";
import { checkRevision } from "./hub-name.js";
import { modelsPlatform } from "./platform.js";
import type { LoadOptions } from "./types.js";

type Fetch = NonNullable<LoadOptions["fetch"]>;
type Credentials = NonNullable<LoadOptions["credentials"]>;

/** What every load takes. */
export const LOAD_OPTIONS: readonly string[] = [
  ...["signal", "onProgress", "cache", "maxTensors"],
  ...["headers", "fetch", "credentials", "allowedOrigins", "allowPrivate", "maxFileBytes"],
  ...["token", "revision"],
];

const CREDENTIALS: readonly Credentials[] = ["omit", "same-origin", "include"];

/** The most bytes of a JSON file, and of weights that come whole, where the caller does not say. */
const JSON_BYTES = 2 ** 26;
const WHOLE_BYTES = 2 ** 32;

/** Redirects that are followed for one file: as browsers have it. */
const REDIRECTS = 20;

const isGiven = (x: unknown): boolean => x !== undefined && x !== null;

/** A caller's headers. What they hold is a secret, also in errors. */
function headersOf(given: unknown): Record<string, string> {
  if (!isGiven(given)) return {};
  let headers: Headers | undefined;
  try {
    if (typeof given === "object") headers = new Headers(given as HeadersInit);
  } catch {
    // Told below: what it threw may quote a value.
  }
  if (!headers) return fail("OPTION", "headers", "names and values that HTTP can carry", show(given));
  if (headers.has("range")) return fail("OPTION", "headers", "no Range, which is said file by file", "one");
  return Object.fromEntries(headers);
}

/** An origin as addresses have it. */
function originOf(given: unknown, index: number): string {
  const wanted = 'an origin such as "https://example.org"';
  let url: URL | undefined;
  try {
    if (typeof given === "string") url = new URL(given);
  } catch {
    // Told below.
  }
  // Nothing but scheme, host and port; and a host that is one.
  const bare = url && /^https?:$/.test(url.protocol) && `${url.origin}/` === url.href && !url.hostname.includes("*");
  return url && bare ? url.origin : fail("OPTION", `allowedOrigins[${index}]`, wanted, show(given).slice(0, 300));
}

function originsOf(given: unknown): Set<string> | undefined {
  if (!isGiven(given)) return undefined;
  if (!Array.isArray(given)) return fail("OPTION", "allowedOrigins", "a list of origins", show(given));
  // (Places that hold nothing hold no origin.)
  return new Set(Array.from(given, originOf));
}

/** What lets private models be read. It is a secret, also in errors. */
function tokenOf(given: unknown): string | null | undefined {
  if (given === undefined || given === null) return given;
  const isToken = typeof given === "string" && /^[\x21-\x7e]+$/.test(given);
  return isToken
    ? given
    : fail("OPTION", "token", "a token of the hub, or null for none", typeof given === "string" ? "another text" : show(given));
}

/** Checks the options that say how files may be reached. */
export function accessOf(options: Partial<LoadOptions>): Access {
  const { cache, headers, fetch, credentials, allowedOrigins, allowPrivate, maxFileBytes, token, revision } = options as {
    [K in keyof LoadOptions]: unknown;
  };
  if (isGiven(cache) && typeof cache !== "string") fail("OPTION", "cache", "a name", show(cache));
  if (isGiven(fetch) && typeof fetch !== "function") fail("OPTION", "fetch", "a function", show(fetch));
  if (isGiven(credentials) && !CREDENTIALS.includes(credentials as Credentials))
    fail("OPTION", "credentials", oneOf(CREDENTIALS), show(credentials));
  if (isGiven(allowPrivate) && typeof allowPrivate !== "boolean") fail("OPTION", "allowPrivate", "true or false", show(allowPrivate));
  if (allowPrivate === false && !modelsPlatform().web)
    fail("OPTION", "allowPrivate", "true outside of Node, where no one is told what a name resolves to", "false");
  if (isGiven(maxFileBytes) && !(Number.isSafeInteger(maxFileBytes) && (maxFileBytes as number) > 0))
    fail("OPTION", "maxFileBytes", "an integer of 1 or more", show(maxFileBytes));
  if (isGiven(revision) && typeof revision !== "string") fail("OPTION", "revision", "a branch, a tag or a commit", show(revision));
  return {
    cache: (cache ?? undefined) as string | undefined,
    headers: headersOf(headers),
    fetch: (fetch ?? undefined) as Fetch | undefined,
    credentials: (credentials ?? undefined) as Credentials | undefined,
    origins: originsOf(allowedOrigins),
    allowPrivate: allowPrivate !== false,
    maxFileBytes: (maxFileBytes ?? undefined) as number | undefined,
    token: tokenOf(token),
    revision: isGiven(revision) ? checkRevision("revision", revision as string) : undefined,
    signal: options.signal ?? undefined,
  };
}

/** Whether a file is read whole wherever it comes from: JSON, and the templates of chats. */
export const isText = (name: string): boolean => /\.(json|jinja)$/.test(name);

/** The most bytes that are read of a file that comes whole. */
export const mostOf = (name: string, { maxFileBytes }: Access): number => maxFileBytes ?? (isText(name) ? JSON_BYTES : WHOLE_BYTES);

/** Refuses a file that has more bytes than are read of one. */
export const tooLong = (name: string, most: number, got: string): never =>
  fail("FILE", name, `at most ${most} bytes (option maxFileBytes)`, got);

/**
 * Whether only addresses of others are let in: what lies on this machine's disk is not for who
 * named them.
 */
export const refusesPaths = ({ origins, allowPrivate }: Access): boolean => origins !== undefined || !allowPrivate;

/**
 * An address in an error: all of it but a name and password, cut where it is long, as that of data
 * is.
 */
export function shown(url: URL): string {
  const { href, username, password } = url;
  const bare = username || password ? Object.assign(new URL(href), { username: "", password: "" }).href : href;
  return bare.length > 300 ? `${bare.slice(0, 299)}…` : bare;
}

/** One that a server named: what follows its path may be a key. */
const placeOf = ({ origin, pathname }: URL): string => `${origin}${pathname}`.slice(0, 300);

/** Whether an address is of a server. */
export const isWeb = ({ protocol }: URL): boolean => /^https?:$/.test(protocol);

/** Refuses an address that may not be asked. */
export async function permit(name: string, url: URL, { origins, allowPrivate }: Access, signal: AbortSignal | undefined): Promise<void> {
  throwIfAborted(signal);
  if (origins && !(isWeb(url) && origins.has(url.origin))) {
    const wanted = origins.size > 0 ? `an address of ${[...origins].join(" or ")}` : "no address";
    fail("FILE", name, `${wanted} (option allowedOrigins)`, isWeb(url) ? url.origin : url.protocol);
  }
  // (What an address of data or of a blob names is in this process.)
  const { web } = modelsPlatform();
  if (allowPrivate || !web || /^(data|blob):$/.test(url.protocol)) return;
  const wanted = "a public address (option allowPrivate)";
  if (!isWeb(url)) fail("FILE", name, wanted, url.protocol);
  let found: boolean;
  try {
    found = await until(signal, web.isPrivate(url.hostname));
  } catch (error) {
    return endOf(error, signal, (why) => fail("FILE", name, `an answer from ${placeOf(url)}`, why, error));
  }
  // (What a name resolves to is not told: it may be nobody's business.)
  if (found) fail("FILE", name, wanted, `the private one of ${url.hostname}`);
}

/** Gives up an answer. */
export const cancel = (response: Response): void => void response.body?.cancel().catch(() => {});

/** Where an answer sends its asker; undefined where it sends it nowhere. */
function redirectOf(name: string, response: Response, from: URL): URL | undefined {
  if (response.type === "opaqueredirect")
    return fail("FILE", name, `the file at ${shown(from)}`, "a redirect that this fetch does not show");
  if (![301, 302, 303, 307, 308].includes(response.status)) return undefined;
  const location = response.headers.get("location");
  if (location === null) return undefined;
  let to: URL | undefined;
  try {
    to = new URL(location, from);
  } catch {
    // Told below.
  }
  if (!to || !isWeb(to)) return fail("FILE", name, "a redirect to an address of http or https", show(location.slice(0, 100)));
  if (from.protocol === "https:" && to.protocol === "http:") return fail("FILE", name, "a redirect that stays with https", placeOf(to));
  return to;
}

/** Whether it is an answer, of any realm. */
function isResponse(x: unknown): x is Response {
  const { status, headers } = (typeof x === "object" && x !== null ? x : {}) as Partial<Response>;
  return typeof status === "number" && typeof headers?.get === "function";
}

/** One request; `told` is what errors call its address. */
async function once(name: string, url: URL, told: string, init: RequestInit, { fetch: own }: Access): Promise<Response> {
  const { username, password } = url;
  if (username || password) fail("FILE", name, "an address without name and password (they go into the option headers)", told);
  const { signal } = init;
  let response: unknown;
  try {
    // (A caller's own may not heed the signal.)
    response = own ? await until(signal, Promise.resolve(own(url.href, init))) : await fetch(url, init);
  } catch (error) {
    return endOf(error, signal, (why) => fail("FILE", name, `an answer from ${told}`, why, error));
  }
  return isResponse(response) ? response : fail("OPTION", "fetch", "a function that gives a Response", show(response));
}

/** What is asked of an address. */
export interface Wanted {
  /** As the header has it. */
  readonly range?: string | undefined;
  /**
   * Only what would come with it; at a redirect to another origin that is the redirect's own answer
   * (Node).
   */
  readonly head?: boolean;
  /** Not in a compressed form (Node). */
  readonly plain?: boolean;
}

/**
 * The answer of an address, and where it lies. In Node redirects are followed here: each is looked
 * at before it is asked, and the caller's headers stay behind for good at the first that leads to
 * another origin. Elsewhere the platform follows them, and what can be seen is where they ended.
 */
export async function ask(
  name: string,
  address: URL,
  { range, head, plain }: Wanted,
  access: Access,
  signal: AbortSignal | undefined,
): Promise<Response> {
  const follows = modelsPlatform().web !== undefined;
  let url = address;
  let headers = access.headers;
  for (let redirects = 0; ; redirects += 1) {
    await permit(name, url, access, signal);
    const init: RequestInit = {
      headers: { ...headers, ...(range !== undefined && { Range: range }), ...(plain && { "Accept-Encoding": "identity" }) },
      ...(head && { method: "HEAD" }),
      signal: signal ?? null,
      ...(follows && { redirect: "manual" }),
      ...(access.credentials && { credentials: access.credentials }),
      // (Browsers put a range together from what they hold of it and what the server sends for the
      // rest; Chromium gave the held part alone.)
      ...(range !== undefined && !follows && { cache: "no-store" as const }),
    };
    const response = await once(name, url, redirects === 0 ? shown(url) : placeOf(url), init, access);
    try {
      const to = redirectOf(name, response, url);
      if (!to || (head && to.origin !== url.origin)) {
        await arrived(name, response, url, access, signal);
        return response;
      }
      if (redirects === REDIRECTS) fail("FILE", name, `at most ${REDIRECTS} redirects`, `another to ${placeOf(to)}`);
      if (to.origin !== url.origin) headers = {};
      url = to;
    } catch (error) {
      cancel(response);
      throw error;
    }
    cancel(response);
  }
}

/**
 * Refuses an answer that the platform, or a caller's own fetch, brought from where no request may
 * go.
 */
async function arrived(name: string, response: Response, asked: URL, access: Access, signal: AbortSignal | undefined): Promise<void> {
  if (!response.url || !isWeb(asked)) return;
  let from: URL;
  try {
    from = new URL(response.url);
  } catch (error) {
    return fail("OPTION", "fetch", "a Response with its address", reasonOf(error), error);
  }
  if (from.origin !== asked.origin) await permit(name, from, access, signal);
}
