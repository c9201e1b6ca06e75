// Where checkpoints are written: a folder of this machine, in which one appears whole or not at
// all, or whatever takes files by their names. Knows no format.

import { has, isAbsent, show, tagOf } from "../check.js";
import { fail } from "../errors.js";
import { type Output, outputOf, writeFile } from "../models/folder-output.js";
import { type Files, modelsPlatform } from "../models/platform.js";
import type { TrainOutput } from "./types.js";

/** The file that names the last checkpoint. */
export const LATEST = "latest";
const STEP = /^step-\d{6,}$/;

/** A checkpoint on its way. */
export interface Begun {
  readonly output: Output;
  /** Lets it appear, and what is older than the `keep` last ones go. */
  end(keep: number): Promise<void>;
}

export interface Place {
  begin(name: string): Promise<Begun>;
  /** A file beside the checkpoints. */
  write(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** The folder of the last checkpoint; undefined where there is none, or none can be read. */
  latest(): Promise<string | undefined>;
}

/** A folder: a checkpoint is written beside its place, and renamed. */
function inFolder(folder: string | URL, files: Files): Place {
  const write = async (name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> => writeFile(await outputOf(folder), name, bytes);
  return {
    async begin(name) {
      const path = await files.within(folder, name);
      const part = `${path}.part`;
      // (What one that was killed left behind.)
      await files.remove(part);
      const output = await outputOf(part);
      return {
        output,
        async end(keep) {
          await files.remove(path);
          await files.rename(part, path);
          await write(LATEST, new TextEncoder().encode(`${name}\n`));
          const all = ((await files.list(folder)) ?? [])
            .filter((one) => STEP.test(one))
            .sort((a, b) => Number(a.slice(5)) - Number(b.slice(5)));
          for (const old of all.slice(0, -keep)) if (old !== name) await files.remove(await files.within(folder, old));
        },
      };
    },
    write,
    async latest() {
      const source = await files.open(folder, LATEST);
      if (!source) return undefined;
      try {
        const name = new TextDecoder().decode(await source.read(0, Math.min(source.length, 64), {})).trim();
        // (It names a folder in this one, whoever wrote it.)
        return STEP.test(name) ? await files.within(folder, name) : fail("FILE", LATEST, "the name of a checkpoint", show(name));
      } finally {
        source.close();
      }
    },
  };
}

/** What takes files by their names. */
function byNames(out: { write(name: string, bytes: Uint8Array<ArrayBuffer>): unknown }): Place {
  const write = async (name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> => {
    await out.write(name, bytes);
  };
  return {
    async begin(name) {
      const memory = await outputOf(undefined);
      return {
        output: memory,
        async end() {
          for (const [file, bytes] of Object.entries(memory.files ?? {})) await write(`${name}/${file}`, bytes);
          await write(LATEST, new TextEncoder().encode(`${name}\n`));
        },
      };
    },
    write,
    latest: () => Promise.resolve(undefined),
  };
}

/** Refuses what is neither. */
export function placeOf(out: TrainOutput): Place {
  const isPath = typeof out === "string" ? out !== "" : tagOf(out) === "URL";
  const { files } = modelsPlatform();
  if (isPath && files) return inFolder(out as string | URL, files);
  const isWriter = !isPath && !isAbsent(out) && has(out, "write") && typeof out.write === "function";
  if (isWriter) return byNames(out);
  return fail("OPTION", "out", files ? "the path of a folder, or { write(name, bytes) }" : "{ write(name, bytes) } in browsers", show(out));
}
