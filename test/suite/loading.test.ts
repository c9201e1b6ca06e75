// Where the native binary does not load: what is told names the platform, the package that holds the binary and the cause. Each case is a
// process of its own. (What cannot be had here is in packages/diffattn/src/node-addon.test.ts: other systems, musl.)

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { isNative } from "./backends.js";

const entry = fileURLToPath(new URL("../../packages/diffattn/dist/node.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "diffattn-loading-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Told {
  backend: string;
  notes: string[];
  error: { code: string; message: string } | null;
}

/** What `info()` says, and what `init({ backend: "native" })` throws, in a process of these flags and variables. */
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
  const check = ({ backend, notes, error }: Told, cause: RegExp): void => {
    expect(backend).toBe("wasm");
    const [note = ""] = notes;
    expect(note).toMatch(/^the native binary did not load, so WASM runs: /);
    expect(error?.code).toBe("UNAVAILABLE");
    expect(error?.message).toMatch(/^backend: expected a native binary that loads, got none: /);
    for (const sentence of [note, error?.message ?? ""]) {
      expect(sentence).toContain(package_);
      expect(sentence).toContain(`for ${process.platform}-${process.arch}`);
      expect(sentence).toMatch(cause);
      expect(sentence).not.toMatch(/npm has a bug|\n/);
    }
  };

  test("addons are off", () => {
    check(told(["--no-addons"]), /did not load: .*(addon|dlopen)/i);
  });

  test("the permission model allows files and no addons", () => {
    const flag = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
    check(told([flag, "--allow-fs-read=*", "--allow-worker"]), /did not load: .*(addon|dlopen|permission)/i);
  });

  test("a binary that is none", () => {
    const broken = join(folder, "broken.node");
    writeFileSync(broken, "no binary");
    check(told([], { NAPI_RS_NATIVE_LIBRARY_PATH: broken }), /did not load: .*broken\.node/);
  });
});

test.runIf(isNative)("a variable that may not be read is not set, and the binary loads", () => {
  const preload = join(folder, "refuse.cjs");
  // As Deno without --allow-env.
  writeFileSync(
    preload,
    `const refuse = (name) => { if (/^(DIFFATTN|NAPI)_/.test(String(name))) throw new Error("Requires env access to " + String(name)); };
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
