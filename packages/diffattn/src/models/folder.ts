// From what a caller names a checkpoint or a file by to open files: which file of which name. Reads
// no header.

import { arrayType, bytesOf, has, show, tagOf, unreadable } from "../check.js";
import { fail, reasonOf } from "../errors.js";
import { endOf } from "./abort.js";
import { isText, mostOf, refusesPaths, tooLong } from "./access.js";
import type { Access, ByteSource, Folder, Opening, Reading } from "./byte-source.js";
import { barePlaceOf, fileAddress, HUB, type HubPlace, hubPlaceOf, MAIN, refuse } from "./hub-name.js";
import { type Files, modelsPlatform } from "./platform.js";
import { BlobSource, isHtml, MemorySource, openUrl } from "./source.js";
import type { CheckpointSource, FileSource } from "./types.js";

export type { Folder } from "./byte-source.js";

export const INDEX = "model.safetensors.index.json";
export const MODEL = "model.safetensors";
/** Where diff-mlx has the weights of its differential model, beside those of a plain one. */
const DIFF_MLX = "diff/latest.safetensors";

// (A tag may be anybody's.)
const isBlob = (x: unknown): x is Blob => /^(Blob|File)$/.test(tagOf(x)) && has(x, "size") && has(x, "slice");
const isUrl = (x: unknown): x is URL => tagOf(x) === "URL" && has(x, "protocol") && has(x, "pathname");
const isFile = (x: unknown): x is FileSource =>
  typeof x === "string" || isUrl(x) || isBlob(x) || ArrayBuffer.isView(x) || /^(Shared)?ArrayBuffer$/.test(tagOf(x));

/** The address that a text or URL is, where it is none of a file's path. */
function addressOf(source: string | URL): URL | undefined {
  const { files } = modelsPlatform();
  if (isUrl(source)) return files && source.protocol === "file:" ? undefined : source;
  if (files && !/^(https?|blob|data):/i.test(source)) return undefined;
  const { document, location } = globalThis as { document?: { baseURI: string }; location?: { href: string } };
  try {
    return new URL(source, document?.baseURI ?? location?.href);
  } catch (cause) {
    return fail("OPTION", "source", "an address", show(source), cause);
  }
}

/** The last part of an address's path. */
function lastPart({ protocol, pathname }: URL): string {
  if (protocol === "data:" || protocol === "blob:") return protocol.slice(0, -1);
  const part = pathname.slice(pathname.lastIndexOf("/") + 1);
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Refuses a path where only addresses of others are let in. */
function permitPath(name: string, access: Access): void {
  if (refusesPaths(access)) fail("FILE", name, "an address, no path (options allowedOrigins, allowPrivate)", "a path");
}

/** Whether there is a file or a folder of that name. */
async function isHere(path: string, files: Files): Promise<boolean> {
  if (await files.list(path)) return true;
  const { folder, name } = files.split(path);
  const file = await files.open(folder, name);
  file?.close();
  return file !== undefined;
}

/**
 * The place on the hub that a source is; undefined for all else. "org/name" is one where no file or
 * folder is called so; in browsers it is an address.
 */
async function hubOf(source: unknown, access: Access): Promise<HubPlace | undefined> {
  if (typeof source !== "string" && !isUrl(source)) return undefined;
  const { hub, files } = modelsPlatform();
  const endpoint = hub?.endpoint() ?? HUB;
  const place = hubPlaceOf(source, endpoint);
  if (place || !files || typeof source !== "string") return place;
  const bare = barePlaceOf(source, endpoint);
  return bare && !refusesPaths(access) && (await isHere(source, files)) ? undefined : bare;
}

/** A model on the hub, as the option `revision` has it. */
function revised(place: HubPlace, { revision }: Access): HubPlace {
  if (revision === undefined || revision === place.revision) return place;
  if (place.revision !== undefined) fail("OPTION", "revision", `${show(place.revision)}, as the source says, or none`, show(revision));
  return { ...place, revision };
}

/**
 * The files of a model on the hub: in Node out of the cache on this disk, where they come to at
 * first; in browsers, and for who named them as a stranger, at their addresses.
 */
async function ofHub(place: HubPlace, access: Access): Promise<Folder> {
  const { hub } = modelsPlatform();
  // (What this machine keeps, and the token that it has, are not for strangers.)
  if (hub && !refusesPaths(access)) return hub.open(place, access);
  const { token, headers } = access;
  const at = fileAddress(place, place.revision ?? MAIN, place.path);
  const isFolder = place.isFolder ?? true;
  if (isFolder && !at.pathname.endsWith("/")) at.pathname += "/";
  return ofAddress(at, {
    ...access,
    headers: token ? { ...headers, authorization: `Bearer ${token}` } : headers,
    onRefusal: (name, response) => refuse(name, response, place, Boolean(token) || "authorization" in headers),
  });
}

/** One file; `name` is what errors call it where it has no name of its own. */
async function openOne(
  source: unknown,
  name: string,
  opening: Opening,
  optional: boolean,
  access: Access,
): Promise<ByteSource | undefined> {
  if (typeof source === "string" || isUrl(source)) {
    const place = await hubOf(/^[a-z][a-z\d+.-]+:/i.test(String(source)) ? source : undefined, access);
    if (place) {
      const folder = await ofHub(place, access);
      if (folder.only !== undefined) return folder.open(folder.only, opening, optional);
      fail("OPTION", name, "a file of the hub's model", String(source));
    }
    const address = addressOf(source);
    if (address) return openUrl(name, address, opening, optional, access);
    permitPath(name, access);
    const { files } = modelsPlatform();
    const { folder, name: file } = files?.split(source) ?? { folder: "", name: "" };
    return files?.open(folder, file);
  }
  if (isBlob(source)) return new BlobSource(name, source);
  if (ArrayBuffer.isView(source)) return new MemorySource(name, bytesOf(name, source));
  if (/^(Shared)?ArrayBuffer$/.test(tagOf(source))) return new MemorySource(name, new Uint8Array(source as ArrayBuffer));
  return fail("OPTION", name, "a path, an address, a Blob or bytes", show(source));
}

/** `within`: files in folders, by their paths. */
function ofRecord(record: Readonly<Record<string, unknown>>, access: Access, only?: string, within?: ReadonlyMap<string, unknown>): Folder {
  const names = Object.keys(record);
  return {
    name: "source",
    names,
    only,
    open: async (name, opening, optional) => {
      let file: unknown;
      try {
        if (Object.hasOwn(record, name)) file = record[name];
        else if (within?.has(name)) file = within.get(name);
        else return undefined;
      } catch (thrown) {
        return unreadable("OPTION", name, thrown);
      }
      return openOne(file, name, opening, optional, access);
    },
  };
}

/**
 * The files of an `<input type="file">`; of a folder's, those that lie highest, and below the
 * index, or the configuration, by their paths from there, all.
 */
function ofFiles(files: Iterable<unknown>, access: Access): Folder {
  // (Outside of browsers a File knows no path.)
  const pathOf = (file: File): string => file.webkitRelativePath || file.name;
  const depth = (file: File): number => pathOf(file).split("/").length;
  // (Of no prototype: a file may have any name.)
  const record = Object.create(null) as Record<string, File>;
  const all: File[] = [];
  for (const file of files) {
    if (tagOf(file) !== "File") fail("OPTION", "source", "Files", show(file));
    const given = file as File;
    const known = record[given.name];
    if (!known || depth(given) < depth(known)) record[given.name] = given;
    all.push(given);
  }
  const index = Object.keys(record).find((name) => name.endsWith(".safetensors.index.json"));
  const at = record[index ?? "config.json"];
  const root = at ? pathOf(at).slice(0, -at.name.length) : undefined;
  const below = all.filter((file) => root !== undefined && pathOf(file).startsWith(root));
  return ofRecord(record, access, undefined, new Map(below.map((file) => [pathOf(file).slice(root?.length), file])));
}

function ofAddress(address: URL, access: Access): Folder {
  const isFolder = address.pathname.endsWith("/");
  // The query belongs to every file: it may be what lets them be read.
  const pathOf = (name: string): string => name.split("/").map(encodeURIComponent).join("/");
  const place = (name: string): URL => Object.assign(new URL(pathOf(name), address), { search: address.search });
  const only = isFolder ? undefined : lastPart(address);
  return {
    name: address.href,
    names: undefined,
    only,
    open: (name, opening, optional) => openUrl(name, name === only ? address : place(name), opening, optional, access),
  };
}

/**
 * What a caller gave, as a folder of files. A single file lies in the folder that it has beside it,
 * or in one of its own. `argument` is what errors call it.
 */
export async function folderOf(source: FileSource | CheckpointSource, access: Access, argument = "source"): Promise<Folder> {
  const folder = await unlimited(source, argument === "source" ? access : { ...access, revision: undefined }, argument);
  return {
    ...folder,
    async open(name, opening, optional) {
      const file = await folder.open(name, opening, optional);
      // (What else comes whole was counted as it came.)
      const most = isText(name) ? mostOf(name, access) : Infinity;
      if (!file || file.length <= most) return file;
      file.close();
      return tooLong(name, most, String(file.length));
    },
  };
}

async function unlimited(source: FileSource | CheckpointSource, access: Access, argument: string): Promise<Folder> {
  const place = await hubOf(source, access);
  if (place) return ofHub(revised(place, access), access);
  if (access.revision !== undefined) fail("OPTION", "revision", "none for what is no model of the hub", show(access.revision));
  if (typeof source === "string" || isUrl(source)) {
    const address = addressOf(source);
    if (address) return ofAddress(address, access);
    const { files } = modelsPlatform();
    if (!files) return fail("OPTION", argument, "an address", show(source));
    permitPath(argument, access);
    const names = await files.list(source);
    const { folder, name } = files.split(source);
    const at = names ? source : folder;
    return { name: String(source), names, only: names ? undefined : name, open: (file) => files.open(at, file) };
  }
  if (isFile(source)) {
    const name = isBlob(source) && "name" in source ? String(source.name) : "source";
    return ofRecord({ [name]: source }, access, name);
  }
  // Of any realm, and no class of the caller's own.
  const given: unknown = source;
  if (typeof given !== "object" || given === null || arrayType(given)) {
    return fail("OPTION", argument, "a folder, an address, a file, or files by name", show(given));
  }
  try {
    return Symbol.iterator in given ? ofFiles(given as Iterable<unknown>, access) : ofRecord(given as Record<string, unknown>, access);
  } catch (thrown) {
    return unreadable("OPTION", argument, thrown);
  }
}

/** A file that has to be there. */
export async function openFile(folder: Folder, name: string, opening: Opening): Promise<ByteSource> {
  const file = await folder.open(name, opening, false);
  if (file) return file;
  const { names } = folder;
  const got = names && names.length > 0 && names.length <= 12 ? `none beside ${names.join(", ")}` : "none";
  const at = folder.only === name ? `a file or a folder at ${folder.name}` : `a file in ${folder.name}`;
  return fail("FILE", name, folder.name === "source" ? "a file" : at, got);
}

/** A small file, whole. */
async function textOf(source: ByteSource, reading: Reading): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const bytes = await source.read(0, source.length, reading);
    if (isHtml(bytes)) fail("FILE", source.name, "JSON", "an HTML page");
    return bytes;
  } catch (error) {
    return endOf(error, reading.signal, (why) => fail("FILE", source.name, "a file that can be read", why, error));
  } finally {
    source.close();
  }
}

/** The bytes of a file that has to be there. */
export const readText = async (folder: Folder, name: string, opening: Opening): Promise<Uint8Array<ArrayBuffer>> =>
  textOf(await openFile(folder, name, opening), opening);

/** The bytes of a file that may be there; a page in its place is none. */
export async function readOptionalText(folder: Folder, name: string, opening: Opening): Promise<Uint8Array<ArrayBuffer> | undefined> {
  if (folder.names && !folder.names.includes(name)) return undefined;
  const source = await folder.open(name, opening, true);
  return source && textOf(source, opening);
}

/** Says what a file is that is not what its name says; undefined where nothing is known. */
export type KindOf = (bytes: Uint8Array) => Promise<string | undefined>;

/** JSON of a file; a byte order mark before it is skipped. What is none is named by `kindOf`. */
export async function parseJson(name: string, bytes: Uint8Array, kindOf?: KindOf): Promise<unknown> {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    const kind = await kindOf?.(bytes).catch(() => undefined);
    // Of text that is JSON by its look, the parser knows more.
    const got = kind && !kind.startsWith("JSON") ? kind : reasonOf(error);
    return fail("FILE", name, "JSON", got, error);
  }
}

/** The file of a checkpoint's weights, or the index of its files. */
export async function openWeights(folder: Folder, opening: Opening): Promise<ByteSource> {
  const { names, only } = folder;
  if (only !== undefined) return openFile(folder, only, opening);
  if (!names) {
    for (const name of [MODEL, INDEX, DIFF_MLX]) {
      const source = await folder.open(name, opening, true);
      if (source) return source;
    }
    return fail("FILE", MODEL, `${MODEL} or ${INDEX} in ${folder.name}`, "neither");
  }
  // An index before the shards that it names, of which one alone may be there.
  for (const name of [MODEL, INDEX]) if (names.includes(name)) return openFile(folder, name, opening);
  const below = await folder.open(DIFF_MLX, opening, true);
  if (below) return below;
  for (const ending of [".safetensors.index.json", ".safetensors"]) {
    const [first, ...others] = names.filter((name) => name.endsWith(ending));
    if (first !== undefined && others.length === 0) return openFile(folder, first, opening);
  }
  // Of a model in several files the first, which names the others.
  const [gguf, ...others] = names.filter((name) => name.endsWith(".gguf") && !/-(?!00001)\d{5}-of-\d{5}\.gguf$/.test(name));
  if (gguf !== undefined && others.length === 0) return openFile(folder, gguf, opening);
  const wanted = `${MODEL}, ${INDEX}, one other *.safetensors or one *.gguf in ${folder.name}`;
  return fail("FILE", MODEL, wanted, names.length > 0 ? names.slice(0, 12).join(", ") : "an empty folder");
}
