// The model in use: loads one at a time, the last that was asked for, and disposes of the one
// before. Knows no element of the page.

import { inspectCheckpoint, LanguageModel, type WeightFormat } from "diffattn/models";
import { LARGE_BYTES, type Wanted } from "./catalogue.js";

/** Parameters from which on floats become codes of four bits. */
const LARGE_PARAMETERS = 100_000_000;
/** The name of what is kept in the browser's Cache Storage. */
const KEPT = "diffattn-models";

/** Bits of a weight, its share of a scale included. */
const BITS: Readonly<Record<WeightFormat, number>> = { float32: 32, float16: 16, bfloat16: 16, q8: 8.5, q4: 4.5 };

/** A model that is loaded. */
export interface InUse {
  readonly model: LanguageModel;
  readonly wanted: Wanted;
  /** Bytes that its weights take, about. */
  readonly bytes: number;
}

/** Who is told of a load. */
export interface LoadListener {
  begins(wanted: Wanted): void;
  progress(done: number, total: number): void;
  /** Another model is in use; the one before, where there was one, is gone once this returns. */
  ends(inUse: InUse, isFirst: boolean): void;
  fails(wanted: Wanted, error: unknown): void;
}

/**
 * Bytes of weights in memory: of the file where they stay as they are in it; where they were
 * quantised, of its linear maps and of its embeddings, which then have eight bits.
 */
function bytesOf({ parameters, dtype, config }: LanguageModel, quantised: boolean, inFile: number): number {
  if (!quantised && inFile > 0) return inFile;
  const tables = config["tie_word_embeddings"] === true ? 1 : 2;
  const embeddings = Math.min(parameters, tables * Number(config["vocab_size"] ?? 0) * Number(config["hidden_size"] ?? 0));
  const rest = ((parameters - embeddings) * BITS[dtype]) / 8;
  return rest + (embeddings * BITS[dtype === "q4" ? "q8" : dtype]) / 8;
}

export class Loader {
  #inUse: InUse | undefined;
  #loading: AbortController | undefined;
  /** What is loaded or under way; a rejection was told to the listener. */
  #last: Promise<InUse> | undefined;

  constructor(readonly listener: LoadListener) {}

  /** The model in use, once one is; while the first one loads it is waited for. */
  async ready(): Promise<InUse> {
    for (;;) {
      if (this.#inUse) return this.#inUse;
      const last = this.#last;
      if (!last) throw new Error("there is no model: choose one above");
      const [inUse] = await Promise.allSettled([last]);
      // Another one was chosen meanwhile.
      if (this.#last !== last) continue;
      if (inUse.status === "fulfilled") return inUse.value;
      throw inUse.reason;
    }
  }

  /** Loads a model in the place of the one in use, which stays until it is there. */
  load(wanted: Wanted): void {
    this.#loading?.abort();
    const mine = (this.#loading = new AbortController());
    const { listener } = this;
    listener.begins(wanted);
    const last = (this.#last = this.#load(wanted, mine.signal));
    last.then(
      (inUse) => {
        // It may have ended in the moment in which another was chosen.
        if (this.#loading !== mine) {
          inUse.model.dispose();
          return;
        }
        const before = this.#inUse;
        this.#inUse = inUse;
        listener.ends(inUse, before === undefined);
        before?.model.dispose();
      },
      (error: unknown) => {
        if (this.#loading === mine) listener.fails(wanted, error);
      },
    );
  }

  async #load(wanted: Wanted, signal: AbortSignal): Promise<InUse> {
    const { source, adapter, isKept, isForeign } = wanted;
    let inFile = 0;
    const onProgress = ({ done, total }: { done: number; total: number }): void => {
      inFile = total;
      if (!signal.aborted) this.listener.progress(done, total);
    };
    const options = { signal, onProgress, ...(isKept && { cache: KEPT }) };
    const isLarge = await largeOf(wanted, options);
    const model = await LanguageModel.load(source, {
      ...options,
      ...(adapter && { adapter }),
      // (What is quantised already stays as it is.)
      ...(isLarge && { dtype: "q4" as const }),
      // A stranger's expression may take for ever.
      tokenizerRegex: isForeign ? "known" : "any",
    });
    const isCodes = model.dtype === "q4" || model.dtype === "q8";
    const quantised = isLarge && isCodes && inFile * 8 > 9 * model.parameters;
    return { model, wanted, bytes: bytesOf(model, quantised, inFile) };
  }
}

/** Whether a model's floats are to be quantised. */
async function largeOf({ source, bytes }: Wanted, options: Parameters<typeof inspectCheckpoint>[1]): Promise<boolean> {
  if (bytes !== undefined) return bytes > LARGE_BYTES;
  return (await inspectCheckpoint(source, options)).parameters > LARGE_PARAMETERS;
}

/** Opens the browser's store meanwhile: the first time takes it a while. */
export function prepare(): void {
  // Insecure pages have no such store.
  if ("caches" in globalThis) caches.open(KEPT).catch(() => {});
}

/** Forgets what was kept of the page's own server and is no longer there. */
export async function forgetOld(addresses: ReadonlySet<string>): Promise<void> {
  if (!("caches" in globalThis) || !(await caches.has(KEPT))) return;
  const store = await caches.open(KEPT);
  for (const { url } of await store.keys())
    if (url.startsWith(new URL("models/", document.baseURI).href) && !addresses.has(url)) await store.delete(url);
}
