// What a command was given instead of a checkpoint that it can use, in words, and which command
// fits. Looks only after something failed.

import type { Inspection } from "../models/types.js";
import { isFolder, isThere } from "./checkpoint-output.js";
import { Failure, sentence } from "./failure.js";
import { isOfHub } from "./hub-source.js";

/** What a model reads. */
export type Kind = "text" | "picture" | "audio";

const KINDS: Readonly<Record<string, { kind: Kind; about: string; takers: string }>> = {
  diffllama: {
    kind: "text",
    about: "a DIFF Llama, a language model",
    takers: '"diffattn generate", "diffattn maps" and "diffattn bench"',
  },
  llama: {
    kind: "text",
    about: "a Llama, a language model",
    takers: '"diffattn generate", "diffattn maps" and "diffattn bench"',
  },
  diffattn_llama: {
    kind: "text",
    about: "a Llama with differential heads, a language model",
    takers: '"diffattn generate", "diffattn maps" and "diffattn bench"',
  },
  motif: {
    kind: "text",
    about: "a Motif, a language model",
    takers: '"diffattn generate", "diffattn maps" and "diffattn bench"',
  },
  diff_mlx: {
    kind: "text",
    about: "a model of diff-mlx, a language model",
    takers: '"diffattn generate", "diffattn maps" and "diffattn bench"',
  },
  phi4flash: {
    kind: "text",
    about: "a Phi-4-mini-flash, a language model",
    takers: '"diffattn generate", "diffattn maps" and "diffattn bench"',
  },
  diff_vit: {
    kind: "picture",
    about: "a DIFF vision transformer, which looks at pictures",
    takers: '"diffattn classify" and "diffattn maps"',
  },
  same_s: {
    kind: "audio",
    about: "SAME-S, an audio codec",
    takers: "AudioCodec and inspectCheckpoint of diffattn/models",
  },
};

export const isAddress = (source: string): boolean => /^[a-z][a-z\d+.-]+:/i.test(source);

/** Why a path leads nowhere; undefined when it does not. */
async function absence(source: string): Promise<Failure | undefined> {
  if (isAddress(source) || (await isThere(source))) return undefined;
  return new Failure(`${source}: there is no such file or folder`);
}

/**
 * What is said of a checkpoint that failed: what it is, where the command needs another, and what
 * it takes at all.
 *
 * @param wanted What the command needs; without it any will do.
 */
export async function explained(
  source: string,
  error: unknown,
  wanted: Kind | undefined,
  inspect: () => Promise<Inspection>,
): Promise<unknown> {
  // What else can fail has nothing to do with what was given.
  if ((error as { code?: string }).code !== "FILE") return error;
  const ofHub = await isOfHub(source);
  const absent = ofHub ? undefined : await absence(source);
  if (absent) return absent;
  let known: (typeof KINDS)[string] | undefined;
  try {
    const { architecture } = await inspect();
    known = architecture === null ? undefined : KINDS[architecture];
  } catch {
    // Nothing of it could be read.
    if (ofHub || isAddress(source) || (await isFolder(source))) return error;
    return new Failure(`${sentence(error)} (a checkpoint is a folder, a safetensors or GGUF file, or an address: ${source})`, {
      cause: error,
    });
  }
  if (!known || wanted === undefined || known.kind === wanted) return error;
  return new Failure(`${source}: it is ${known.about}; ${known.takers} take it`, { cause: error });
}
