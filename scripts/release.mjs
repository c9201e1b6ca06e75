// Releases the version that the packages and crates say: builds, packs, refuses what is not whole,
// tells every tarball and crate in the order in which it is published, and publishes. Commits
// nothing, and chooses no version (versions.mjs does).
//
//   node scripts/release.mjs --dry-run [--binaries FOLDER]    builds what this machine can (or takes the binaries of the addon from a folder),
//                                                             packs into .cache/packages and tells; fails after that if something is missing
//   node scripts/release.mjs --tag                            checks what can be checked here and pushes the tag, at which the workflow
//                                                             `release` builds every binary and publishes
//   node scripts/release.mjs [--binaries FOLDER] [--without-provenance]     the same as --dry-run, then publishes
//   node scripts/release.mjs --packed FOLDER                  publishes what --dry-run packed and told, elsewhere
//   node scripts/release.mjs --notes                          prints the changelog's section of this version
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { identify, targets } from "../packages/native/loader.js";
import { build, parts } from "./build.mjs";
import { pack } from "./pack.mjs";
import { main } from "./setup.mjs";
import { ask, cache, CommandFailed, isMain, ownMetadata, root, run, targetDir } from "./tools.mjs";
import { readVersion, section } from "./versions.mjs";

/** Beside the tarballs: what --dry-run told, which --packed publishes. */
const PLAN = "release.json";

const native = join(root, "packages/native");

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

/** Things in an order in which whatever one of them needs comes before it; else by name. */
export function inOrder(things) {
  const waiting = new Map([...things].sort((a, b) => (a.name < b.name ? -1 : 1)).map((thing) => [thing.name, thing]));
  const ordered = [];
  while (waiting.size > 0) {
    const next = [...waiting.values()].find(({ needs }) => !needs.some((name) => waiting.has(name)));
    if (!next) throw new CommandFailed(`these need each other: ${[...waiting.keys()].join(", ")}`);
    waiting.delete(next.name);
    ordered.push(next);
  }
  return ordered;
}

const packageOf = ({ name }) => `@diffattn/native-${name}`;

/**
 * What is wrong with the binaries in a folder: a sentence for what is missing, and for each that is
 * not what its name says.
 */
export function faultsOfBinaries(folder) {
  const faults = [];
  const missing = targets.filter(({ file }) => !existsSync(join(folder, file)));
  if (missing.length > 0) faults.push(`incomplete: there is no binary for ${missing.map(({ triple }) => triple).join(", ")}`);
  for (const { file, platform, arch, libc } of targets.filter((target) => !missing.includes(target))) {
    const found = identify(readFileSync(join(folder, file)));
    const words = (parts) => parts.filter(Boolean).join(" ") || "no binary";
    const [is, wanted] = [
      [found?.platform, found?.arch, found?.libc],
      [platform, arch, libc],
    ].map(words);
    if (is !== wanted) faults.push(`${file} is ${is}, not ${wanted}`);
  }
  return faults;
}

/** What is wrong with the set of tarballs: a sentence each. */
export function faultsOfTarballs(tarballs, version) {
  const faults = [];
  const named = new Set(tarballs.map(({ name }) => name));
  for (const { name, manifest } of tarballs) {
    if (manifest.version !== version) faults.push(`${name} is packed as version ${manifest.version}, this release is ${version}`);
    for (const [needed, wanted] of Object.entries({ ...manifest.dependencies, ...manifest.optionalDependencies }))
      if (named.has(needed) && wanted !== version) faults.push(`${name} wants ${needed} ${wanted}, this release is ${version}`);
    // npm compares it with where the workflow ran.
    if (!manifest.repository?.url) faults.push(`${name} names no repository, without which there is no provenance`);
  }
  return faults;
}

/**
 * The crates to publish, of what `cargo metadata` says, in order; and what is wrong with that list.
 */
export function cratesOf({ packages, metadata }) {
  const names = metadata.release.crates;
  const ours = new Set(packages.map(({ name }) => name));
  const faults = names.filter((name) => !ours.has(name)).map((name) => `Cargo.toml releases the crate ${name}, which is not there`);
  const crates = packages
    .filter(({ name }) => names.includes(name))
    .map(({ name, version, dependencies }) => ({
      name,
      version,
      // What stands without a version is left out of what is published.
      needs: dependencies.filter((needed) => ours.has(needed.name) && needed.req !== "*").map((needed) => needed.name),
    }));
  for (const { name, needs } of crates)
    for (const needed of needs) if (!names.includes(needed)) faults.push(`the crate ${name} needs ${needed}, which is not released`);
  return { crates: inOrder(crates), faults };
}

/** What the changelog tells of a version. */
const told = (version) => section(readFileSync(join(root, "CHANGELOG.md"), "utf8"), version);

/**
 * What is wrong with the tree itself: uncommitted files, versions that differ, a changelog without
 * this version.
 */
function faultsOfTree() {
  const { version, faults } = readVersion();
  const changed = run("git", ["status", "--porcelain"], { quiet: true }).split("\n").filter(Boolean);
  if (changed.length > 0) faults.unshift(`not committed: ${changed.map((line) => line.slice(3)).join(", ")}`);
  if (!told(version)) faults.push(`CHANGELOG.md has no section of version ${version}; run: npm run version`);
  return { version, faults };
}

/** Size and hashes of a file, as npm and crates.io write them. */
function measure(file) {
  const bytes = readFileSync(file);
  const hash = (algorithm, form) => createHash(algorithm).update(bytes).digest(form);
  return { bytes: bytes.length, sha256: hash("sha256", "hex"), integrity: `sha512-${hash("sha512", "base64")}` };
}

/** The package.json of a tarball. */
function manifestOf(tarball) {
  // By its name alone: GNU tar takes what stands before a colon for a machine.
  const text = run("tar", ["-xzOf", basename(tarball), "package/package.json"], { cwd: dirname(tarball), quiet: true });
  return JSON.parse(text);
}

/**
 * The binaries of the addon: from a folder, where each was built for itself, or each that this
 * machine can build.
 */
function takeBinaries(folder) {
  if (folder === undefined) {
    for (const { name } of targets)
      try {
        run(process.execPath, [join(root, "scripts/cross.mjs"), name]);
      } catch (error) {
        // It said why; what is missing then is told at the end.
        if (!(error instanceof CommandFailed)) throw error;
      }
    return;
  }
  const binariesIn = (path) => (existsSync(path) ? readdirSync(path).filter((name) => name.endsWith(".node")) : []);
  const given = binariesIn(folder);
  if (given.length === 0) throw new CommandFailed(`--binaries: expected a folder with files *.node, got ${folder}`);
  const others = binariesIn(native).filter((name) => !given.includes(name));
  if (others.length > 0) throw new CommandFailed(`packages/native has binaries that ${folder} lacks: ${others.join(", ")}; remove them`);
  for (const file of given) copyFileSync(join(folder, file), join(native, file));
}

/** Builds, packs and measures: what would be published, and what speaks against it. */
function prepare(binaries) {
  const { version, faults } = faultsOfTree();
  takeBinaries(binaries);
  build(parts.filter((part) => part !== "native" && part !== "demo"));
  const packed = Object.entries(pack());
  const tarballs = packed.map(([name, tarball]) => ({ name, tarball, manifest: manifestOf(tarball) }));
  faults.push(...faultsOfBinaries(native), ...faultsOfTarballs(tarballs, version));
  const unpacked = targets.filter(
    (target) => existsSync(join(native, target.file)) && !packed.some(([name]) => name === packageOf(target)),
  );
  if (unpacked.length > 0) faults.push(`not packed: ${unpacked.map(packageOf).join(", ")}`);

  const list = cratesOf(ownMetadata());
  faults.push(...list.faults);
  const selection = list.crates.flatMap(({ name }) => ["-p", name]);
  run("cargo", ["package", ...selection, "--no-verify", "--locked", "--allow-dirty"], { quiet: true });

  const plan = {
    version,
    commit: headOf({ ask }),
    tarballs: inOrder(
      tarballs.map(({ name, tarball, manifest }) => ({
        name,
        file: basename(tarball),
        needs: Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }),
        ...measure(tarball),
      })),
    ),
    crates: list.crates.map((crate) => ({ ...crate, ...measure(join(targetDir, "package", `${crate.name}-${crate.version}.crate`)) })),
  };
  return { plan, faults };
}

/** Tells a plan: a line for every file, in order, with its size and its hashes. */
export function tell({ version, commit, tarballs, crates }) {
  const size = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
  const row = (index, name, { bytes, sha256, integrity }) =>
    `${String(index + 1).padStart(2)}. ${name} ${size(bytes)}\n    sha256 ${sha256}${integrity ? `\n    ${integrity}` : ""}`;
  return [
    `version ${version} of ${commit}`,
    "npm, in this order:",
    ...tarballs.map((tarball, index) => row(index, `${tarball.name} (${tarball.file})`, tarball)),
    "crates, after that, in this order:",
    ...crates.map(({ name, bytes, sha256 }, index) => row(index, `${name} (${name}-${version}.crate)`, { bytes, sha256 })),
  ].join("\n");
}

/**
 * What is still to be published of a plan, given what the registry has: its hash by name, nothing
 * for what is not there.
 */
export function toPublish(tarballs, version, published) {
  return tarballs.filter(({ name, integrity }) => {
    const there = published(name);
    if (there && there !== integrity)
      throw new CommandFailed(
        `${name} ${version} is published with other contents (${there}, here ${integrity}); take the next version, for this one cannot be replaced`,
      );
    return !there;
  });
}

/**
 * What npm is told of a version besides: one before a release must not become what `npm install`
 * takes.
 */
export const tagOf = (version) => (version.includes("-") ? "next" : "latest");

const headOf = (tools) => tools.ask("git", ["rev-parse", "HEAD"]);
const isTagged = (version, tools) => tools.ask("git", ["tag", "--points-at", "HEAD"]).split("\n").includes(`v${version}`);

/**
 * Publishes what a registry does not have yet, so that a release that failed on its way can be
 * repeated. `tools` run commands: git, npm, Cargo.
 */
export function publish({ version, commit, tarballs, crates }, folder, withProvenance, tools = { ask, run }) {
  if (headOf(tools) !== commit) throw new CommandFailed(`this was packed of ${commit}, which is not checked out`);
  if (!isTagged(version, tools)) throw new CommandFailed(`the commit has no tag v${version}; run: npm run release`);
  if (withProvenance && !process.env.ACTIONS_ID_TOKEN_REQUEST_URL)
    throw new CommandFailed("provenance is given by the workflow `release` alone, which a tag starts; run: npm run release");
  for (const { file, integrity } of tarballs)
    if (measure(join(folder, file)).integrity !== integrity) throw new CommandFailed(`${file} is not what was packed`);

  // Without an answer npm is asked to publish, and says what is wrong.
  const published = (name) => tools.ask("npm", ["view", `${name}@${version}`, "dist.integrity"]);
  const waiting = toPublish(tarballs, version, published);
  for (const tarball of tarballs) {
    const isThere = !waiting.includes(tarball);
    console.log(`npm: ${tarball.name} ${version}${isThere ? ": is there" : ""}`);
    if (isThere) continue;
    const args = ["publish", `./${tarball.file}`, "--access", "public", "--tag", tagOf(version)];
    tools.run("npm", withProvenance ? [...args, "--provenance"] : args, { cwd: folder });
  }
  for (const { name } of crates) {
    const isThere = tools.ask("cargo", ["info", `${name}@${version}`, "--registry", "crates-io"]) !== "";
    console.log(`crates.io: ${name} ${version}${isThere ? ": is there" : ""}`);
    // They were compiled from their packages by check-release.mjs. Cargo waits until the index has
    // what the next one needs.
    if (!isThere) tools.run("cargo", ["publish", "-p", name, "--no-verify", "--locked"]);
  }
}

const refuse = (faults) => {
  if (faults.length > 0) throw new CommandFailed(`not released:\n${faults.map((fault) => `- ${fault}`).join("\n")}`);
};

function pushTag() {
  const { version, faults } = faultsOfTree();
  // The tag is all that is pushed: what it names went through review.
  const [main] = ask("git", ["ls-remote", "origin", "refs/heads/main"]).split("\t");
  const head = headOf({ ask });
  if (main !== head) faults.push(`a release is made of origin's main, which is at ${main || "no commit"}; here it is ${head}`);
  refuse(faults);
  const tag = `v${version}`;
  if (!isTagged(version, { ask })) run("git", ["tag", "--annotate", tag, "--message", `Version ${version}`]);
  run("git", ["push", "origin", tag]);
}

function release(args) {
  const { values } = parseArgs({
    args,
    options: {
      "dry-run": { type: "boolean" },
      tag: { type: "boolean" },
      notes: { type: "boolean" },
      binaries: { type: "string" },
      packed: { type: "string" },
      "without-provenance": { type: "boolean" },
    },
  });
  const withProvenance = !values["without-provenance"];
  if (values.tag) return pushTag();
  if (values.notes) return console.log(told(readVersion().version) ?? "");
  if (values.packed !== undefined) {
    const { version, faults } = faultsOfTree();
    if (!existsSync(join(values.packed, PLAN)))
      throw new CommandFailed(`--packed: expected a folder with ${PLAN}, as --dry-run leaves it, got ${values.packed}`);
    const plan = readJson(join(values.packed, PLAN));
    if (plan.version !== version) faults.push(`${values.packed} has version ${plan.version}, the packages say ${version}`);
    refuse([...plan.faults, ...faults]);
    return publish(plan, values.packed, withProvenance);
  }
  const { plan, faults } = prepare(values.binaries);
  const folder = join(cache, "packages");
  writeFileSync(join(folder, PLAN), JSON.stringify({ ...plan, faults }, null, 2));
  console.log(tell(plan));
  refuse(faults);
  if (!values["dry-run"]) publish(plan, folder, withProvenance);
}

if (isMain(import.meta))
  main(() => {
    try {
      release(process.argv.slice(2));
    } catch (error) {
      // parseArgs says what it did not understand.
      if (error.code?.startsWith("ERR_PARSE_ARGS")) throw new CommandFailed(error.message);
      throw error;
    }
  });
