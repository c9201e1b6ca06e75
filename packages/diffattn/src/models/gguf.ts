// GGUF files, whose header says what otherwise lies in a folder beside the weights: read and put in
// those words in Rust. Reads no tensor but the factors of a rotary embedding.

import { encode } from "../encode.js";
import { internal } from "../errors.js";
import { run } from "./backend.js";
import type { ByteSource, Entry, Opening, Reading } from "./byte-source.js";
import { type Folder, openFile } from "./folder.js";
import { grow } from "./headers.js";
import { bufferOf, jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import type { TokenizerFiles } from "./types.js";

/** What a GGUF file says, as the files of a folder do. */
export interface GgufTexts {
  readonly config: Uint8Array<ArrayBuffer>;
  readonly generation: Uint8Array<ArrayBuffer>;
  /** The template that makes a prompt of messages, where it has one. */
  readonly chatTemplate: string | undefined;
  /** Its tokenizer; undefined where it has none. FILE for one that is not read. */
  tokenizer(signal: AbortSignal | undefined): Promise<TokenizerFiles | undefined>;
}

const ENDING = ".gguf";

/** Whether the weights are of a GGUF file, by its name. */
export const isNamedGguf = ({ names, only }: Folder): boolean => {
  if (only !== undefined) return only.endsWith(ENDING);
  return names !== undefined && names.some((name) => name.endsWith(ENDING)) && !names.some((name) => name.includes(".safetensors"));
};

/** Whether they may be, by their first bytes. */
export const mayBeGguf = (folder: Folder): boolean =>
  isNamedGguf(folder) || (folder.only !== undefined && !/\.(safetensors|json)$/.test(folder.only));

/** Whether these files are. (One that is called otherwise is refused as what it is called.) */
export function isGguf([source]: readonly ByteSource[], [first]: readonly Uint8Array[]): boolean {
  if (!source || !first) return false;
  const magic = String.fromCharCode(...first.subarray(0, 4));
  return source.name.endsWith(ENDING) || (magic === "GGUF" && !source.name.endsWith(".safetensors"));
}

/** Opens the other files of the model that the first is of, by its name, and puts them in order. */
export async function openSplits(folder: Folder, sources: ByteSource[], opening: Opening): Promise<void> {
  const [first] = sources;
  if (!first?.name.endsWith(ENDING)) return;
  const [names] = await run(encode(requests.ggufFiles, { file: first.name }), { signal: opening.signal });
  const files = jsonOf(names) as string[];
  for (const name of files) if (name !== first.name) sources.push(await openFile(folder, name, opening));
  const place = ({ name }: ByteSource): number => files.indexOf(name);
  sources.sort((a, b) => place(a) - place(b));
}

/** What a file's header says of its tensors and of itself. */
interface Told {
  readonly tensors: Entry[];
  readonly metadata: Record<string, string>;
  readonly chatTemplate?: string | undefined;
}

const bytesOf = (output: Parameters<typeof bufferOf>[0]): Uint8Array<ArrayBuffer> => new Uint8Array(bufferOf(output));

/** Reads the headers of a model's files; `firsts`: what they begin with. */
export async function readGguf(
  sources: readonly ByteSource[],
  firsts: Uint8Array[],
  maxTensors: number | undefined,
  reading: Reading,
): Promise<{ entries: Entry[]; metadata: Record<string, string>; texts: GgufTexts }> {
  const { signal } = reading;
  const files = (): { file: string; length: number; first: Uint8Array }[] =>
    sources.map(({ name, length }, i) => ({ file: name, length, first: firsts[i] ?? new Uint8Array() }));
  let factors: Uint8Array | undefined;
  for (;;) {
    const [about, config, generation] = await run(encode(requests.gguf, { files: files(), factors, maxTensors }), { signal });
    const told = jsonOf(about) as { need: number[] } | { factors: Entry } | Told;
    if ("need" in told) {
      await grow(sources, firsts, told.need, reading);
    } else if ("factors" in told) {
      const { file, range } = told.factors;
      const source = sources.find(({ name }) => name === file);
      if (!source || factors) throw internal("factors that are not read");
      factors = await source.read(...range, reading);
    } else {
      const tokenizer = async (signal: AbortSignal | undefined): Promise<TokenizerFiles | undefined> => {
        const [json, config] = await run(encode(requests.ggufTokenizer, { files: files(), maxTensors }), { signal });
        const read = { json: bytesOf(json), config: bytesOf(config) };
        return read.json.byteLength > 0 ? read : undefined;
      };
      const { chatTemplate } = told;
      const texts = { config: bytesOf(config), generation: bytesOf(generation), chatTemplate, tokenizer };
      return { entries: told.tensors, metadata: told.metadata, texts };
    }
  }
}
