// Models of the hub in Node: which files a revision has, the hub asked and else the cache; files
// opened out of the cache, where they come to at first. (Layout of the cache: hub-cache.ts; how a
// file comes: hub-download.ts.)

import { join } from "node:path";
import { show } from "../check.js";
import { aborted, DiffAttnError, fail, reasonOf } from "../errors.js";
import type { Access, ByteSource, Folder, Opening, Reading } from "./byte-source.js";
import { HubCache, isCommit, isFile } from "./hub-cache.js";
import { download, lookAt } from "./hub-download.js";
import { fileAddress, type HubPlace, isSafePath, listAddress, MAIN, nameOf, refuse } from "./hub-name.js";
import { files as disk } from "./node-files.js";
import { endpointOf, type HubSettings, hubSettings, knownEndpoint } from "./node-hub-settings.js";
import type { Hub } from "./platform.js";
import { openUrl } from "./source.js";

/** The most bytes of a list of files, and the most of them. */
const LIST_BYTES = 2 ** 26;
const FILES = 100_000;

/** What is read by range where not all of it is wanted: a checkpoint's headers are a small part. */
const WEIGHTS = /\.(safetensors|gguf|bin|pt|pth)$/i;

/** A revision: the commit that it is, and its files. */
interface Listing {
  readonly commit: string;
  readonly files: readonly string[];
  /** Whether the hub was asked, and has what is not here. */
  readonly isOnline: boolean;
}

/** Why the hub did not answer. */
class NoAnswer extends Error {
  constructor(override readonly cause: unknown) {
    super(reasonOf(cause));
  }
}

/** What the hub says of a revision. */
function listingOf(place: HubPlace, json: Uint8Array): Listing {
  const name = `the list of ${place.repo}`;
  let told: { sha?: unknown; siblings?: unknown } | null;
  try {
    told = JSON.parse(new TextDecoder().decode(json)) as typeof told;
  } catch (error) {
    // (Without it as the cause: an answer came.)
    return fail("FILE", name, "JSON", reasonOf(error));
  }
  const { sha, siblings } = told ?? {};
  if (typeof sha !== "string" || !isCommit(sha)) return fail("FILE", name, "a commit", show(sha));
  if (!Array.isArray(siblings) || siblings.length > FILES) return fail("FILE", name, `a list of at most ${FILES} files`, show(siblings));
  const files = siblings.map((one: { rfilename?: unknown } | null) => {
    const file = one?.rfilename;
    return typeof file === "string" ? file : fail("FILE", name, "names of files", show(file));
  });
  // What cannot be a file's name on every system, or leads elsewhere, is none for us.
  return { commit: sha, files: files.filter(isSafePath), isOnline: true };
}

/** Asks the hub for a revision's files. */
async function ask(place: HubPlace, access: Access, patience: number | undefined): Promise<Listing> {
  const limits = [access.signal, patience === undefined ? undefined : AbortSignal.timeout(patience)].filter((one) => one !== undefined);
  const signal = AbortSignal.any(limits);
  let status: number | undefined;
  const name = `the list of ${place.repo}`;
  const onRefusal = (_: string, response: Response): void => {
    status = response.status;
    access.onRefusal?.(name, response);
  };
  try {
    const reach = { ...access, onRefusal, maxFileBytes: access.maxFileBytes ?? LIST_BYTES };
    const source = await openUrl(name, listAddress(place), { signal }, false, reach);
    if (!source) return fail("FILE", "source", `a model at ${place.endpoint}/${place.repo}`, "none of that name");
    return listingOf(place, await source.read(0, source.length, { signal }));
  } catch (error) {
    if (access.signal?.aborted) throw aborted(access.signal.reason);
    if (status !== undefined && status !== 429 && status < 500) throw error;
    const isSilent = status !== undefined || signal.aborted || (error instanceof DiffAttnError && error.cause !== undefined);
    throw isSilent ? new NoAnswer(error) : error;
  }
}

/** A revision as the hub has it now, or, where it does not answer, as it was the last time. */
async function listed(place: HubPlace, access: Access, cache: HubCache, { isOffline, patience }: HubSettings): Promise<Listing> {
  const { repo, revision = MAIN } = place;
  const commit = await cache.commitOf(revision);
  const files = commit === undefined ? [] : await cache.files(commit);
  const kept = commit !== undefined && files.length > 0 ? { commit, files, isOnline: false } : undefined;
  const wanted = `${repo}, revision ${revision}, in the cache (${cache.snapshot("")})`;
  const nor = place.isBare ? "; nor is there a file or folder of that name here" : "";
  if (isOffline) return kept ?? fail("FILE", "source", wanted, `none, and HF_HUB_OFFLINE is set${nor}`);
  try {
    return await ask(place, access, kept && patience);
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error;
    if (kept) return kept;
    return fail("FILE", "source", `an answer from ${place.endpoint}, or ${wanted}`, `${error.message}${nor}`, error.cause);
  }
}

/** The files of a revision, opened out of the cache. */
class Snapshot {
  readonly folder: string;
  readonly commit: string;
  readonly #names: ReadonlySet<string>;

  constructor(
    readonly place: HubPlace,
    readonly listing: Listing,
    readonly cache: HubCache,
    readonly access: Access,
  ) {
    this.commit = listing.commit;
    this.folder = cache.snapshot(listing.commit);
    this.#names = new Set(listing.files);
  }

  /** Where a file lies once it is here. */
  at(file: string): string {
    return join(this.folder, ...file.split("/"));
  }

  #url(file: string): URL {
    return fileAddress(this.place, this.commit, file);
  }

  async fetch(file: string, reading: Reading): Promise<void> {
    const { commit, cache, access, place } = this;
    const { revision = MAIN } = place;
    const isHere = await isFile(this.at(file));
    // (Another may have removed it since it was listed.)
    if (!isHere && !this.listing.isOnline) fail("FILE", file, `the file in ${this.folder}`, "none");
    if (!isHere) {
      const name = file.slice(file.lastIndexOf("/") + 1);
      const wish = { name, url: this.#url(file), commit, access };
      const about = await lookAt(wish, reading.signal);
      const isNew = await download(wish, about, cache.blob(about.etag), reading);
      await this.#kept(() => cache.name(about.etag, commit, file, isNew));
    }
    // (A cache that nobody may write to is read all the same.)
    const keeping = this.listing.isOnline ? cache.keepCommit(revision, commit) : Promise.resolve();
    await (isHere ? keeping.catch(() => {}) : this.#kept(() => keeping));
  }

  async #kept(body: () => Promise<void>): Promise<void> {
    try {
      await body();
    } catch (error) {
      fail("FILE", "source", `a place for files at ${this.folder}`, reasonOf(error), error);
    }
  }

  /** `name`: what errors call the file. */
  async open(file: string, name: string, opening: Opening, optional: boolean): Promise<ByteSource | undefined> {
    if (!this.#names.has(file)) return undefined;
    const inParts = WEIGHTS.test(file) && !opening.all && this.listing.isOnline;
    if (inParts && !(await isFile(this.at(file)))) return openUrl(name, this.#url(file), opening, optional, this.access);
    await this.fetch(file, opening);
    const below = file.slice(0, file.length - name.length);
    return disk.open(join(this.folder, below), name);
  }
}

/** What a place names of a snapshot: a folder, or a file in one. */
function within({ path, isFolder, repo }: HubPlace, { commit, files }: Listing): { below: string; only: string | undefined } {
  if (path === "") return { below: "", only: undefined };
  if (isFolder !== true && files.includes(path)) {
    const at = path.lastIndexOf("/") + 1;
    return { below: path.slice(0, at), only: path.slice(at) };
  }
  if (isFolder !== false && files.some((file) => file.startsWith(`${path}/`))) return { below: `${path}/`, only: undefined };
  const what = isFolder === undefined ? "file or folder" : isFolder ? "folder" : "file";
  return fail("FILE", "source", `a ${what} of ${repo}, commit ${commit.slice(0, 8)}`, `none called ${path}`);
}

async function open(place: HubPlace, access: Access): Promise<Folder> {
  endpointOf();
  const settings = hubSettings();
  const own = "authorization" in access.headers;
  const token = access.token !== undefined ? access.token : own ? undefined : await settings.token();
  const reach: Access = {
    ...access,
    headers: token ? { ...access.headers, authorization: `Bearer ${token}` } : access.headers,
    onRefusal: (name, response) => refuse(name, response, place, Boolean(token) || own),
  };
  const cache = new HubCache(settings.cache, place.repo, settings.links);
  const listing = await listed(place, reach, cache, settings);
  const snapshot = new Snapshot(place, listing, cache, reach);
  const { below, only } = within(place, listing);
  const names = listing.files.filter((file) => file.startsWith(below)).map((file) => file.slice(below.length));
  return {
    name: listing.isOnline ? nameOf(place) : `${nameOf(place)} as it is in the cache`,
    names: only === undefined ? names.filter((name) => !name.includes("/")) : undefined,
    only,
    hub: {
      folder: join(snapshot.folder, below),
      commit: listing.commit,
      files: names,
      fetch: (file, reading) => snapshot.fetch(`${below}${file}`, reading),
      at: (file) => snapshot.at(`${below}${file}`),
    },
    open: (name, opening, optional) => snapshot.open(`${below}${name}`, name, opening, optional),
  };
}

export const hub: Hub = { endpoint: knownEndpoint, open };
