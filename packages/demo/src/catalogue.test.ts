// What a visitor may name: addresses, names on the hub, files.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { wantedAt, wantedFiles, wantedOf } from "./catalogue.js";

beforeEach(() => {
  vi.stubGlobal("location", { origin: "http://localhost:8788" });
  vi.stubGlobal("document", { baseURI: "http://localhost:8788/below/" });
});
afterEach(() => vi.unstubAllGlobals());

describe("an address", () => {
  test.each([
    ["org/name", "hf:org/name"],
    [" org/name ", "hf:org/name"],
    ["org/name@main/model.gguf", "hf:org/name@main/model.gguf"],
    ["hf:org/name", "hf:org/name"],
    ["https://huggingface.co/org/name", "https://huggingface.co/org/name"],
    ["http://localhost:8788/models/a/", "http://localhost:8788/models/a/"],
  ])("%s", (typed, source) => {
    expect(wantedAt(typed)).toMatchObject({ source, isKept: true, isForeign: true, bytes: undefined });
  });

  test.each([
    "",
    " ",
    "name",
    "http://example.org/a/",
    "http://localhost:1/a/",
    "ftp://a/b",
    "file:///a/b",
    "javascript:alert(1)",
    "a b/c",
    "https://",
  ])("%j is none", (typed) => {
    expect(() => wantedAt(typed)).toThrow(/^address: expected a name on the Hugging Face Hub, .*, got /);
  });
});

test("files are called by their weights", () => {
  const files = [new File(["{}"], "config.json"), new File(["12345"], "model.safetensors")];
  expect(wantedFiles(files)).toMatchObject({ title: "model.safetensors", source: files, bytes: 7, isKept: false });
  expect(wantedFiles(files.slice(0, 1)).source).toBe(files[0]);
  expect(() => wantedFiles([])).toThrow(/^files: expected the files of a model, got none$/);
});

test("a listed model's files are addresses, its adapter's where it is switched on", () => {
  const adapter = { path: "models/b/", files: ["adapter_config.json"], about: "added" };
  const model = { name: "a", title: "A", about: "", path: "models/a/", files: ["a #1.json"], bytes: 2 ** 26, adapter };
  const plain = wantedOf(model, false);
  expect(plain).toMatchObject({ title: "A", isKept: true, isForeign: false });
  expect(String((plain.source as Record<string, URL>)["a #1.json"])).toBe("http://localhost:8788/below/models/a/a%20%231.json");
  expect(plain.adapter).toBeUndefined();
  expect(wantedOf(model, true)).toMatchObject({
    title: "A, healed",
    adapter: { "adapter_config.json": { pathname: "/below/models/b/adapter_config.json" } },
  });
});
