// The version that all packages and crates share, and the changelog's section of it. Takes the next
// one: changesets say how far it goes (`changeset version` writes it into the npm packages), the
// crates follow, and what stands under "Unreleased" becomes the version's section. Commits and
// publishes nothing.
//
//   node scripts/versions.mjs
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { main } from "./setup.mjs";
import { bin, CommandFailed, isMain, root, run } from "./tools.mjs";

const readText = (...path) => readFileSync(join(...path), "utf8");

/** The version of the workspace, and those by which its crates need one another. */
const ownVersion = /^version = "(.*?)"/m;
const neededVersion = /^([\w-]+) = \{ path = ".*?", version = "(.*?)"/gm;

/** The manifests of the npm packages that are published: the demo is private. */
export function npmPackages(folder = root) {
  const packages = join(folder, "packages");
  return readdirSync(packages)
    .map((name) => join(packages, name, "package.json"))
    .filter((path) => existsSync(path))
    .map((path) => JSON.parse(readFileSync(path, "utf8")))
    .filter((manifest) => !manifest.private);
}

/**
 * What the examples ask a registry for: of npm, in a manifest or a script's own words, and of
 * crates.io.
 */
const askedVersion = /((?:"diffattn": "|npm:diffattn@)\^|^diffattn(?:-nn)? = (?:\{ version = )?")(\d[\w.-]*)/gm;

/** Files of the examples that ask for a version. */
function examplesOf(folder) {
  const examples = join(folder, "examples");
  if (!existsSync(examples)) return [];
  return readdirSync(examples)
    .flatMap((name) => ["package.json", "Cargo.toml", "main.ts"].map((file) => join("examples", name, file)))
    .filter((path) => existsSync(join(folder, path)));
}

/** Every place that says a version: what says it, and what. */
function versionsOf(folder) {
  const workspace = readText(folder, "Cargo.toml");
  const needed = [...workspace.matchAll(neededVersion)];
  // A crate of the workspace has no source.
  const locked = [...readText(folder, "Cargo.lock").matchAll(/^name = "(.*)"\nversion = "(.*)"\n(?!source)/gm)];
  return [
    ...npmPackages(folder).map(({ name, version }) => [`packages: ${name}`, version]),
    ["Cargo.toml: [workspace.package]", ownVersion.exec(workspace)?.[1]],
    ...needed.map(([, name, version]) => [`Cargo.toml: ${name}`, version]),
    ...locked.map(([, name, version]) => [`Cargo.lock: ${name}`, version]),
    ...examplesOf(folder).flatMap((path) => [...readText(folder, path).matchAll(askedVersion)].map(([, , version]) => [path, version])),
  ];
}

/** The version of the package `diffattn`, and a sentence for every place that says another one. */
export function readVersion(folder = root) {
  const places = versionsOf(folder);
  const version = npmPackages(folder).find(({ name }) => name === "diffattn")?.version;
  const faults = places
    .filter(([, said]) => said !== version)
    .map(([where, said]) => `${where} has version ${said}, the package diffattn has ${version}; run: npm run version`);
  return { version, faults };
}

/** Cargo.toml with another version of the workspace. */
export function withVersion(workspace, version) {
  return workspace
    .replace(ownVersion, `version = "${version}"`)
    .replaceAll(neededVersion, (line, name, before) => line.replace(`version = "${before}"`, `version = "${version}"`));
}

/** An example's file that asks for another version. */
export const withAskedVersion = (text, version) => text.replaceAll(askedVersion, (_, before) => before + version);

const UNRELEASED = "## Unreleased\n";

/**
 * What stands under a heading of the changelog, up to the next one; undefined without that heading.
 */
export function section(changelog, heading) {
  const start = changelog.split(/^(?=## )/m).find((part) => part.startsWith(`## ${heading}\n`) || part.startsWith(`## ${heading} `));
  return start?.slice(start.indexOf("\n") + 1).trim();
}

/**
 * The changelog after what is unreleased, with the lines of the changesets, has become a version's
 * section.
 */
export function closeUnreleased(changelog, version, date, lines) {
  const body = section(changelog, "Unreleased");
  if (body === undefined) throw new CommandFailed("CHANGELOG.md: it has no heading Unreleased");
  const text = [lines.map((line) => `- ${line}`).join("\n"), body].filter(Boolean).join("\n\n");
  if (section(changelog, version) !== undefined) {
    if (!text) return changelog;
    throw new CommandFailed(`CHANGELOG.md: ${version} has its section, and no changeset says how far the version goes; run: npx changeset`);
  }
  if (!text) throw new CommandFailed(`CHANGELOG.md: nothing is told of ${version}`);
  const [before, after] = changelog.split(UNRELEASED);
  const rest = after.slice(after.indexOf(body) + body.length).trimStart();
  return `${before}${UNRELEASED}\n## ${version} - ${date}\n\n${text}\n${rest && `\n${rest}`}`;
}

/** The lines of the changesets that wait: what stands below their head. */
function waitingLines(folder) {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".md") && name !== "README.md")
    .sort()
    .map((name) =>
      readText(folder, name)
        .replace(/^---\n.*?\n?---\n/s, "")
        .trim()
        .replaceAll(/\s*\n\s*/g, " "),
    )
    .filter(Boolean);
}

function takeVersion() {
  const lines = waitingLines(join(root, ".changeset"));
  run(bin("changeset"), ["version"]);
  const { version } = readVersion();
  const changelog = closeUnreleased(readText(root, "CHANGELOG.md"), version, new Date().toISOString().slice(0, 10), lines);
  writeFileSync(join(root, "CHANGELOG.md"), changelog);
  writeFileSync(join(root, "Cargo.toml"), withVersion(readText(root, "Cargo.toml"), version));
  for (const path of examplesOf(root)) writeFileSync(join(root, path), withAskedVersion(readText(root, path), version));
  run("cargo", ["update", "--workspace"], { quiet: true });
  const { faults } = readVersion();
  if (faults.length > 0) throw new CommandFailed(faults.join("\n"));
  console.log(`version ${version}: packages, crates, CHANGELOG.md; look at the difference and commit it`);
}

if (isMain(import.meta)) main(takeVersion);
