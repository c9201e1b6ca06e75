// A visitor's text as tokens: what was typed and files, each a document, split by the model's own
// tokenizer a little at a time, so that the page stays alive meanwhile. Trains nothing.

import { Tokenizer } from "@huggingface/tokenizers";

/** More than this would be split for minutes, and no step of the page's would come to its end. */
const MOST_BYTES = 4e6;
/** Characters that are split at once: a few milliseconds of a phone. */
const PIECE = 1024;
/** Milliseconds after which other things of the page have their turn. */
const TURN = 5;

/** Other things of the page have their turn. */
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

/** Texts of what was typed and of files, each with what it is called. */
export async function textsOf(typed: string, files: readonly File[]): Promise<string[]> {
  const bytes = files.reduce((sum, { size }) => sum + size, typed.length);
  if (bytes > MOST_BYTES) throw new Error(`text: expected at most ${megabytes(MOST_BYTES)} in all, got ${megabytes(bytes)}`);
  const texts = [typed];
  for (const file of files) {
    const read = await file.arrayBuffer();
    try {
      texts.push(new TextDecoder("utf-8", { fatal: true }).decode(read));
    } catch {
      throw new Error(`${file.name}: expected a text in UTF-8, got something else`);
    }
  }
  const full = texts.filter((text) => text.trim() !== "");
  if (full.length === 0) throw new Error("text: expected some text, typed or of files, got none");
  return full;
}

/** Pieces that end behind a line where they can, else before a space: no word is cut. */
function* piecesOf(text: string): Generator<string> {
  for (let at = 0; at < text.length;) {
    let end = Math.min(at + PIECE, text.length);
    if (end < text.length) {
      const [line, space] = [text.lastIndexOf("\n", end - 1), text.lastIndexOf(" ", end - 1)];
      if (line > at) end = line + 1;
      else if (space > at) end = space;
      // (No half of a pair of surrogates.)
      else if (/[\uD800-\uDBFF]/.test(text.charAt(end - 1))) end -= 1;
    }
    yield text.slice(at, end);
    at = end;
  }
}

/** The ids of each text, by the tokenizer of a `tokenizer.json`. */
export async function idsOf(texts: readonly string[], file: Blob, signal: AbortSignal): Promise<number[][]> {
  const json = JSON.parse(await file.text()) as Record<string, unknown>;
  await turn();
  const tokenizer = new Tokenizer(json, {});
  const documents: number[][] = [];
  // (The first piece is the slowest: nothing of it was ever run.)
  let begun = -Infinity;
  for (const text of texts) {
    const ids: number[] = [];
    for (const piece of piecesOf(text)) {
      if (performance.now() - begun >= TURN) {
        await turn();
        signal.throwIfAborted();
        begun = performance.now();
      }
      for (const id of tokenizer.encode(piece, { add_special_tokens: false }).ids) ids.push(id);
    }
    documents.push(ids);
  }
  return documents;
}
