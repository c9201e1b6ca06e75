// Our own subjects: how each is named and the command of its process. peers.mjs has the others. It
// starts none itself.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cache, newerNode, root, targetDir } from "../../scripts/tools.mjs";

const subject = (name) => fileURLToPath(new URL(name, import.meta.url));
const program = join(targetDir, "release", process.platform === "win32" ? "diffattn-bench.exe" : "diffattn-bench");

/** Where run.mjs puts limits-*.wat, assembled. */
export const limits = join(cache, "bench-limits");

/** The oracle of every answer: float64. */
export const reference = [program, "--reference"];

/** Bun's program: a package of its own for each system, which bench/peers installs. */
function bun() {
  try {
    const own = createRequire(createRequire(join(root, "bench/peers/package.json")).resolve("bun/package.json"));
    for (const name of Object.keys(own("bun/package.json").optionalDependencies)) {
      if (!name.startsWith(`@oven/bun-${process.platform === "win32" ? "windows" : process.platform}`)) continue;
      try {
        return join(dirname(own.resolve(`${name}/package.json`)), "bin", process.platform === "win32" ? "bun.exe" : "bun");
      } catch {
        // Another system's: only one is installed.
      }
    }
  } catch {
    // Not installed.
  }
  return undefined;
}

const newer = () => (existsSync(newerNode) ? undefined : "the newer Node is missing; node scripts/setup.mjs installs it");

/**
 * `missing()` is why a subject cannot run here, undefined where it can. WebAssembly runs in the
 * Node that runs this script, as simd128, and in the newer one, which has relaxed SIMD.
 */
export const ours = [
  { name: "crate", command: [program] },
  { name: "package", command: [process.execPath, subject("diffattn.mjs"), "native"] },
  { name: "wasm-oldest", command: [process.execPath, subject("diffattn.mjs"), "wasm", limits] },
  { name: "wasm-newer", command: [newerNode, subject("diffattn.mjs"), "wasm", limits], missing: newer },
  {
    name: "wasm-bun",
    // (Asked for after the peers' installation, which brings it.)
    get command() {
      return [bun(), subject("diffattn.mjs"), "wasm", limits];
    },
    missing: () => (bun() ? undefined : "Bun is missing; node bench/peers/setup.mjs installs it"),
  },
  { name: "model", command: [process.execPath, "--expose-gc", subject("model.mjs"), "native"] },
  { name: "model-wasm", command: [newerNode, "--expose-gc", subject("model.mjs"), "wasm"], missing: newer },
  { name: "model-page", command: [process.execPath, subject("model-page.mjs")] },
  { name: "page", command: [process.execPath, subject("page.mjs"), "plain", "client"] },
  { name: "page-firefox", command: [process.execPath, subject("page.mjs"), "plain", "client", "firefox"] },
  { name: "page-isolated", command: [process.execPath, subject("page.mjs"), "isolated", "client"] },
  { name: "models-page", command: [process.execPath, subject("page.mjs"), "isolated", "models"] },
];
