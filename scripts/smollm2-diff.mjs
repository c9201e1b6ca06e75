// SmolLM2-135M-Instruct, made differential: its GGUF converted once, exactly (each query twice, λ ½,
// the output projection doubled; the file's own codes stay), into a folder of .cache. Trains
// nothing, and merges no adapter.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { smollm2File } from "./smollm2-file.mjs";
import { cache, CommandFailed, root } from "./tools.mjs";

/** What begins the names of its folders. */
const NAME = "smollm2-diff-";

/**
 * The folder of the converted model; what is there of the same file and the same version of the
 * package is not made again. The folder takes its name once all of it is written.
 */
export async function smollm2Diff() {
  const gguf = await smollm2File();
  const { version } = JSON.parse(readFileSync(join(root, "packages/diffattn/package.json"), "utf8"));
  const key = createHash("sha256").update(readFileSync(gguf)).update(version).digest("hex").slice(0, 12);
  const models = join(cache, "models");
  const folder = join(models, NAME + key);
  if (existsSync(folder)) return folder;
  const { convertModel } = await import(pathToFileURL(join(root, "packages/diffattn/dist/models-node.js")).href);
  mkdirSync(models, { recursive: true });
  // Those of other versions, and what was interrupted.
  for (const name of readdirSync(models)) if (name.startsWith(NAME)) rmSync(join(models, name), { recursive: true });
  const temporary = mkdtempSync(join(models, `${NAME}part-`));
  console.log("converting SmolLM2-135M-Instruct to differential attention, once");
  const { exact } = await convertModel(gguf, { to: "v2", share: 1, start: "mirror", target: temporary });
  if (!exact) throw new CommandFailed("the conversion of SmolLM2-135M-Instruct is not exact");
  renameSync(temporary, folder);
  return folder;
}
