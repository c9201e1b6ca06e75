// A model in the hub's cache on this disk, in the layout of the hub's own tools
// (models--org--name/{blobs,refs,snapshots}): where its files lie, which there are, and how one
// gets its name. Asks no one. What goes wrong is Node's error.

import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";

/** A commit, as the hub writes it. */
export const isCommit = (text: string): boolean => /^[0-9a-f]{40}$/.test(text);

/** How deep folders of a snapshot are listed. */
const DEPTH = 16;

export const isFile = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isFile() ?? false;

/** A name beside another that nobody else has. */
export const besideName = (path: string): string => `${path}.${randomUUID().slice(0, 8)}`;

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? "";

export class HubCache {
  readonly #root: string;
  readonly #links: boolean;

  /** `cache`: the folder of all models; `links`: whether a snapshot may hold links. */
  constructor(cache: string, repo: string, links: boolean) {
    this.#root = join(cache, `models--${repo.replaceAll("/", "--")}`);
    this.#links = links;
  }

  /** Where a commit's files lie. */
  snapshot(commit: string): string {
    return join(this.#root, "snapshots", commit);
  }

  /** Where the content lies that the hub calls so. */
  blob(etag: string): string {
    return join(this.#root, "blobs", etag);
  }

  #ref(revision: string): string {
    return join(this.#root, "refs", ...revision.split("/"));
  }

  /** The commit that a revision was, when it was looked at last. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = (await readFile(this.#ref(revision), "utf8").catch(() => "")).trim();
    return isCommit(text) ? text : undefined;
  }

  /** Keeps which commit a revision is. */
  async keepCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    const path = this.#ref(revision);
    await mkdir(dirname(path), { recursive: true });
    const temporary = besideName(path);
    await writeFile(temporary, commit);
    await rename(temporary, path);
  }

  /** The files of a commit that are here, by their paths from its folder. */
  async files(commit: string): Promise<string[]> {
    const found: string[] = [];
    const walk = async (path: string, below: string, depth: number): Promise<void> => {
      for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
        const name = `${below}${entry.name}`;
        if (entry.isDirectory() && depth < DEPTH) await walk(join(path, entry.name), `${name}/`, depth + 1);
        else if (await isFile(join(path, entry.name))) found.push(name);
      }
    };
    await walk(this.snapshot(commit), "", 0);
    return found;
  }

  /**
   * Gives a blob its name in a commit: a link to it; where there can be none, the blob itself if it
   * is new, else a copy.
   */
  async name(etag: string, commit: string, file: string, isNew: boolean): Promise<void> {
    const path = join(this.snapshot(commit), ...file.split("/"));
    const blob = this.blob(etag);
    await mkdir(dirname(path), { recursive: true });
    if (await isFile(path)) return;
    const temporary = besideName(path);
    try {
      const isLinked = this.#links && (await linked(relative(dirname(path), blob), temporary));
      if (!isLinked && !isNew) await copyFile(blob, temporary, constants.COPYFILE_FICLONE);
      await rename(isLinked || !isNew ? temporary : blob, path);
    } catch (error) {
      await rm(temporary, { force: true });
      // Another process was faster.
      if (!(await isFile(path))) throw error;
    }
  }
}

/** Makes a link; false where the system, or the file system, has none. */
async function linked(target: string, path: string): Promise<boolean> {
  try {
    await symlink(target, path, "file");
    return true;
  } catch (error) {
    if (["EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "UNKNOWN"].includes(codeOf(error))) return false;
    throw error;
  }
}
