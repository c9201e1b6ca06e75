import { deflateRawSync, inflateRawSync } from "node:zlib";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { compile, compileSync } from "./module.js";
import { carry } from "./carried.js";
import { folderOf, inFolder } from "./given.js";
import { type Carried, fileOf, inlineFiles } from "./own-files.js";

// Minimal.
const MODULE = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0);
const base64 = (bytes: Uint8Array): string => deflateRawSync(bytes).toString("base64");

beforeEach(() => {
  vi.stubGlobal("__VERSION__", String(Math.random()));
});
afterEach(() => vi.unstubAllGlobals());

test("a folder is an address that ends with a slash", () => {
  const folder = new URL("https://cdn.example/diffattn/?x");
  expect(folderOf(folder)).toBe(folder);
  for (const other of [new URL("https://cdn.example/a.wasm"), "https://cdn.example/", null, undefined, new Uint8Array(1)])
    expect(folderOf(other)).toBeUndefined();
  const files = inFolder(folder, "models");
  expect(files.module("relaxed-simd+threads")).toEqual(new URL("https://cdn.example/diffattn/diffattn-models-threads.wasm"));
  expect(inFolder(folder, "training").module("simd128")).toEqual(new URL("https://cdn.example/diffattn/diffattn-training-simd128.wasm"));
  expect(String(files.worker())).toBe("https://cdn.example/diffattn/worker.js");
});

test("files that a script carries: what both scripts leave is there, whichever copy of the entries asks", async () => {
  expect(inlineFiles("operators")).toBeUndefined();
  carry({ worker: "its text", modules: { [fileOf("simd128", "operators")]: base64(MODULE) } });
  // Models have modules of their own.
  expect(inlineFiles("models")).toBeUndefined();
  carry({ worker: "its text", modules: { [fileOf("relaxed-simd", "models")]: base64(MODULE) } });
  const [operators, models] = [inlineFiles("operators"), inlineFiles("models")];
  expect(operators?.builds).toEqual(["simd128"]);
  expect(models?.builds).toEqual(["relaxed-simd"]);
  expect(operators?.worker()).toBe("its text");
  expect(() => operators?.module("relaxed-simd")).toThrow("wasm: expected a module of simd128, got relaxed-simd");

  const file = operators?.module("simd128") as Carried;
  expect(await file.bytes()).toEqual(MODULE);
  expect(await compile(file)).toBeInstanceOf(WebAssembly.Module);
  const read = (): never => expect.fail("no file is read");
  // At once only where a runtime inflates at once.
  expect(() => compileSync(file, read)).toThrow("init: expected an init() that has ended, where a script carries the module, got none");
  const now = inlineFiles("operators", (bytes) => new Uint8Array(inflateRawSync(bytes)))?.module("simd128") as Carried;
  expect(compileSync(now, read)).toBeInstanceOf(WebAssembly.Module);
});

test("a carried text that is damaged is refused by its file's name", async () => {
  carry({ worker: "", modules: { [fileOf("simd128", "operators")]: base64(new TextEncoder().encode("<html>")) } });
  await expect(compile(inlineFiles("operators")?.module("simd128") as Carried)).rejects.toThrow(
    "wasm: expected a WebAssembly file, got an HTML page from diffattn-simd128.wasm",
  );
});
