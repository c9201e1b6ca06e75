import { afterEach, expect, test, vi } from "vitest";
import { platform } from "./browser-platform.js";

afterEach(() => vi.unstubAllGlobals());

test("where a script has no address, what is wanted is a module of the caller's", async () => {
  // As in Cloudflare's workers.
  vi.stubGlobal("URL", function URL() {
    throw new TypeError("Invalid URL string.");
  });
  const sentence = expect.objectContaining({
    code: "UNAVAILABLE",
    message: "wasm: expected a module of the caller's, init({ wasm }), where scripts have no address, got none",
  }) as Error;
  await expect(platform.loadModule("simd128")).rejects.toThrow(sentence);
  expect(() => platform.readModule("simd128")).toThrow(sentence);
  // Minimal, and given: no address is wanted.
  expect(await platform.loadModule("simd128", Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0))).toBeInstanceOf(WebAssembly.Module);
});
