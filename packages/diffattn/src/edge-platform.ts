// What runtimes at a network's edge do for a backend: they compile no module, so those come compiled with the script; there is no worker and no
// file. Importing it does nothing.

import { fail } from "./errors.js";
import { compile, compileSync } from "./module.js";
import type { OwnFiles } from "./own-files.js";
import { BUILDS, type Build, type Platform } from "./platform.js";

type Modules = Partial<Record<Build, WebAssembly.Module>>;

/** The files of an entry that carries compiled modules. */
export function edgeFiles(modules: Modules): OwnFiles {
  const builds = BUILDS.filter((build) => modules[build] !== undefined);
  return {
    builds,
    module: (build) => modules[build] ?? fail("UNAVAILABLE", "wasm", `a module of ${builds.join(", ")}`, build),
    worker: () => fail("UNAVAILABLE", "worker", "a runtime that has workers", "none"),
  };
}

const none = (): never => {
  throw new Error("a runtime that has none");
};

export const edgePlatform = (files: OwnFiles): Platform => ({
  models: false,
  env: () => undefined,
  files,
  blocking: true,
  readModule: (file) => compileSync(file, none),
  loadModule: compile,
  scriptOf: none,
  startWorker: none,
  noPool: "this runtime has no Worker, so calls run on one thread",
  threads: 1,
});
