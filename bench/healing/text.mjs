// The text that healings train on: fetches it once into .cache/healing, one file a document, in an
// order that no alphabet makes. Reads nothing of it.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { cache, CommandFailed, run } from "../../scripts/tools.mjs";
import { text } from "./plan.mjs";

export const folder = join(cache, "healing");

const sha256 = (value) => createHash("sha256").update(value).digest("hex");

/** Paths of the documents; of a folder that is given, or of the package, which Debian's tools get. */
export function documents(given) {
  const sources = given ?? join(folder, "text", text.sources);
  if (!given && !existsSync(sources)) {
    const fetched = join(folder, "package");
    rmSync(fetched, { recursive: true, force: true });
    mkdirSync(fetched, { recursive: true });
    run("apt-get", ["download", text.package], { cwd: fetched, quiet: true });
    const [file] = readdirSync(fetched);
    if (file === undefined) throw new CommandFailed(`apt-get has no ${text.package}; name a folder of texts by --text`);
    run("dpkg-deb", ["-x", file, join(folder, "text")], { cwd: fetched, quiet: true });
  }
  const files = readdirSync(sources, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && (given !== undefined || entry.name.endsWith(text.ending)))
    .map((entry) => join(entry.parentPath, entry.name));
  // By the hash of its name, so that what is held back (the last windows) is no chapter of its own.
  const key = (file) => sha256(relative(sources, file));
  return files.sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** What a record tells of the text. */
export function identity(files) {
  const hash = createHash("sha256");
  let bytes = 0;
  for (const file of files) {
    const content = readFileSync(file);
    bytes += content.length;
    hash.update(content);
  }
  return { documents: files.length, bytes, sha256: hash.digest("hex") };
}
