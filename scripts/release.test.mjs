// What a release decides: its order, what it refuses, what it skips. Publishes nothing: commands
// are recorded.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { targets } from "../packages/native/loader.js";
import { ALLOWED } from "./notices.mjs";
import { cratesOf, faultsOfBinaries, faultsOfTarballs, inOrder, publish, tagOf, tell, toPublish } from "./release.mjs";
import { root, run } from "./tools.mjs";

const repository = { url: "git+https://example.org/diffattn.git" };
const tarball = (name, more = {}) => ({ name, manifest: { name, version: "1.2.3", repository, ...more } });

describe("the order", () => {
  const names = (things) => inOrder(things).map(({ name }) => name);

  test("has what is needed before what needs it, else names", () => {
    const things = [
      { name: "diffattn", needs: ["@diffattn/native"] },
      { name: "@diffattn/native", needs: ["@diffattn/native-b", "@diffattn/native-a"] },
      { name: "@diffattn/wasm", needs: [] },
      { name: "@diffattn/native-b", needs: [] },
      { name: "@diffattn/native-a", needs: ["elsewhere"] },
    ];
    expect(names(things)).toEqual(["@diffattn/native-a", "@diffattn/native-b", "@diffattn/native", "@diffattn/wasm", "diffattn"]);
    expect(names(things.reverse())).toEqual(["@diffattn/native-a", "@diffattn/native-b", "@diffattn/native", "@diffattn/wasm", "diffattn"]);
  });

  test("without a beginning is refused", () => {
    const circle = [
      { name: "a", needs: ["b"] },
      { name: "b", needs: ["a"] },
    ];
    expect(() => inOrder(circle)).toThrow("these need each other: a, b");
  });
});

describe("a set of tarballs", () => {
  const whole = [
    tarball("diffattn", { optionalDependencies: { "@diffattn/native": "1.2.3" } }),
    tarball("@diffattn/native", { optionalDependencies: { "@diffattn/native-a": "1.2.3" } }),
    tarball("@diffattn/native-a"),
  ];

  test("that is whole is taken", () => expect(faultsOfTarballs(whole, "1.2.3")).toEqual([]));

  test("of another version, or one that wants another version, is refused", () => {
    const [first, ...rest] = whole;
    expect(faultsOfTarballs([tarball("diffattn", { version: "1.2.2" }), ...rest], "1.2.3")).toEqual([
      "diffattn is packed as version 1.2.2, this release is 1.2.3",
    ]);
    const stale = tarball("diffattn", { optionalDependencies: { "@diffattn/native": "workspace:*", other: "^1" } });
    expect(faultsOfTarballs([stale, ...rest], "1.2.3")).toEqual(["diffattn wants @diffattn/native workspace:*, this release is 1.2.3"]);
    expect(faultsOfTarballs([first, ...rest], "1.2.3")).toEqual([]);
  });

  test("without a repository has no provenance", () =>
    expect(faultsOfTarballs([tarball("diffattn", { repository: undefined })], "1.2.3")).toEqual([
      "diffattn names no repository, without which there is no provenance",
    ]));
});

describe("the binaries", () => {
  /** The least that tells what a binary is for: an ELF, a Mach-O or a PE header. */
  function header({ platform, arch, libc }) {
    const bytes = Buffer.alloc(256);
    if (platform === "linux") {
      bytes.writeUInt32BE(0x7f454c46);
      bytes.writeUInt16LE({ x64: 0x3e, arm64: 0xb7 }[arch], 18);
      bytes.write({ glibc: "\0GLIBC_2.17\0", musl: "\0libc.so\0" }[libc], 64, "latin1");
    } else if (platform === "darwin") {
      bytes.writeUInt32LE(0xfeedfacf);
      bytes.writeUInt32LE({ x64: 0x1000007, arm64: 0x100000c }[arch], 4);
    } else {
      bytes.write("MZ");
      bytes.writeUInt32LE(128, 0x3c);
      bytes.write("PE\0\0", 128, "latin1");
      bytes.writeUInt16LE({ x64: 0x8664, arm64: 0xaa64 }[arch], 132);
    }
    return bytes;
  }

  const folders = [];
  afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));
  /** A folder with a binary for each target, but for those that `change` gives otherwise. */
  function folderOf(change = {}) {
    const folder = mkdtempSync(join(tmpdir(), "diffattn-binaries-"));
    folders.push(folder);
    for (const target of targets) {
      const bytes = target.triple in change ? change[target.triple] : header(target);
      if (bytes) writeFileSync(join(folder, target.file), bytes);
    }
    return folder;
  }
  const of = (triple) => targets.find((target) => target.triple === triple);

  test("of every target are taken", () => expect(faultsOfBinaries(folderOf())).toEqual([]));

  test("without some are incomplete, and it is said for which", () => {
    const change = { "aarch64-apple-darwin": undefined, "x86_64-unknown-linux-musl": undefined };
    expect(faultsOfBinaries(folderOf(change))).toEqual([
      "incomplete: there is no binary for x86_64-unknown-linux-musl, aarch64-apple-darwin",
    ]);
  });

  test("that are for something else than their names say are refused", () => {
    const change = {
      "aarch64-unknown-linux-gnu": header(of("aarch64-unknown-linux-musl")),
      "x86_64-apple-darwin": header(of("aarch64-apple-darwin")),
      "x86_64-pc-windows-msvc": Buffer.from("<html>"),
    };
    expect(faultsOfBinaries(folderOf(change))).toEqual([
      "diffattn.linux-arm64-gnu.node is linux arm64 musl, not linux arm64 glibc",
      "diffattn.darwin-x64.node is darwin arm64, not darwin x64",
      "diffattn.win32-x64-msvc.node is no binary, not win32 x64",
    ]);
  });
});

describe("the crates", () => {
  const crate = (name, ...needs) => ({
    name,
    version: "1.2.3",
    dependencies: needs.map((needed) => ({ name: needed.replace("?", ""), req: needed.endsWith("?") ? "*" : "^1.2.3" })),
  });
  const packages = [crate("layers", "kernels", "oracle?", "serde"), crate("kernels", "oracle?"), crate("oracle"), crate("door", "layers")];
  const released = (...crates) => cratesOf({ packages, metadata: { release: { crates } } });

  test("come in their order; what only tests need stays", () => {
    const { crates, faults } = released("layers", "kernels");
    expect(faults).toEqual([]);
    expect(crates.map(({ name }) => name)).toEqual(["kernels", "layers"]);
  });

  test("that need what is not released are refused", () => {
    expect(released("layers").faults).toEqual(["the crate layers needs kernels, which is not released"]);
    expect(released("kernels", "models").faults).toEqual(["Cargo.toml releases the crate models, which is not there"]);
  });

  test("of this workspace are whole", () => {
    const metadata = JSON.parse(run("cargo", ["metadata", "--no-deps", "--format-version", "1", "--locked"], { quiet: true }));
    const { crates, faults } = cratesOf(metadata);
    expect(faults).toEqual([]);
    expect(crates.map(({ name }) => name)).toEqual(["diffattn", "diffattn-files", "diffattn-nn"]);
    for (const { name } of crates) {
      const { readme, description, license, repository, keywords, categories } = metadata.packages.find((found) => found.name === name);
      expect({ readme, license }, name).toEqual({ readme: "README.md", license: "MIT OR Apache-2.0" });
      for (const text of [description, repository]) expect(text, name).toBeTruthy();
      // crates.io takes at most five of each.
      for (const list of [keywords, categories]) expect([list.length > 0, list.length <= 5], name).toEqual([true, true]);
    }
  });

  test("of others are under licences of one list", () => {
    const [, list] = /^allow = \[(.*?)\]/ms.exec(readFileSync(join(root, "deny.toml"), "utf8"));
    expect([...list.matchAll(/"(.*?)"/g)].map(([, name]) => name).sort()).toEqual(Object.keys(ALLOWED).sort());
  });
});

describe("publishing", () => {
  const folder = mkdtempSync(join(tmpdir(), "diffattn-release-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const packed = (name, text) => {
    const file = `${name.replace("@", "").replace("/", "-")}-1.2.3.tgz`;
    writeFileSync(join(folder, file), text);
    return { name, file, bytes: text.length, integrity: `sha512-${createHash("sha512").update(text).digest("base64")}`, sha256: "ab" };
  };
  const tarballs = [packed("@diffattn/native-a", "binary"), packed("@diffattn/native", "loader"), packed("diffattn", "package")];
  const crates = ["diffattn", "diffattn-nn"].map((name) => ({ name, bytes: 1, sha256: "cd" }));
  const plan = { version: "1.2.3", commit: "c0ffee", tarballs, crates };

  /**
   * Commands that would be run, and what the registries are said to have: `npm` hashes by name,
   * `cargo` names.
   */
  function tools({ npm = {}, cargo = [], tags = "v1.2.3", head = "c0ffee" } = {}) {
    const commands = [];
    return {
      commands,
      run: (command, args) => commands.push([command, ...args].join(" ")),
      ask(command, args) {
        const [verb, what] = args;
        const name = what.replace(/@1\.2\.3$/, "");
        if (command === "git") return verb === "rev-parse" ? head : tags;
        if (command === "npm" && verb === "view") return npm[name] ?? "";
        if (command === "cargo" && verb === "info") return cargo.includes(name) ? `${name} ...` : "";
        throw new Error(`${command} ${args.join(" ")}: not expected`);
      },
    };
  }

  beforeEach(() => {
    vi.stubEnv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://example.org");
    vi.spyOn(console, "log").mockImplementation(() => {});
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  });

  const npmPublish = (file) => `npm publish ./${file} --access public --tag latest --provenance`;

  test("goes through npm's packages, then the crates, in order", () => {
    const { commands, ...given } = tools();
    publish(plan, folder, true, given);
    expect(commands).toEqual([
      npmPublish("diffattn-native-a-1.2.3.tgz"),
      npmPublish("diffattn-native-1.2.3.tgz"),
      npmPublish("diffattn-1.2.3.tgz"),
      "cargo publish -p diffattn --no-verify --locked",
      "cargo publish -p diffattn-nn --no-verify --locked",
    ]);
  });

  test("goes on where it ended", () => {
    const npm = Object.fromEntries(tarballs.slice(0, 2).map(({ name, integrity }) => [name, integrity]));
    const { commands, ...given } = tools({ npm, cargo: ["diffattn"] });
    publish(plan, folder, true, given);
    expect(commands).toEqual([npmPublish("diffattn-1.2.3.tgz"), "cargo publish -p diffattn-nn --no-verify --locked"]);
  });

  test("stops before anything is published when a version is there with other contents", () => {
    const { commands, ...given } = tools({ npm: { diffattn: "sha512-other" } });
    expect(() => publish(plan, folder, true, given)).toThrow(
      /^diffattn 1\.2\.3 is published with other contents \(sha512-other, here sha512-/,
    );
    expect(commands).toEqual([]);
    expect(() => toPublish(tarballs, "1.2.3", () => "sha512-other")).toThrow("take the next version");
  });

  test("refuses another commit, a missing tag, changed files, and provenance from elsewhere", () => {
    const refused = (sentence, given, withProvenance = true, changed = plan) => {
      const { commands, ...recorded } = tools(given);
      expect(() => publish(changed, folder, withProvenance, recorded)).toThrow(sentence);
      expect(commands).toEqual([]);
    };
    refused("this was packed of c0ffee, which is not checked out", { head: "decaf" });
    refused("the commit has no tag v1.2.3", { tags: "v1.2.2" });
    const other = { ...plan, tarballs: [{ ...tarballs[0], integrity: "sha512-other" }] };
    refused("diffattn-native-a-1.2.3.tgz is not what was packed", {}, true, other);
    vi.stubEnv("ACTIONS_ID_TOKEN_REQUEST_URL", "");
    refused("provenance is given by the workflow `release` alone", {});
    const { commands, ...given } = tools();
    publish(plan, folder, false, given);
    expect(commands[0]).toBe("npm publish ./diffattn-native-a-1.2.3.tgz --access public --tag latest");
  });

  test("of a version before a release does not become what is installed", () => {
    expect(["1.2.3", "1.2.3-next.0"].map(tagOf)).toEqual(["latest", "next"]);
  });

  test("is told: each file in order, with its size and hashes", () => {
    const lines = tell(plan).split("\n");
    expect(lines[0]).toBe("version 1.2.3 of c0ffee");
    expect(lines.slice(2, 5)).toEqual([
      " 1. @diffattn/native-a (diffattn-native-a-1.2.3.tgz) 0.0 kB",
      "    sha256 ab",
      `    ${tarballs[0].integrity}`,
    ]);
    expect(lines.at(-2)).toBe(" 2. diffattn-nn (diffattn-nn-1.2.3.crate) 0.0 kB");
  });
});

test("what is asked wrongly is refused in a sentence, before anything is built", () => {
  for (const [args, sentence] of [
    [["--publish"], "Unknown option '--publish'"],
    [["--dry-run", "--binaries", "nowhere"], "--binaries: expected a folder with files *.node, got nowhere"],
    [["--packed", "nowhere"], "--packed: expected a folder with release.json, as --dry-run leaves it, got nowhere"],
  ]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, "scripts/release.mjs"), ...args], { encoding: "utf8" });
    expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: "", stderr: `failed: ${sentence}\n` });
  }
});
