// downloadCheckpoint: brings what a model of the hub is made of into the cache on this disk,
// without loading it. Which files these are, those say that read them.

import { checkOptions, isAbsent, isArray, show } from "../check.js";
import { fail } from "../errors.js";
import { checkSignal } from "../run.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import type { Folder, HubFiles } from "./byte-source.js";
import { Checkpoint, Progress } from "./checkpoint.js";
import { folderOf } from "./folder.js";
import { modelsPlatform } from "./platform.js";
import type * as types from "./types.js";

/** What lies beside weights, in no folder of its own: configurations, texts, the card. */
const BESIDE = /^[^/]+\.(json|jinja|txt|model|md)$|^LICEN[CS]E[^/]*$/i;

/** A pattern as the hub's own tools have it: `*` stands for any characters, `?` for one. */
function patternOf(given: string): RegExp {
  const text = given
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replace(/\*+/g, ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${given.endsWith("/") ? `${text}.*` : text}$`, "s");
}

function patternsOf(given: unknown): RegExp[] | undefined {
  if (isAbsent(given)) return undefined;
  const list: unknown[] = isArray(given) ? given : [given];
  if (list.length === 0 || !list.every((one) => typeof one === "string" && one !== ""))
    return fail("OPTION", "include", 'a pattern of names, as "*.json", or a list of them', show(given));
  return (list as string[]).map(patternOf);
}

/** Fetches the files of some names, and says which these are. */
async function fetchAll(hub: HubFiles, isWanted: (file: string) => boolean, reading: Parameters<HubFiles["fetch"]>[1]) {
  const wanted = hub.files.filter(isWanted);
  for (const file of wanted) await hub.fetch(file, reading);
  return wanted;
}

/** Fetches the weights that a load would read, and what lies beside them. */
async function fetchModel(folder: Folder, hub: HubFiles, given: Partial<types.DownloadOptions>, progress: Progress): Promise<string[]> {
  const { signal, maxTensors } = given;
  const checkpoint = await Checkpoint.open(folder, { signal, maxTensors, all: true, gguf: true }, progress);
  checkpoint.close();
  const weights = new Set(checkpoint.files);
  // A GGUF file holds all of it, unless a whole repository was named.
  const isAlone = folder.only?.endsWith(".gguf") ?? false;
  const isWanted = (file: string): boolean => weights.has(file) || (!isAlone && BESIDE.test(file));
  return fetchAll(hub, isWanted, { signal });
}

export async function downloadCheckpoint(source: string | URL, options?: types.DownloadOptions): Promise<types.Download> {
  const given = checkOptions("options", options, [...LOAD_OPTIONS, "include"]);
  const { signal } = given;
  checkSignal(signal);
  const patterns = patternsOf(given.include);
  const progress = new Progress(given.onProgress);
  if (!modelsPlatform().hub) fail("UNAVAILABLE", "downloadCheckpoint", "Node, which has a disk to keep files on", "none");
  const folder = await folderOf(source, accessOf(given));
  const { hub, only } = folder;
  if (!hub) return fail("OPTION", "source", 'a model of the hub, as "org/name", named by no stranger', show(source));
  const reading = { signal, onBytes: progress.add, onLength: progress.hint };
  const files = patterns
    ? await fetchAll(hub, (file) => patterns.some((pattern) => pattern.test(file)), reading)
    : await fetchModel(folder, hub, given, progress);
  if (files.length === 0) fail("FILE", "include", `names of files of ${folder.name}`, `none of ${hub.files.length} that fits`);
  return { path: only !== undefined && files.includes(only) ? hub.at(only) : hub.folder, commit: hub.commit, files };
}
