// Where the native binary does not load: what is told names the platform, the package that holds
// the binary and the cause. Each case is a process of its own. (What cannot be had here is in
// packages/native/loader.test.mjs: other systems, musl.)

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { fileOf, targetOf, thisMachine } from "../../packages/native/loader.js";
import { isNative } from "./backends.js";

const entry = fileURLToPath(new URL("../../packages/diffattn/dist/node.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "diffattn-loading-"));
/** The addon of this machine, as it was built. */
const binary = fileURLToPath(new URL(`../../packages/native/${fileOf(targetOf(thisMachine()))}`, import.meta.url));
afterAll(() => rmSync(folder, { recursive: true }));

interface Told {
  backend: string;
  notes: string[];
  error: { code: string; message: string } | null;
}

/**
 * What `info()` says, and what `init({ backend: "native" })` throws, in a process of these flags
 * and variables.
 */
function told(flags: string[], environment: Record<string, string> = {}): Told {
  const script = join(folder, "told.mjs");
  writeFileSync(
    script,
    `import { info, init } from ${JSON.stringify(entry)};
     const { backend, notes } = info();
     let error = null;
     try { await init({ backend: "native" }); } catch ({ code, message }) { error = { code, message }; }
     console.log(JSON.stringify({ backend, notes, error }));`,
  );
  const env = { PATH: process.env["PATH"], ...environment };
  // Flags of Node that are new or strong warn of themselves.
  const started = spawnSync(process.execPath, ["--no-warnings", ...flags, script], { encoding: "utf8", env, timeout: 50_000 });
  const { status, stdout, stderr } = started;
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout) as Told;
}

const package_ = `@diffattn/native-${process.platform}-${process.arch}`;

describe.runIf(isNative)("a native binary that does not load", () => {
  const check = ({ backend, notes, error }: Told, cause: RegExp, binary = package_): void => {
    expect(backend).toBe("wasm");
    const [note = ""] = notes;
    expect(note).toMatch(/^the native binary did not load, so WASM runs: /);
    expect(error?.code).toBe("UNAVAILABLE");
    expect(error?.message).toMatch(/^backend: expected a native binary that loads, got none: /);
    for (const sentence of [note, error?.message ?? ""]) {
      expect(sentence).toContain(binary);
      expect(sentence).toContain(`for ${process.platform}-${process.arch}`);
      expect(sentence).toMatch(cause);
      expect(sentence).not.toMatch(/npm has a bug|\n/);
    }
  };

  test("addons are off", () => {
    check(told(["--no-addons"]), /did not load: addons are switched off \(--no-addons\)/);
  });

  test("the permission model allows files and no addons", () => {
    const flag = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
    check(
      told([flag, "--allow-fs-read=*", "--allow-worker"]),
      /did not load: the permission model allows no addons \(--allow-addons does\)/,
    );
  });

  /** Of a file that DIFFATTN_NATIVE names. */
  const chosen = (bytes: Buffer | string, cause: RegExp): void => {
    const file = join(folder, "chosen.node");
    writeFileSync(file, bytes);
    check(told([], { DIFFATTN_NATIVE: file }), cause, "the binary that DIFFATTN_NATIVE names");
  };

  test("a binary that is none", () => {
    chosen("no binary", /did not load: .*chosen\.node is no binary, but 9 bytes of something else/);
  });

  // (The dynamic loader of musl does not look for which processor it is.)
  test.runIf(thisMachine().libc === "glibc")("a binary for another processor", () => {
    const bytes = Buffer.from(readFileSync(binary));
    // What ELF calls the machine.
    bytes.writeUInt16LE(process.arch === "x64" ? 0xb7 : 0x3e, 18);
    const other = process.arch === "x64" ? "arm64" : "x64";
    chosen(bytes, new RegExp(`chosen\\.node is for Linux on ${other}, and this Node is one for Linux on ${process.arch}`));
  });

  test.runIf(process.platform === "linux")("a binary of which hardly anything is there", () => {
    chosen(readFileSync(binary).subarray(0, 48), /did not load: .*chosen\.node: (file too short|Exec format error)/);
  });

  test("a file that is not there", () => {
    check(
      told([], { DIFFATTN_NATIVE: join(folder, "none.node") }),
      /did not load: Cannot find module/,
      "the binary that DIFFATTN_NATIVE names",
    );
  });
});

test.runIf(isNative)("a binary of another release is refused", () => {
  const native = fileURLToPath(new URL("../../packages/native", import.meta.url));
  const manifest = JSON.parse(readFileSync(join(native, "package.json"), "utf8")) as { version: string };
  for (const file of ["index.js", "loader.js"]) copyFileSync(join(native, file), join(folder, file));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ ...manifest, version: "9.9.9" }));
  copyFileSync(binary, join(folder, basename(binary)));
  expect(() => createRequire(import.meta.url)(join(folder, "index.js")) as unknown).toThrow(
    `did not load: expected version 9.9.9, as @diffattn/native has, got ${manifest.version}; both must come from one release`,
  );
});

test.runIf(isNative)("a binary that DIFFATTN_NATIVE names loads from any folder", () => {
  const copy = join(folder, "copy.node");
  copyFileSync(binary, copy);
  expect(told([], { DIFFATTN_NATIVE: copy })).toEqual({ backend: "native", notes: [], error: null });
});

test.runIf(isNative)("the addon's functions are those that its types name", () => {
  const types = readFileSync(new URL("../../packages/native/index.d.ts", import.meta.url), "utf8");
  const named = [...types.matchAll(/^ {4}(\w+)\(/gm)].map(([, name]) => name);
  expect(Object.keys(createRequire(import.meta.url)(binary) as object).sort()).toEqual(named.sort());
});

test.runIf(isNative)("a variable that may not be read is not set, and the binary loads", () => {
  const preload = join(folder, "refuse.cjs");
  // As Deno without --allow-env.
  writeFileSync(
    preload,
    `const refuse = (name) => { if (/^DIFFATTN_/.test(String(name))) throw new Error("Requires env access to " + String(name)); };
     const env = new Proxy(process.env, {
       get: (target, name) => (refuse(name), target[name]),
       has: (target, name) => (refuse(name), name in target),
     });
     Object.defineProperty(process, "env", { value: env });`,
  );
  const { backend, notes, error } = told(["--require", preload], {
    DIFFATTN_BACKEND: "wasm",
    DIFFATTN_ISA: "nonsense",
    DIFFATTN_NUM_THREADS: "x",
  });
  expect({ backend, notes, error }).toEqual({ backend: "native", notes: [], error: null });
});
