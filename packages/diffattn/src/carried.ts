// What the scripts `diffattn/inline`, `diffattn/inline-models` and `diffattn/inline-training`
// carry, and how it comes out of them. The entries do not have this code.

import { inThread } from "./in-thread.js";
import { type Carried, fileOf, inline, type Inflate, leave, ownFiles } from "./own-files.js";
import { BUILDS, type Build, type Part } from "./port.js";

/** Raw bytes of a text in base64. */
function decoded(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < bytes.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

async function inflated(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Leaves files for the entries. */
export function carry({ worker, modules: more }: { worker: string; modules: Readonly<Record<string, string>> }): void {
  const modules = { ...inline()?.modules, ...more };
  const carried = (build: Build, part: Part, inflate: Inflate | undefined): Carried | undefined => {
    const name = fileOf(build, part);
    const text = modules[name];
    if (text === undefined) return undefined;
    return { carried: true, name, bytes: () => inflated(decoded(text)), bytesNow: inflate && (() => inflate(decoded(text))) };
  };
  leave({
    modules,
    files(part, inflate) {
      const files = ownFiles(Object.fromEntries(BUILDS.map((build) => [build, carried(build, part, inflate)])), () => worker);
      return files.builds.length > 0 ? files : undefined;
    },
    inThread,
  });
}
