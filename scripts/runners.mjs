// Which machine of GitHub's builds which binary of the addon: for each target of packages/native one of its own kind, on which the
// binary is also tried. Builds nothing itself; .github/workflows/build.yml asks it.
//
//   node scripts/runners.mjs      prints one line of JSON: a list of { target, runner }
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { main } from "./setup.mjs";
import { CommandFailed, isMain, root } from "./tools.mjs";

/** The targets that a release has a binary for. */
export const targets = () => JSON.parse(readFileSync(join(root, "packages/native/package.json"), "utf8")).napi.targets;

/** By system and processor, as a target's name has them. */
const runners = {
  "linux x86_64": "ubuntu-24.04",
  "linux aarch64": "ubuntu-24.04-arm",
  "darwin x86_64": "macos-15-intel",
  "darwin aarch64": "macos-15",
  "windows x86_64": "windows-2025",
  "windows aarch64": "windows-11-arm",
};

export function runnerOf(target) {
  const [processor, , system] = target.split("-");
  const runner = runners[`${system} ${processor}`];
  if (!runner) throw new CommandFailed(`${target}: there is no machine that builds it; scripts/runners.mjs has the list`);
  return { target, runner };
}

if (isMain(import.meta)) main(() => console.log(JSON.stringify(targets().map(runnerOf))));
