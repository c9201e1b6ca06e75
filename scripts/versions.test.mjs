// The one version: that every place says it, and how the next one is written. Runs no changeset.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { root } from "./tools.mjs";
import { closeUnreleased, npmPackages, readVersion, section, withAskedVersion, withVersion } from "./versions.mjs";

const folders = [];
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A copy of the files that say a version. */
function copy() {
  const folder = mkdtempSync(join(tmpdir(), "diffattn-versions-"));
  folders.push(folder);
  for (const file of ["Cargo.toml", "Cargo.lock"]) cpSync(join(root, file), join(folder, file));
  for (const name of ["demo", "diffattn", "native", "wasm"]) {
    mkdirSync(join(folder, "packages", name), { recursive: true });
    cpSync(join(root, "packages", name, "package.json"), join(folder, "packages", name, "package.json"));
  }
  for (const file of ["react/package.json", "rust/Cargo.toml", "deno/main.ts"]) {
    mkdirSync(join(folder, "examples", file, ".."), { recursive: true });
    cpSync(join(root, "examples", file), join(folder, "examples", file));
  }
  return folder;
}

function change(folder, file, from, to) {
  const text = readFileSync(join(folder, file), "utf8");
  expect(text).toContain(from);
  writeFileSync(join(folder, file), text.replace(from, to));
}

describe("the version", () => {
  test("is the same everywhere", () => {
    const { version, faults } = readVersion();
    expect(version).toMatch(/^\d+\.\d+\.\d+/);
    expect(faults).toEqual([]);
  });

  test("that differs somewhere is told of that place", () => {
    const { version } = readVersion();
    for (const [file, from, place] of [
      ["packages/wasm/package.json", `"version": "${version}"`, "packages: @diffattn/wasm"],
      ["Cargo.toml", `\nversion = "${version}"`, "Cargo.toml: [workspace.package]"],
      ["Cargo.toml", `diffattn-door = { path = "crates/diffattn-door", version = "${version}"`, "Cargo.toml: diffattn-door"],
      ["Cargo.lock", `name = "diffattn-nn"\nversion = "${version}"`, "Cargo.lock: diffattn-nn"],
      ["examples/react/package.json", `"diffattn": "^${version}"`, join("examples", "react", "package.json")],
      ["examples/rust/Cargo.toml", `\ndiffattn-nn = { version = "${version}"`, join("examples", "rust", "Cargo.toml")],
      ["examples/deno/main.ts", `npm:diffattn@^${version}/models`, join("examples", "deno", "main.ts")],
    ]) {
      const folder = copy();
      change(folder, file, from, from.replace(version, "9.8.7"));
      const { faults } = readVersion(folder);
      expect(faults, place).toEqual([`${place} has version 9.8.7, the package diffattn has ${version}; run: npm run version`]);
    }
  });

  test("is written into the examples, and nowhere else in them", () => {
    const { version } = readVersion();
    const manifest = `[package]\nversion = "0.0.1"\n\ndiffattn = "${version}"\ndiffattn-nn = { version = "${version}", features = ["models"] }\n`;
    expect(withAskedVersion(manifest, "9.8.7")).toBe(
      `[package]\nversion = "0.0.1"\n\ndiffattn = "9.8.7"\ndiffattn-nn = { version = "9.8.7", features = ["models"] }\n`,
    );
    expect(withAskedVersion(`"diffattn": "^${version}", "next": "^${version}"`, "9.8.7")).toBe(
      `"diffattn": "^9.8.7", "next": "^${version}"`,
    );
  });

  test("is written into the workspace and its own crates, and nowhere else", () => {
    const before = readFileSync(join(root, "Cargo.toml"), "utf8");
    const { version } = readVersion();
    const after = withVersion(before, "9.8.7-next.1");
    const lines = after.split("\n").filter((line, index) => line !== before.split("\n")[index]);
    expect(lines.map((line) => /^[\w-]+/.exec(line)[0]).sort()).toEqual(
      ["version", "diffattn", "diffattn-door", "diffattn-files", "diffattn-nn", "diffattn-reference"].sort(),
    );
    expect(withVersion(after, version)).toBe(before);
  });

  test("goes on for all published packages together", () => {
    const { fixed, privatePackages } = JSON.parse(readFileSync(join(root, ".changeset/config.json"), "utf8"));
    expect(fixed).toEqual([npmPackages().map(({ name }) => name)]);
    expect(privatePackages).toEqual({ version: false, tag: false });
  });
});

describe("the changelog", () => {
  const changelog = "# Changelog\n\n## Unreleased\n\n### Added\n\n- One.\n\n## 0.1.0 - 2026-01-02\n\n- Zero.\n";

  test("has sections", () => {
    expect(section(changelog, "Unreleased")).toBe("### Added\n\n- One.");
    expect(section(changelog, "0.1.0")).toBe("- Zero.");
    expect(section(changelog, "0.1")).toBeUndefined();
  });

  test("of what is unreleased becomes a version's, with the lines of its changesets", () => {
    const closed = closeUnreleased(changelog, "0.2.0", "2026-03-04", ["Two."]);
    expect(closed).toBe(
      "# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-03-04\n\n- Two.\n\n### Added\n\n- One.\n\n## 0.1.0 - 2026-01-02\n\n- Zero.\n",
    );
    expect(closeUnreleased(closed, "0.2.0", "2026-03-05", [])).toBe(closed);
    expect(section(closeUnreleased(closed, "0.3.0", "2026-03-05", ["Three."]), "0.3.0")).toBe("- Three.");
  });

  test("of one section alone keeps what stands above it", () => {
    expect(closeUnreleased("# Changelog\n\n## Unreleased\n\n- One.\n", "0.1.0", "2026-03-04", [])).toBe(
      "# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2026-03-04\n\n- One.\n",
    );
  });

  test("that does not fit is refused", () => {
    expect(() => closeUnreleased(changelog, "0.1.0", "2026-03-04", [])).toThrow(
      "CHANGELOG.md: 0.1.0 has its section, and no changeset says how far the version goes; run: npx changeset",
    );
    expect(() => closeUnreleased("## Unreleased\n\n## 0.1.0\n\n- Zero.\n", "0.2.0", "2026-03-04", [])).toThrow("nothing is told of 0.2.0");
    expect(() => closeUnreleased("## 0.1.0\n", "0.2.0", "2026-03-04", ["Two."])).toThrow("it has no heading Unreleased");
  });
});
