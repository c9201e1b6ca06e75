// Names of models on the hub and addresses of its pages: what each is, what is none, what is
// refused.

import { describe, expect, test } from "vitest";
import { barePlaceOf, fileAddress, HUB, hubPlaceOf, isSafePath, listAddress, nameOf } from "./hub-name.js";
import { endpointOf, hubSettings } from "./node-hub-settings.js";
import { refused } from "./refused.testing.js";

const of = (text: string, endpoint = HUB): unknown => {
  const place = hubPlaceOf(text, endpoint);
  return place && [place.repo, place.revision, place.path, place.isFolder];
};

test.each([
  ["hf:org/name", ["org/name", undefined, "", undefined]],
  ["HF:org/name", ["org/name", undefined, "", undefined]],
  ["hf://org/name/", ["org/name", undefined, "", undefined]],
  ["hf://models/org/name@v1", ["org/name", "v1", "", undefined]],
  ["hf:gpt2", ["gpt2", undefined, "", undefined]],
  ["hf:gpt2@main/config.json", ["gpt2", "main", "config.json", false]],
  ["hf:org/name@v1.0", ["org/name", "v1.0", "", undefined]],
  ["hf:org/name@refs/pr/1/a/b.gguf", ["org/name", "refs/pr/1", "a/b.gguf", false]],
  ["hf:org/name@refs%2Fpr%2F1/a", ["org/name", "refs/pr/1", "a", undefined]],
  ["hf:org/name/a/b/", ["org/name", undefined, "a/b", true]],
  ["hf:org/name/a b.gguf", ["org/name", undefined, "a b.gguf", false]],
  ["https://huggingface.co/org/name", ["org/name", undefined, "", undefined]],
  ["https://www.huggingface.co/org/name/", ["org/name", undefined, "", undefined]],
  ["http://hf.co/org/name?x=1#y", ["org/name", undefined, "", undefined]],
  ["https://huggingface.co/gpt2/tree/main", ["gpt2", "main", "", undefined]],
  ["https://huggingface.co/org/name/tree/refs%2Fpr%2F3/sub", ["org/name", "refs/pr/3", "sub", true]],
  ["https://huggingface.co/org/name/blob/main/a%20b.gguf", ["org/name", "main", "a b.gguf", false]],
  ["https://huggingface.co/org/name/resolve/v1/a.gguf?download=true", ["org/name", "v1", "a.gguf", false]],
  ["https://huggingface.co/org/name/resolve/v1/sub/", ["org/name", "v1", "sub", true]],
])("%s", (text, place) => {
  expect(of(text)).toEqual(place);
});

test.each([
  "org/name",
  "./org/name",
  "/org/name",
  "https://example.org/org/name",
  "https://huggingface.co/",
  "https://huggingface.co/datasets/org/name",
  "https://huggingface.co/org/name/discussions/1",
  "https://huggingface.co:8443/org/name",
  "https://user:word@huggingface.co/org/name",
  "https://huggingface.co.example.org/org/name",
  "file:///org/name",
  "http://",
])("no name of the hub: %s", (text) => {
  expect(of(text)).toBeUndefined();
});

test("another hub, with a path before its own", () => {
  const endpoint = "https://mirror.example/hub";
  expect(of("https://mirror.example/hub/org/name/blob/main/a.gguf", endpoint)).toEqual(["org/name", "main", "a.gguf", false]);
  expect(of("https://mirror.example/org/name", endpoint)).toBeUndefined();
  const place = hubPlaceOf("https://huggingface.co/org/name/tree/a%2Fb", endpoint);
  expect(place && fileAddress(place, "a/b", "c d/e#f").href).toBe(`${endpoint}/org/name/resolve/a%2Fb/c%20d/e%23f`);
  expect(place && listAddress(place).href).toBe(`${endpoint}/api/models/org/name/revision/a%2Fb`);
  expect(place && nameOf(place)).toBe("hf:org/name@a/b");
});

test.each([
  "hf:a--b/c",
  "hf:-a/b",
  "hf:a/.b",
  "hf:a//b",
  "hf:@main",
  "hf:spaces/a/b",
  "hf:a/b/../c",
  "hf:a/b@..",
  "https://huggingface.co/a/b/resolve/main/%2e%2e%2f%2e%2e%2fx",
])("refused: %s", async (text) => {
  expect(await refused(() => of(text))).toMatch(/^OPTION (source|revision): expected /);
});

test("what may be a path as well", () => {
  for (const text of ["org/name", "org/name@v1", "org/name@refs/pr/1"])
    expect(barePlaceOf(text, HUB)).toMatchObject({ repo: "org/name", isBare: true });
  for (const text of [
    "name",
    "./name",
    "a/b/c",
    "~/name",
    "a/b.gguf",
    "models/model.safetensors",
    "a\\b",
    "/a/b",
    "a/",
    "../b",
    "a/..",
    "a b/c",
  ])
    expect(barePlaceOf(text, HUB), text).toBeUndefined();
});

test("paths that lead down and nowhere else", () => {
  for (const path of ["a", "a/b.c", "a b", "\u00e4/\u{1f600}", "a.b.c"]) expect(isSafePath(path), path).toBe(true);
  for (const path of [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "...",
    "a\\b",
    "C:a",
    "a\nb",
    "a.",
    "a ",
    `${"a/".repeat(600)}a`,
    "a".repeat(256),
  ])
    expect(isSafePath(path), path).toBe(false);
});

describe("the environment", () => {
  test("where the hub is", async () => {
    expect(endpointOf({})).toBe("https://huggingface.co");
    expect(endpointOf({ HF_ENDPOINT: "https://mirror.example/hub//" })).toBe("https://mirror.example/hub");
    for (const HF_ENDPOINT of ["mirror", "file:///x", "https://u:p@x.example", "https://x.example/?a"])
      expect(await refused(() => endpointOf({ HF_ENDPOINT }))).toMatch(/^OPTION HF_ENDPOINT: expected the address of a hub, got /);
  });
  test("where files are kept", () => {
    const cache = (env: Record<string, string>): string => hubSettings(env).cache;
    expect(cache({ HF_HUB_CACHE: "/a", HF_HOME: "/b" })).toBe("/a");
    expect(cache({ HF_HOME: "/b" })).toBe("/b/hub");
    expect(cache({ XDG_CACHE_HOME: "/c" })).toBe("/c/huggingface/hub");
    expect(cache({ HF_HOME: "$X/${Y}/z", X: "/x", Y: "y" })).toBe("/x/y/z/hub");
    expect(cache({ HF_HOME: "~/z" })).toMatch(/^\/.*\/z\/hub$/);
    expect(cache({})).toMatch(/\.cache\/huggingface\/hub$/);
  });
  test("switches as the hub's tools read them", () => {
    for (const text of ["1", "true", "YES", "On"]) expect(hubSettings({ HF_HUB_OFFLINE: text }).isOffline).toBe(true);
    for (const text of ["", "0", "no", "2"]) expect(hubSettings({ HF_HUB_OFFLINE: text }).isOffline).toBe(false);
    expect(hubSettings({ TRANSFORMERS_OFFLINE: "1", HF_HUB_DISABLE_SYMLINKS: "1", HF_HUB_ETAG_TIMEOUT: "3" })).toMatchObject({
      isOffline: true,
      links: false,
      patience: 3000,
    });
  });
});
