// What the scripts would start on Windows, read off a faked one: its platform, its PATH and a
// folder as npm's and Rust's installers leave it there. Starts nothing. That Windows itself does
// with it what its manual says is not looked at.
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

/** Every call of spawnSync: file, arguments, options. */
const spawned = [];
vi.mock(import("node:child_process"), async (original) => ({
  ...(await original()),
  spawnSync: (...call) => {
    spawned.push(call);
    return { status: 0, stdout: "said\n", stderr: "" };
  },
}));

const platform = Object.getOwnPropertyDescriptor(process, "platform");
const environment = { ...process.env };
let folder;

function write(path, text = "") {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

/** The scripts' tools, as a machine of that kind reads them. */
async function toolsOn(name, variables) {
  Object.defineProperty(process, "platform", { ...platform, value: name });
  Object.assign(process.env, variables);
  vi.resetModules();
  return import("./tools.mjs");
}

const onWindows = () =>
  toolsOn("win32", {
    PATH: [join(folder, "empty"), join(folder, "nodejs"), join(folder, "cargo")].join(";"),
    PATHEXT: ".COM;.EXE;.BAT;.CMD",
  });

beforeEach(() => {
  spawned.length = 0;
  folder = mkdtempSync(join(tmpdir(), "diffattn-windows-"));
  // npm brings a script for shells of Unix, too, under the very name.
  write("nodejs/npm", "#!/usr/bin/env bash\n");
  write("nodejs/npm.cmd", "@ECHO OFF\n");
  write("nodejs/node_modules/npm/bin/npm-cli.js", "#!/usr/bin/env node\n");
  write("nodejs/other.cmd", "@ECHO OFF\n");
  write("cargo/cargo.exe", "MZ");
});

afterEach(() => {
  Object.defineProperty(process, "platform", platform);
  for (const name of ["PATH", "PATHEXT"]) {
    if (environment[name] === undefined) delete process.env[name];
    else process.env[name] = environment[name];
  }
  rmSync(folder, { recursive: true, force: true });
});

describe("on Windows", () => {
  test("npm is its script in Node, and every argument stays one", async () => {
    const { launch } = await onWindows();
    const args = ["install", "a folder", "%PATH%", 'say "yes"', "a&b"];
    expect(launch("npm", args)).toEqual([process.execPath, [join(folder, "nodejs/node_modules/npm/bin/npm-cli.js"), ...args]]);
  });

  test("a compiled program is found by the endings of PATHEXT, in the folders of PATH in their order", async () => {
    const { launch, onPath } = await onWindows();
    expect(launch("cargo", ["fmt"])).toEqual([join(folder, "cargo/cargo.exe"), ["fmt"]]);
    expect(onPath("rustup", "cargo")).toBe(join(folder, "cargo/cargo.exe"));
    write("nodejs/cargo.exe", "MZ");
    expect(onPath("cargo")).toBe(join(folder, "nodejs/cargo.exe"));
    expect(onPath("rustup")).toBe(undefined);
  });

  test("another batch file is refused by name", async () => {
    const { CommandFailed, launch } = await onWindows();
    expect(() => launch("other")).toThrow(CommandFailed);
    expect(() => launch("other")).toThrow(`${join(folder, "nodejs/other.cmd")}: a batch file, which cannot be run without a shell`);
  });

  test("run and ask spawn that, and no shell", async () => {
    const { ask, run } = await onWindows();
    expect(run("npm", ["pack"], { quiet: true })).toBe("said\n");
    expect(ask("cargo", ["-V"])).toBe("said");
    expect(spawned.map(([file, args]) => [file, args])).toEqual([
      [process.execPath, [join(folder, "nodejs/node_modules/npm/bin/npm-cli.js"), "pack"]],
      [join(folder, "cargo/cargo.exe"), ["-V"]],
    ]);
    for (const [, , { shell }] of spawned) expect(shell).toBe(undefined);
  });

  test("what the scripts install has the names that it has there", async () => {
    const { cargoTool, newerNode, pnpm } = await onWindows();
    for (const path of [cargoTool("wasm-pack"), newerNode, pnpm]) expect(path).toMatch(/[/\\](wasm-pack|node|pnpm)\.exe$/);
  });

  test("a program of the dev dependencies is its package's script in Node", async () => {
    const { bin, launch } = await onWindows();
    for (const name of ["attw", "eslint", "napi", "prettier", "publint", "tsc", "wasm-opt"]) {
      const [file, [script, ...rest]] = launch(bin(name), ["--version"]);
      expect([file, rest]).toEqual([process.execPath, ["--version"]]);
      expect(readFileSync(script, "latin1")).toMatch(/^#!.*node/);
    }
  });

  test("a folder comes first on PATH, whichever way the name is written", async () => {
    const { pathFirst } = await onWindows();
    expect(pathFirst("C:\\tools", { Path: "C:\\a;C:\\b" })).toEqual({ Path: "C:\\tools;C:\\a;C:\\b" });
    expect(pathFirst("C:\\tools", {})).toEqual({ PATH: "C:\\tools;" });
  });
});

describe("elsewhere", () => {
  test("names are left to the system, paths are separated by colons", async () => {
    const tool = write("bin/tool");
    chmodSync(tool, 0o755);
    const { cargoTool, launch, onPath, pathFirst } = await toolsOn("linux", { PATH: `${join(folder, "empty")}:${join(folder, "bin")}` });
    expect(launch("npm", ["pack"])).toEqual(["npm", ["pack"]]);
    expect(onPath("tool")).toBe(tool);
    expect(pathFirst("/tools", { PATH: "/a:/b" })).toEqual({ PATH: "/tools:/a:/b" });
    expect(cargoTool("wasm-pack")).toMatch(/[/\\]wasm-pack$/);
  });
});

test("no script starts anything but through these tools", () => {
  const scripts = readdirSync(import.meta.dirname).filter((name) => name.endsWith(".mjs") && !name.endsWith(".test.mjs"));
  expect(scripts.length).toBeGreaterThan(5);
  for (const name of scripts) {
    const text = readFileSync(join(import.meta.dirname, name), "utf8");
    for (const [call] of text.matchAll(/(?<![\w.])(?:spawn|spawnSync|exec|execSync|execFile|execFileSync|fork)\([^)]*/g))
      expect(call, name).toMatch(/\(\.\.\.launch\(|\(process\.execPath/);
    expect(text, name).not.toMatch(/shell: true|process\.argv\[1\] ===/);
  }
});
