import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type Machine, TARGETS, targetOf, whyNot } from "./node-addon.js";

const glibc: Machine = { platform: "linux", arch: "x64", musl: false };
const musl: Machine = { ...glibc, musl: true };
const mac: Machine = { platform: "darwin", arch: "arm64", musl: false };
const windows: Machine = { platform: "win32", arch: "x64", musl: false };

const missing = (name: string): string => `Cannot find module '${name}'\nRequire stack:\n- /app/node_modules/@diffattn/native/index.js`;
const ADVICE =
  "Cannot find native binding. npm has a bug related to optional dependencies (https://github.com/npm/cli/issues/4828). " +
  "Please try `npm i` again after removing both package-lock.json and node_modules directory.";

/** What the loader of napi-rs throws: its advice, with a chain of what failed, the last first. */
const thrown = (...failures: string[]): Error => {
  let cause: Error | null = null;
  for (const message of failures) cause = Object.assign(new Error(message), { cause });
  return Object.assign(new Error(ADVICE), { cause });
};
const wasi = [missing("./diffattn.wasi.cjs"), missing("@diffattn/native-wasm32-wasi")];

test("the targets are those of the native package", () => {
  const { napi } = JSON.parse(readFileSync(new URL("../../native/package.json", import.meta.url), "utf8")) as {
    napi: { targets: string[] };
  };
  const words: Record<string, string> = { x86_64: "x64", aarch64: "arm64", apple: "", unknown: "", pc: "", windows: "win32" };
  const named = napi.targets.map((triple) => {
    const [arch = "", vendor = "", system = "", abi] = triple.split("-").map((word) => words[word] ?? word);
    return [vendor + system, arch, abi].filter((word) => word !== undefined).join("-");
  });
  expect(named.sort()).toEqual([...TARGETS].sort());
  expect([glibc, musl, mac, windows].map(targetOf)).toEqual(["linux-x64-gnu", "linux-x64-musl", "darwin-arm64", "win32-x64-msvc"]);
});

test.each<[string, unknown, Machine, string]>([
  [
    "the package is not there",
    Object.assign(new Error(missing("@diffattn/native")), { code: "MODULE_NOT_FOUND" }),
    glibc,
    "the package @diffattn/native with @diffattn/native-linux-x64-gnu, for linux-x64 (glibc), is not installed (it is an optional dependency)",
  ],
  [
    "the binary's package is not there",
    thrown(missing("./diffattn.darwin-arm64.node"), missing("@diffattn/native-darwin-arm64"), ...wasi),
    mac,
    "the package @diffattn/native-darwin-arm64, for darwin-arm64, is not installed (it is an optional dependency)",
  ],
  [
    "musl, for which there is none",
    thrown(missing("./diffattn.linux-x64-musl.node"), missing("@diffattn/native-linux-x64-musl"), ...wasi),
    musl,
    "no binary is published for linux-x64 (musl)",
  ],
  [
    "a platform that nobody knows",
    thrown("Unsupported OS: sunos, architecture: x64", ...wasi),
    { platform: "sunos", arch: "x64", musl: false },
    "no binary is published for sunos-x64",
  ],
  [
    "addons are off",
    thrown(missing("./diffattn.linux-x64-gnu.node"), "Cannot load native addon because loading addons is disabled.", ...wasi),
    glibc,
    "the binary of @diffattn/native-linux-x64-gnu, for linux-x64 (glibc), did not load: " +
      "Cannot load native addon because loading addons is disabled.",
  ],
  [
    "a C library that is too old",
    thrown(missing("./diffattn.linux-x64-gnu.node"), "/lib/libc.so.6: version `GLIBC_2.99' not found\n(required by x.node)", ...wasi),
    glibc,
    "the binary of @diffattn/native-linux-x64-gnu, for linux-x64 (glibc), did not load: /lib/libc.so.6: version `GLIBC_2.99' not found",
  ],
  ["no error at all", "a text", windows, "the binary of @diffattn/native-win32-x64-msvc, for win32-x64, did not load: a text"],
])("%s", (_, error, machine, sentence) => {
  expect(whyNot(error, machine)).toBe(sentence);
});

test("a chain of causes that is a circle ends; a long reason is cut", () => {
  const circle = new Error(missing("./diffattn.linux-x64-gnu.node"));
  circle.cause = circle;
  expect(whyNot(circle, glibc)).toContain("is not installed");
  expect(whyNot(new Error("x".repeat(1e6)), glibc).length).toBeLessThan(500);
});
