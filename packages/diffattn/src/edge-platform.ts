// What runtimes at a network's edge do for a backend: they compile no module, so those come
// compiled with the script; there is no worker and no file. Importing it does nothing.

import { fail } from "./errors.js";
import { inThread } from "./in-thread.js";
import { compile } from "./module.js";
import { ownFiles, type OwnFiles } from "./own-files.js";
import type { Platform } from "./platform.js";
import { type Build, NO_THREADS } from "./port.js";

/** The files of an entry that carries compiled modules. */
export const edgeFiles = (modules: Partial<Record<Build, WebAssembly.Module>>): OwnFiles =>
  ownFiles(modules, () => fail("UNAVAILABLE", "worker", "a runtime that has workers", "none"));

const none = (): never => {
  throw new Error("a runtime that has none");
};

export const edgePlatform = (files: OwnFiles): Platform => ({
  part: "operators",
  files,
  filesOf: (part) =>
    fail("UNAVAILABLE", "wasm", "a runtime that compiles modules", `one that takes them with its script, which has none of ${part}`),
  blocking: true,
  read: none,
  loadModule: compile,
  scriptOf: none,
  startWorker: none,
  inThread: () => Promise.resolve(inThread),
  noPool: NO_THREADS,
  threads: 1,
});
