// Packs what is published, as it is published, into .cache/packages: diffattn, @diffattn/native,
// the packages of all targets whose binary is there and @diffattn/wasm, each with the notices of
// what is compiled into it. Built outputs must be there (build.mjs, cross.mjs). Publishes nothing
// and changes nothing that git keeps.
//
//   node scripts/pack.mjs      prints one line per tarball
import { copyFileSync, cpSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { targets } from "../packages/native/loader.js";
import { NOTICES, notices } from "./notices.mjs";
import { main } from "./setup.mjs";
import { bin, cache, CommandFailed, ensureFolder, isMain, root, run } from "./tools.mjs";

/** What every package carries. */
const texts = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

const read = (folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));

/**
 * Packs a copy of a package's folder with the texts beside it, and the notices of what is compiled
 * into it, if anything is.
 */
function packFolder(folder, output, notices, change = (manifest) => manifest) {
  const stage = join(cache, "pack", basename(folder));
  rmSync(stage, { recursive: true, force: true });
  const manifest = read(folder);
  for (const file of ["package.json", ...manifest.files]) {
    if (!existsSync(join(folder, file))) throw new CommandFailed(`${manifest.name}: ${file} is missing; run: npm run build`);
    cpSync(join(folder, file), join(ensureFolder(stage), file), { recursive: true });
  }
  for (const file of texts) if (existsSync(join(root, file))) copyFileSync(join(root, file), join(stage, file));
  if (notices) writeFileSync(join(stage, NOTICES), notices);
  const files = [...manifest.files, ...texts, ...(notices ? [NOTICES] : [])];
  writeFileSync(join(stage, "package.json"), JSON.stringify(change({ ...manifest, files }), null, 2));
  const printed = run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", output], { cwd: stage, quiet: true });
  const packed = JSON.parse(printed);
  const { filename } = Object.values(packed)[0];
  return [manifest.name, join(output, filename)];
}

/**
 * The packages of the targets whose binary is there, made by @napi-rs/cli from
 * packages/native/package.json: their folders and targets.
 */
function platformFolders() {
  const native = join(root, "packages/native");
  const folders = join(native, "npm");
  rmSync(folders, { recursive: true, force: true });
  run(bin("napi"), ["create-npm-dirs"], { cwd: native, quiet: true });
  return targets
    .filter(({ file }) => existsSync(join(native, file)))
    .map(({ name, triple, file }) => {
      copyFileSync(join(native, file), join(folders, name, file));
      return { folder: join(folders, name), triple };
    });
}

/** Makes the tarballs; returns their paths by package name. */
export function pack() {
  const output = join(cache, "packages");
  rmSync(output, { recursive: true, force: true });
  ensureFolder(output);
  const platforms = platformFolders();
  const wasm = notices("wasm");
  const { version } = read(join(root, "packages/native"));
  // What the lock file calls workspace:* is this version once published.
  const published = (dependencies) => Object.fromEntries(Object.keys(dependencies ?? {}).map((name) => [name, version]));
  const binaries = Object.fromEntries(platforms.map(({ folder }) => [read(folder).name, version]));
  return Object.fromEntries([
    packFolder(join(root, "packages/diffattn"), output, wasm, (manifest) => ({
      ...manifest,
      scripts: undefined,
      devDependencies: undefined,
      optionalDependencies: published(manifest.optionalDependencies),
    })),
    packFolder(join(root, "packages/native"), output, "", (manifest) => ({ ...manifest, optionalDependencies: binaries })),
    packFolder(join(root, "packages/wasm"), output, wasm),
    ...platforms.map(({ folder, triple }) => packFolder(folder, output, notices("native", triple))),
  ]);
}

if (isMain(import.meta))
  main(() => {
    for (const [name, tarball] of Object.entries(pack())) console.log(`${name} ${tarball}`);
  });
