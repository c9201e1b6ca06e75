// Files of tokens out of memory: what they hold, and what is refused before anything is made of it.

import { expect, test } from "vitest";
import { MemorySource } from "./source.js";
import { DocumentStarts, TokenFile } from "./token-file.js";

interface Said {
  magic?: string;
  version?: number;
  width?: number;
  tokens?: bigint;
  documents?: bigint;
}

/** A file of tokens; `said` is what its header says instead. */
function fileOf(ids: readonly number[], starts: readonly number[], said: Said = {}): Uint8Array<ArrayBuffer> {
  const { magic = "DATK", version = 1, width = 2, tokens = BigInt(ids.length), documents = BigInt(starts.length) } = said;
  const size = width === 4 ? 4 : 2;
  const bytes = new Uint8Array(32 + size * ids.length + 8 * starts.length);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(magic));
  view.setUint32(4, version, true);
  view.setUint32(8, width, true);
  view.setBigUint64(16, tokens, true);
  view.setBigUint64(24, documents, true);
  ids.forEach((id, i) => (size === 2 ? view.setUint16(32 + 2 * i, id, true) : view.setUint32(32 + 4 * i, id, true)));
  starts.forEach((start, i) => view.setBigUint64(32 + size * ids.length + 8 * i, BigInt(start), true));
  return bytes;
}

const open = (bytes: Uint8Array): Promise<TokenFile> => TokenFile.open(new MemorySource("a.tokens", bytes), {});

const sentence = async (body: Promise<unknown>): Promise<string> => {
  try {
    await body;
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return `${code} ${message}`;
  }
  throw new Error("expected an error, got a result");
};

test.each([2, 4])("ids of %i bytes, from anywhere in memory", async (width) => {
  const ids = [1, 0, 65_535, 7, width === 4 ? 70_000 : 3];
  const file = await open(fileOf(ids, [0, 3], { width }));
  expect([file.tokens, file.documents]).toEqual([5, 2]);
  expect([...(await file.ids(0, 5, {}))]).toEqual(ids);
  expect([...(await file.ids(2, 4, {}))]).toEqual([65_535, 7]);
  expect([...(await file.ids(5, 5, {}))]).toEqual([]);
  const odd = new Uint8Array(1 + fileOf(ids, [0], { width }).length);
  odd.set(fileOf(ids, [0], { width }), 1);
  expect([...(await (await open(odd.subarray(1))).ids(0, 5, {}))]).toEqual(ids);
});

test("a file without tokens has no documents", async () => {
  const file = await open(fileOf([], []));
  expect(await new DocumentStarts(file).before(10, {})).toEqual([]);
});

test.each([
  ["less than a header", new Uint8Array(31), "FILE a.tokens: expected a file of tokens, 32 bytes or more, got 31 bytes"],
  ["another magic", fileOf([1], [0], { magic: "GGUF" }), "FILE a.tokens: expected a file of tokens, which begins with DATK, got another"],
  ["another version", fileOf([1], [0], { version: 2 }), "FILE a.tokens: expected version 1 of files of tokens, got 2"],
  ["ids of 8 bytes", fileOf([1], [0], { width: 8 }), "FILE a.tokens: expected ids of 2 or 4 bytes, got 8"],
  ["ids of no bytes", fileOf([1], [0], { width: 0 }), "FILE a.tokens: expected ids of 2 or 4 bytes, got 0"],
  ["more tokens", fileOf([1], [0], { tokens: 2n }), "FILE a.tokens: expected 2 tokens of 2 bytes and 1 documents, got 42 bytes"],
  ["fewer tokens", fileOf([1, 2], [0], { tokens: 1n }), "FILE a.tokens: expected 1 tokens of 2 bytes and 1 documents, got 44 bytes"],
  [
    "2⁶⁴ − 1 tokens",
    fileOf([1], [0], { tokens: 2n ** 64n - 1n }),
    /^FILE a\.tokens: expected 18446744073709552000 tokens .* got 42 bytes$/,
  ],
  ["2⁶³ tokens, which overflow", fileOf([1], [0], { tokens: 2n ** 63n }), /^FILE a\.tokens: expected 9223372036854776000 tokens /],
  [
    "2⁶¹ documents, which overflow",
    fileOf([1], [0], { documents: 2n ** 61n }),
    /^FILE a\.tokens: expected 1 tokens .* documents, got 42 bytes$/,
  ],
  ["no document", fileOf([1], []), "FILE a.tokens: expected one document or more, got none"],
])("%s", async (_, bytes, expected) => {
  expect(await sentence(open(bytes))).toMatch(expected);
});

test("where documents begin, as far as is asked, each once", async () => {
  const starts = new DocumentStarts(await open(fileOf([1, 2, 3, 4, 5, 6], [0, 1, 4])));
  expect(await starts.before(1, {})).toEqual([0]);
  expect(await starts.before(1, {})).toEqual([]);
  expect(await starts.before(6, {})).toEqual([1, 4]);
  expect(await starts.before(6, {})).toEqual([]);
});

test("many documents, which are read part by part", async () => {
  const ids = Array.from({ length: 20_000 }, () => 1);
  const starts = new DocumentStarts(
    await open(
      fileOf(
        ids,
        Array.from({ length: 20_000 }, (_, i) => i),
      ),
    ),
  );
  expect(await starts.before(9000, {})).toHaveLength(9000);
  expect(await starts.before(20_000, {})).toHaveLength(11_000);
});

test.each([
  ["the first is not at 0", [1, 2]],
  ["two at one place", [0, 1, 1]],
  ["one before another", [0, 2, 1]],
  ["one behind the last token", [0, 3]],
  ["one at 2⁵³", [0, 2 ** 53]],
])("documents: %s", async (_, starts) => {
  const documents = new DocumentStarts(await open(fileOf([1, 2, 3], starts)));
  expect(await sentence(documents.before(3, {}))).toMatch(
    /^FILE a\.tokens: expected documents that begin at token 0 and one behind the other, got one at \d+$/,
  );
});
