import { expect, test, vi } from "vitest";
import { loadAddon } from "./node-addon.js";

// (The build puts it in.)
vi.stubGlobal("__VERSION__", "1.2.3");

/** A `require` that throws. */
const refusing = (thrown: unknown): NodeJS.Require =>
  ((): never => {
    throw thrown;
  }) as unknown as NodeJS.Require;

const missing = (name: string): Error =>
  Object.assign(new Error(`Cannot find module '${name}'\nRequire stack:\n- /app/node_modules/@diffattn/native/index.js`), {
    code: "MODULE_NOT_FOUND",
  });

test.each<[string, unknown, string]>([
  [
    "the native package is not there",
    missing("@diffattn/native"),
    `the package @diffattn/native, which brings the binary for ${process.platform}-${process.arch}, is not installed: ` +
      "it is an optional dependency, which --omit=optional leaves out",
  ],
  ["the native package says why", new Error("no binary is published for freebsd-x64"), "no binary is published for freebsd-x64"],
  ["the native package is there in part", missing("./loader.js"), "Cannot find module './loader.js'"],
  ["no error at all", undefined, "undefined"],
])("%s", (_, thrown, sentence) => {
  expect(() => loadAddon(refusing(thrown))).toThrow(expect.objectContaining({ message: sentence, cause: thrown }));
});

test("an addon of this package's version is taken, one of another is not", () => {
  const addon = (version: string): NodeJS.Require => (() => ({ info: () => ({ version }) })) as unknown as NodeJS.Require;
  expect(loadAddon(addon("1.2.3")).info().version).toBe("1.2.3");
  expect(() => loadAddon(addon("1.2.4"))).toThrow("the package @diffattn/native: expected version 1.2.3, as this package has, got 1.2.4");
});
