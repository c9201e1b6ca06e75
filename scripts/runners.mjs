// Which machine of GitHub's builds which binary of the addon: for each target of packages/native
// one of its own kind, on which the binary is also tried. Builds nothing itself;
// .github/workflows/build.yml asks it.
//
//   node scripts/runners.mjs      prints one line of JSON: a list of { target, runner }, with names as cross.mjs takes them
import { targets } from "../packages/native/loader.js";
import { main } from "./setup.mjs";
import { CommandFailed, isMain } from "./tools.mjs";

/** By system and processor, in Node's words. */
const runners = {
  "linux x64": "ubuntu-24.04",
  "linux arm64": "ubuntu-24.04-arm",
  "darwin x64": "macos-15-intel",
  "darwin arm64": "macos-15",
  "win32 x64": "windows-2025",
  "win32 arm64": "windows-11-arm",
};

export function runnerOf({ name, platform, arch }) {
  const runner = runners[`${platform} ${arch}`];
  if (!runner) throw new CommandFailed(`${name}: there is no machine that builds it; scripts/runners.mjs has the list`);
  return { target: name, runner };
}

if (isMain(import.meta)) main(() => console.log(JSON.stringify(targets.map(runnerOf))));
