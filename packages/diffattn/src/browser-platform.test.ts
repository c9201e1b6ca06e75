import { afterEach, expect, test, vi } from "vitest";
import { platform } from "./browser-platform.js";
import { compileGiven } from "./given.js";

afterEach(() => vi.unstubAllGlobals());

test("where a script has no address, what helps is said", async () => {
  vi.stubGlobal("__VERSION__", "0.0.0");
  // As in Cloudflare's workers.
  vi.stubGlobal("URL", function URL() {
    throw new TypeError("Invalid URL string.");
  });
  const sentence = expect.objectContaining({
    code: "UNAVAILABLE",
    message:
      'wasm: expected a script with an address, for the files beside it, or import "diffattn/inline" (models: "diffattn/inline-models", ' +
      'gradients: "diffattn/inline-training"), or a folder with the files, init({ wasm: folder }), got none',
  }) as Error;
  const { files } = platform;
  expect(() => files.module("simd128")).toThrow(sentence);
  expect(() => files.worker()).toThrow(sentence);
  // Minimal, and given: no address is wanted.
  expect(await compileGiven(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0), platform)).toBeInstanceOf(WebAssembly.Module);
});

test("a worker of another origin is loaded by a script of our own", () => {
  vi.stubGlobal("origin", "https://page.example");
  vi.stubGlobal("Worker", function Worker() {});
  const texts: Blob[] = [];
  vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => `blob:${texts.push(blob as Blob)}`);
  expect(platform.scriptOf(new URL("https://page.example/dist/worker.js"))).toEqual({
    kind: "classic",
    text: "https://page.example/dist/worker.js",
  });
  const elsewhere = new URL("https://cdn.example/dist/worker.js");
  expect(platform.scriptOf(elsewhere)).toEqual({ kind: "module", text: "blob:1" });
  // Once for each address.
  expect(platform.scriptOf(elsewhere)).toEqual({ kind: "module", text: "blob:1" });
  expect(platform.scriptOf("self.onmessage = null;")).toEqual({ kind: "classic", text: "blob:2" });
  return expect(Promise.all(texts.map((blob) => blob.text()))).resolves.toEqual([
    'import "https://cdn.example/dist/worker.js";',
    "self.onmessage = null;",
  ]);
});

test("where there is no Worker, that is why none starts", () => {
  vi.stubGlobal("Worker", undefined);
  expect(() => platform.scriptOf("self.onmessage = null;")).toThrow("a runtime that has none");
});
