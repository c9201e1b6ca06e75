// What the loader says, cause by cause, on machines that are not here. (Causes that can be had:
// test/suite/loading.test.ts.)
import { closeSync, copyFileSync, mkdirSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { identify, load, targetOf, targets, thisMachine } from "./loader.js";

const { version, napi } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"));

const glibc = { platform: "linux", arch: "x64", libc: "glibc", getGlibc: () => "2.36" };
const musl = { platform: "linux", arch: "x64", libc: "musl" };
const mac = { platform: "darwin", arch: "arm64" };
const windows = { platform: "win32", arch: "x64" };

const folder = mkdtempSync(join(tmpdir(), "diffattn-loader-"));
afterAll(() => rmSync(folder, { recursive: true }));
const empty = join(folder, "empty");
mkdirSync(empty);

/** A file of these bytes. */
function file(name, bytes) {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const notFound = (name) =>
  Object.assign(new Error(`Cannot find module '${name}'\nRequire stack:\n- /app/index.js`), { code: "MODULE_NOT_FOUND" });
const refused = (message, code = "ERR_DLOPEN_FAILED") => Object.assign(new Error(message), { code });

/**
 * Loads on a machine where `installed` has what the packages of targets do, and `require` of a file
 * does `open`.
 */
function loaded({ machine, installed = {}, chosen, open, at = empty }) {
  const binaries = Object.fromEntries(
    targets.map(({ name }) => [
      name,
      () => {
        if (!(name in installed)) throw notFound(`@diffattn/native-${name}`);
        return installed[name]();
      },
    ]),
  );
  const require = Object.assign((path) => open(path), {
    resolve: (path) => {
      const name = /^@diffattn\/native-(.*)\/package\.json$/.exec(path)?.[1] ?? "";
      if (!(name in installed)) throw notFound(path);
      return join(folder, name, "package.json");
    },
  });
  return load({ binaries, require, machine, folder: at, chosen });
}

const addon = { info: () => ({ version }) };
const throws = (error) => () => {
  throw error;
};
/** The sentence of what was thrown, whose cause is kept. */
function sentence(options) {
  try {
    loaded(options);
  } catch (error) {
    return error.message;
  }
  return "loaded";
}

test("the targets have the names of their packages, and index.js asks for each by its literal name", () => {
  expect(targets.map(({ name }) => name)).toEqual([
    "linux-x64-gnu",
    "linux-arm64-gnu",
    "linux-x64-musl",
    "linux-arm64-musl",
    "darwin-x64",
    "darwin-arm64",
    "win32-x64-msvc",
    "win32-arm64-msvc",
  ]);
  expect(targets.map(({ triple }) => triple)).toEqual(napi.targets);
  const index = readFileSync(new URL("index.js", import.meta.url), "utf8");
  const literals = [...index.matchAll(/"(\S+)": \(\) => require\("@diffattn\/native-(\S+)"\)/g)];
  expect(literals.map(([, key]) => key).sort()).toEqual(targets.map(({ name }) => name).sort());
  for (const [, key, name] of literals) expect(name).toBe(key);
  expect([glibc, musl, mac, windows].map(targetOf)).toEqual(["linux-x64-gnu", "linux-x64-musl", "darwin-arm64", "win32-x64-msvc"]);
});

test("a binary loads: the package's, else the one that lies beside the loader, else the one that was chosen", () => {
  for (const [machine, name] of [
    [glibc, "linux-x64-gnu"],
    [musl, "linux-x64-musl"],
    [mac, "darwin-arm64"],
    [windows, "win32-x64-msvc"],
  ])
    expect(loaded({ machine, installed: { [name]: () => addon } })).toBe(addon);

  const built = join(folder, "built");
  mkdirSync(built);
  const freebsd = { platform: "freebsd", arch: "x64" };
  const own = join(built, "diffattn.freebsd-x64.node");
  writeFileSync(own, "");
  const opened = [];
  const open = (path) => (opened.push(path), addon);
  expect(loaded({ machine: freebsd, at: built, open })).toBe(addon);
  expect(loaded({ machine: freebsd, chosen: own, open })).toBe(addon);
  expect(opened).toEqual([own, own]);
});

/** The first bytes of a binary, and names in it. */
function header(platform, arch, names = "") {
  const bytes = Buffer.alloc(256);
  if (platform === "linux") {
    bytes.write("\x7fELF", "latin1");
    bytes.writeUInt16LE({ x64: 0x3e, arm64: 0xb7, riscv64: 0xf3 }[arch], 18);
  } else if (platform === "darwin") {
    bytes.writeUInt32LE(0xfeedfacf);
    bytes.writeUInt32LE({ x64: 0x01000007, arm64: 0x0100000c }[arch], 4);
  } else {
    bytes.write("MZ");
    bytes.writeUInt32LE(0x80, 0x3c);
    bytes.write("PE\0\0", 0x80);
    bytes.writeUInt16LE({ x64: 0x8664, arm64: 0xaa64 }[arch], 0x84);
  }
  return Buffer.concat([bytes, Buffer.from(names)]);
}

test("a file is known by its bytes", () => {
  expect(identify(header("linux", "x64", "\0libc.so\0"))).toEqual({ platform: "linux", arch: "x64", libc: "musl", glibc: undefined });
  expect(identify(header("linux", "arm64", "\0GLIBC_2.9\0GLIBC_2.17\0GLIBC_2.2.5\0"))).toEqual({
    platform: "linux",
    arch: "arm64",
    libc: "glibc",
    glibc: "2.17",
  });
  for (const platform of ["darwin", "win32"])
    for (const arch of ["x64", "arm64"]) expect(identify(header(platform, arch))).toEqual({ platform, arch });
  expect(identify(header("linux", "x64")).libc).toBe(undefined);
  // What begins like a binary, and ends.
  const whole = ["linux", "darwin", "win32"].map((platform) => header(platform, "x64"));
  for (const bytes of [...whole, Buffer.from("no binary")])
    for (let length = 0; length < 0x86; length++) expect(() => identify(bytes.subarray(0, length))).not.toThrow();
  expect(identify(Buffer.from("no binary"))).toBe(undefined);
  expect(identify(Buffer.alloc(0))).toBe(undefined);
});

test("this Node is one that its own binary is for", () => {
  const { platform, arch } = process;
  // (All of it is read for a name of the C library.)
  const bytes = Buffer.alloc(4096);
  const handle = openSync(process.execPath);
  readSync(handle, bytes);
  closeSync(handle);
  expect(identify(bytes)).toMatchObject({ platform, arch });
});

const nothing = file("nothing", "a program that names no loader");

test.runIf(process.platform === "linux").each([
  ["a program's loader is musl's", file("musl", "\x7fELF\0/lib/ld-musl-aarch64.so.1\0"), undefined, "musl"],
  ["a program's loader is glibc's", file("glibc", "\x7fELF\0/lib64/ld-linux-x86-64.so.2\0"), undefined, "glibc"],
  ["glibc, by the report", nothing, { header: { glibcVersionRuntime: "2.31" }, sharedObjects: ["/lib/libc.so.6"] }, "glibc"],
  ["Deno, whose report has no list", nothing, { header: { glibcVersionRuntime: "2.38" } }, "glibc"],
  ["musl, by the report", nothing, { header: {}, sharedObjects: ["/usr/bin/node", "/lib/ld-musl-x86_64.so.1"] }, "musl"],
  ["musl, started by its loader", nothing, { header: {}, sharedObjects: ["/usr/lib/x86_64-linux-musl/libc.so"] }, "musl"],
  ["a program that may not be read", join(folder, "none"), { header: {}, sharedObjects: ["/lib/ld-musl-x86_64.so.1"] }, "musl"],
  ["nothing that tells", nothing, { header: {}, sharedObjects: [] }, "glibc"],
  ["no report", nothing, undefined, "glibc"],
])("the C library of this machine: %s", (_, program, report, libc) => {
  const asked = vi.spyOn(process.report, "getReport").mockReturnValue(report);
  try {
    const { platform, arch } = process;
    const { getGlibc, ...machine } = thisMachine(program);
    expect(machine).toEqual({ platform, arch, restricted: false, libc });
    if (libc === "glibc") expect(getGlibc()).toBe(report?.header.glibcVersionRuntime);
  } finally {
    asked.mockRestore();
  }
});

const NOT_INSTALLED =
  "is not installed: it is an optional dependency, which --omit=optional leaves out, and a lock file that was written on another machine may";

test.each([
  ["FreeBSD", { machine: { platform: "freebsd", arch: "x64" } }, "no binary is published for freebsd-x64"],
  ["a processor without one", { machine: { ...glibc, arch: "riscv64" } }, "no binary is published for linux-riscv64 (glibc)"],
  ["32 bits of Windows", { machine: { ...windows, arch: "ia32" } }, "no binary is published for win32-ia32"],
  ["nothing is installed", { machine: mac }, `the package @diffattn/native-darwin-arm64, for darwin-arm64, ${NOT_INSTALLED}`],
  ["nor on Windows", { machine: windows }, `the package @diffattn/native-win32-x64-msvc, for win32-x64, ${NOT_INSTALLED}`],
  [
    "another machine's is installed",
    { machine: musl, installed: { "linux-x64-gnu": () => addon } },
    "the package @diffattn/native-linux-x64-musl, for linux-x64 (musl), is not installed, but that of linux-x64-gnu is: " +
      "node_modules comes from another machine, or was made by a Node for another processor or C library",
  ],
  [
    "a Node for the other processor (Rosetta)",
    { machine: { ...mac, arch: "x64" }, installed: { "darwin-arm64": () => addon } },
    "the package @diffattn/native-darwin-x64, for darwin-x64, is not installed, but that of darwin-arm64 is: " +
      "node_modules comes from another machine, or was made by a Node for another processor or C library",
  ],
  [
    "an addon of another release",
    { machine: glibc, installed: { "linux-x64-gnu": () => ({ info: () => ({ version: "0.0.1" }) }) } },
    "the binary of @diffattn/native-linux-x64-gnu, for linux-x64 (glibc), did not load: " +
      `expected version ${version}, as @diffattn/native has, got 0.0.1; both must come from one release`,
  ],
  [
    "an addon of others",
    { machine: glibc, chosen: "/x.node", open: () => ({}) },
    "the binary that DIFFATTN_NATIVE names, for linux-x64 (glibc), did not load: " +
      `expected version ${version}, as @diffattn/native has, got another addon; both must come from one release`,
  ],
])("%s", (_, options, expected) => {
  expect(sentence(options)).toBe(expected);
});

const at = (name) => join(folder, name, `diffattn.${name}.node`);

/** Of the package of a target: what its file is, and what is said where loading it throws. */
test.each([
  [
    "its file is gone",
    glibc,
    notFound("/x/diffattn.linux-x64-gnu.node"),
    null,
    (path) => `its package is there without ${path}; installing it again brings it`,
  ],
  ["addons are off", glibc, refused("x", "ERR_DLOPEN_DISABLED"), null, () => "addons are switched off (--no-addons)"],
  [
    "the permission model",
    { ...glibc, restricted: true },
    refused("x", "ERR_DLOPEN_DISABLED"),
    null,
    () => "the permission model allows no addons (--allow-addons does)",
  ],
  [
    "the permission model, of files",
    { ...glibc, restricted: true },
    Object.assign(refused("Access to this API has been restricted", "ERR_ACCESS_DENIED"), { permission: "FileSystemRead" }),
    null,
    (path) => `the permission model refuses FileSystemRead (--allow-fs-read=${path} allows that)`,
  ],
  [
    "a glibc that is too old",
    { ...glibc, getGlibc: () => "2.17" },
    refused("/lib64/libc.so.6: version `GLIBC_2.28' not found (required by x)"),
    header("linux", "x64", "\0GLIBC_2.4\0GLIBC_2.28\0"),
    () => "it wants glibc 2.28 or newer, and this system has 2.17",
  ],
  [
    "for musl, on glibc",
    glibc,
    refused("libc.so: cannot open shared object file: No such file or directory"),
    header("linux", "x64", "\0libc.so\0"),
    (path) => `${path} is for musl, and the C library of this Node is glibc`,
  ],
  [
    "for glibc, on musl",
    musl,
    refused("Error relocating x.node: __res_init: symbol not found"),
    header("linux", "x64", "\0GLIBC_2.17\0"),
    (path) => `${path} is for glibc, and the C library of this Node is musl`,
  ],
  [
    "for another processor",
    glibc,
    refused("x.node: cannot open shared object file: No such file or directory"),
    header("linux", "arm64"),
    (path) => `${path} is for Linux on arm64, and this Node is one for Linux on x64`,
  ],
  [
    "for another system",
    windows,
    refused("%1 is not a valid Win32 application."),
    header("darwin", "arm64"),
    (path) => `${path} is for macOS on arm64, and this Node is one for Windows on x64`,
  ],
  [
    "no binary",
    mac,
    refused("not a mach-o file"),
    Buffer.from("version https://"),
    (path) => `${path} is no binary, but 16 bytes of something else`,
  ],
  [
    "a file system without programs",
    glibc,
    refused("x.node: failed to map segment from shared object"),
    header("linux", "x64", "\0GLIBC_2.17\0"),
    (path) =>
      `the system runs nothing that lies in the folder of ${path}, as where a file system is mounted noexec: ` +
      "x.node: failed to map segment from shared object",
  ],
  [
    "macOS and its signatures",
    mac,
    refused("dlopen(x.node, 0x0001): tried: 'x.node' (code signature in <1> not valid for use in process)"),
    header("darwin", "arm64"),
    () =>
      "macOS does not accept its signature, as after a download: " +
      "dlopen(x.node, 0x0001): tried: 'x.node' (code signature in <1> not valid for use in process)",
  ],
  [
    "Windows, in a language of its own",
    windows,
    refused("Das angegebene Modul wurde nicht gefunden.\r\n\\\\?\\C:\\x.node"),
    header("win32", "x64"),
    () => "Windows refuses it, as where an antivirus or a policy does or a library is missing: Das angegebene Modul wurde nicht gefunden.",
  ],
  [
    "anything else",
    glibc,
    refused("\n\nx.node: undefined symbol: y\nand more"),
    header("linux", "x64", "\0GLIBC_2.17\0"),
    () => "x.node: undefined symbol: y",
  ],
  ["no error at all", mac, "a text", header("darwin", "arm64"), () => "a text"],
  ["nothing", mac, undefined, header("darwin", "arm64"), () => "undefined"],
  ["nothing that can be shown", mac, Object.create(null), header("darwin", "arm64"), () => "something that cannot be shown"],
])("a binary that is refused: %s", (_, machine, thrown, bytes, cause) => {
  const target = targetOf(machine);
  mkdirSync(join(folder, target), { recursive: true });
  rmSync(at(target), { force: true });
  if (bytes) writeFileSync(at(target), bytes);
  const where = `${machine.platform}-${machine.arch}${machine.libc ? ` (${machine.libc})` : ""}`;
  const said = cause(at(target));
  expect(sentence({ machine, installed: { [target]: throws(thrown) } })).toBe(
    `the binary of @diffattn/native-${target}, for ${where}, did not load: ${said}`,
  );
  if (bytes === null) return;
  // The same of a file that was chosen.
  const chosen = join(folder, "chosen.node");
  copyFileSync(at(target), chosen);
  expect(sentence({ machine, chosen, open: throws(thrown) })).toBe(
    `the binary that DIFFATTN_NATIVE names, for ${where}, did not load: ${said.replace(at(target), chosen)}`,
  );
});

test("a long reason is cut, and what was thrown is kept as the cause", () => {
  const thrown = refused("x".repeat(1e6));
  const chosen = file("long.node", header("linux", "x64", "\0GLIBC_2.17\0"));
  expect(sentence({ machine: glibc, chosen, open: throws(thrown) }).length).toBeLessThan(500);
  expect(() => loaded({ machine: glibc, chosen, open: throws(thrown) })).toThrow(expect.objectContaining({ cause: thrown }));
});
