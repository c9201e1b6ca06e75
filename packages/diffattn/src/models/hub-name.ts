// Names of models on the Hugging Face Hub, and the addresses of its pages: which repository, which
// revision, what of it. Pure: asks no one, and knows no environment.

import { show } from "../check.js";
import { cut, fail } from "../errors.js";

/** Where the hub is, where nobody says otherwise. */
export const HUB = "https://huggingface.co";

/** Hosts whose pages are the hub's, wherever the hub is asked. */
const HOSTS = ["huggingface.co", "www.huggingface.co", "hf.co"];

/** A repository of a model, or a part of it. */
export interface HubPlace {
  /** Where the hub is, without a slash at its end. */
  readonly endpoint: string;
  /** "org/name"; of the oldest models "name". */
  readonly repo: string;
  /** A branch, a tag or a commit; undefined: not said. */
  readonly revision: string | undefined;
  /** A file or a folder within, without a slash at its end; "" for all. */
  readonly path: string;
  /** Whether `path` is said to be a folder or a file; undefined: not said. */
  readonly isFolder: boolean | undefined;
  /** Whether it could as well have been a path. */
  readonly isBare: boolean;
}

/** The branch that is taken where none is named. */
export const MAIN = "main";

/** What a part of a repository's name may be: what the hub itself lets in. */
const PART = /^(?!.*(?:--|\.\.))\w(?:[\w.-]*\w)?$/;
/** A revision that has slashes, as the hub writes it in its addresses. */
const REFS = /^(refs\/(?:pr\/\d+|convert\/\w+))(?:\/(.*))?$/;
/** Files of checkpoints, by their endings: no repository is called so. */
const FILE = /\.(safetensors|gguf|json|bin|pt|pth|txt|model|jinja)$/i;
/** What the hub holds besides models. */
const OTHERS = ["datasets", "spaces", "buckets", "kernels"];

/** The most characters of a repository's name, as the hub has it. */
const REPO = 96;
/** The most bytes of a name within a repository that file systems take, and of a whole path. */
const NAME = 255;
const PATH = 1024;

/**
 * Whether a path leads down and nowhere else, on every system: a server's names become files of
 * this machine.
 */
export function isSafePath(path: string): boolean {
  if (path.length > PATH) return false;
  // eslint-disable-next-line no-control-regex -- what no file is called
  if (/[\\:\u0000-\u001f\u007f]/.test(path)) return false;
  const bytes = (part: string): number => new TextEncoder().encode(part).byteLength;
  // (Windows takes dots and spaces off the ends of names.)
  return path.split("/").every((part) => part !== "" && !/^\.+$|[. ]$/.test(part) && bytes(part) <= NAME);
}

const isRepo = (repo: string): boolean =>
  repo.length <= REPO && repo.split("/").length <= 2 && repo.split("/").every((part) => PART.test(part));

/** Refuses a revision that is none. */
export function checkRevision(argument: string, revision: string): string {
  if (!isSafePath(revision)) fail("OPTION", argument, "a branch, a tag or a commit", show(revision));
  return revision;
}

/** A revision and what follows it: "main/a/b", "refs/pr/1/a". */
function splitRevision(rest: string): [revision: string, path: string] {
  const [, refs, below = ""] = REFS.exec(rest) ?? [];
  if (refs !== undefined) return [refs, below];
  const at = rest.indexOf("/");
  const [first, path] = at < 0 ? [rest, ""] : [rest.slice(0, at), rest.slice(at + 1)];
  return [decoded(first), path];
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A place whose parts are checked. `given`: as the caller wrote it. */
function placeOf(given: string, parts: Omit<HubPlace, "path" | "isFolder" | "isBare"> & Partial<HubPlace>): HubPlace {
  const { repo, revision, path = "", isFolder, isBare = false } = parts;
  const wanted = 'the name of a model on the hub, as "hf:org/name@revision"';
  if (!isRepo(repo)) fail("OPTION", "source", wanted, show(cut(given)));
  if (revision !== undefined) checkRevision("revision", revision);
  const within = path.replace(/\/$/, "");
  if (within !== "" && !isSafePath(within)) fail("OPTION", "source", "a file or a folder within the repository", show(cut(given)));
  return { ...parts, path: within, isFolder: isFolder ?? (path.endsWith("/") ? true : FILE.test(within) ? false : undefined), isBare };
}

/** "org/name@revision/path", as it stands after "hf:". */
function ofName(given: string, name: string, endpoint: string): HubPlace {
  const [, type, inType] = /^(models|datasets|spaces|buckets|kernels)\/([^/]+\/.*)$/.exec(name) ?? [];
  if (type !== undefined && OTHERS.includes(type)) fail("OPTION", "source", "the name of a model", `that of one of the ${type}`);
  const [, repo = "", tail = ""] = /^([^/@]*(?:\/[^/@]*)?)(.*)$/.exec(inType ?? name) ?? [];
  if (!tail.startsWith("@")) return placeOf(given, { endpoint, repo, revision: undefined, path: tail.slice(1) });
  const [revision, path] = splitRevision(tail.slice(1));
  return placeOf(given, { endpoint, repo, revision, path });
}

/** What follows a page's address within the hub, where it is one of the hub's. */
function pathOnHub(url: URL, endpoint: string): string | undefined {
  if (url.username || url.password) return undefined;
  if (url.href.startsWith(`${endpoint}/`)) return url.href.slice(endpoint.length + 1).replace(/[?#].*$/, "");
  if (!/^https?:$/.test(url.protocol) || url.port !== "" || !HOSTS.includes(url.hostname)) return undefined;
  return url.pathname.slice(1);
}

/** The kinds of pages that lie below a repository's, each with whether it shows a folder. */
const PAGES: Readonly<Record<string, boolean | undefined>> = { tree: true, blob: false, resolve: undefined, raw: false };

/** The model whose page, folder or file an address is; undefined for any other address. */
function ofPage(url: URL, endpoint: string): HubPlace | undefined {
  const path = pathOnHub(url, endpoint)?.replace(/\/+$/, (end) => (end === "" ? "" : "/"));
  if (path === undefined || path === "") return undefined;
  const parts = path.split("/").map(decoded);
  const [first = "", second = ""] = parts;
  if (OTHERS.includes(first) || ["api", "docs", "models", "blog", "papers", "collections"].includes(first)) return undefined;
  // (The oldest models have no organisation.)
  const isOld = second === "" || Object.hasOwn(PAGES, second);
  const repo = isOld ? first : `${first}/${second}`;
  const [kind = "", ...rest] = path.split("/").slice(isOld ? 1 : 2);
  if (kind === "") return placeOf(url.href, { endpoint, repo, revision: undefined });
  if (!Object.hasOwn(PAGES, kind) || rest[0] === undefined || rest[0] === "") return undefined;
  const [revision, below] = splitRevision(rest.join("/"));
  const within = below.split("/").map(decoded).join("/");
  // What is downloaded is a file, unless its address ends as a folder's.
  const isFolder = PAGES[kind] ?? (within === "" || within.endsWith("/"));
  return placeOf(url.href, { endpoint, repo, revision, path: within, isFolder: within === "" ? undefined : isFolder });
}

/**
 * The place on the hub that a text or an address names, and nothing else; undefined for what is
 * none of its names. OPTION for one that is wrong.
 */
export function hubPlaceOf(source: string | URL, endpoint: string): HubPlace | undefined {
  const text = String(source);
  const [, name] = /^hf:(?:\/\/)?(.*)$/is.exec(text) ?? [];
  if (name !== undefined) return ofName(text, name, endpoint);
  if (!/^https?:\/\//i.test(text)) return undefined;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    // What is no address is told where addresses are read.
    return undefined;
  }
  return ofPage(url, endpoint);
}

/** The place that "org/name" or "org/name@revision" may name, where it is no path. */
export function barePlaceOf(text: string, endpoint: string): HubPlace | undefined {
  const [, repo, revision] = /^([^/@]+\/[^/@]+)(?:@(.+))?$/.exec(text) ?? [];
  if (repo === undefined || !isRepo(repo) || FILE.test(repo)) return undefined;
  return placeOf(text, { endpoint, repo, revision, isBare: true });
}

/** What errors call it. */
export const nameOf = ({ repo, revision, path }: HubPlace): string =>
  `hf:${repo}${revision === undefined || revision === MAIN ? "" : `@${revision}`}${path === "" ? "" : `/${path}`}`;

const encoded = (path: string): string => path.split("/").map(encodeURIComponent).join("/");

/** Where a file of a revision, or what lies below one, is downloaded. */
export const fileAddress = ({ endpoint, repo }: HubPlace, revision: string, path: string): URL =>
  new URL(`${endpoint}/${repo}/resolve/${encodeURIComponent(revision)}/${encoded(path)}`);

/** Where a revision's files are listed. */
export const listAddress = ({ endpoint, repo, revision = MAIN }: HubPlace): URL =>
  new URL(`${endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}`);

/**
 * Refuses an answer of the hub that is a refusal, in the words of what was asked for. `name`: of
 * the file; what is none of the hub's own refusals is left to others.
 */
export function refuse(name: string, { status, headers }: Response, place: HubPlace, hasToken: boolean): void {
  const page = `${place.endpoint}/${place.repo}`;
  const code = headers.get("x-error-code") ?? "";
  const nor = place.isBare ? " (nor is there a file or folder of that name here)" : "";
  if (code === "GatedRepo" || (status === 403 && code === "")) {
    const how = hasToken ? "the token's owner" : "no token (option token, HF_TOKEN)";
    fail("FILE", name, `leave to read ${page}, which is asked for there`, `the status ${status} with ${how}`);
  }
  if (status === 404 && code === "RevisionNotFound")
    fail("FILE", "revision", `a branch, a tag or a commit of ${page}`, show(place.revision ?? MAIN));
  if (status === 404 && code === "RepoNotFound") fail("FILE", "source", `a model at ${page}`, `none of that name${nor}`);
  if (status === 401) {
    // Without a token the hub does not say which of these it is.
    const why = hasToken ? "a token that is not taken" : `none of that name, or one that wants a token (option token, HF_TOKEN)${nor}`;
    fail("FILE", "source", `a model that may be read at ${page}`, why);
  }
}
