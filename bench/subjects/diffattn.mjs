// A subject: our package in Node or Bun, through its public door. Its limits are those of
// WebAssembly in this engine.
//
//   node bench/subjects/diffattn.mjs native
//   node bench/subjects/diffattn.mjs wasm LIMITS      (the folder of the assembled limits-*.wat)
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as api from "../../packages/diffattn/dist/node.js";
import { serve } from "./protocol.mjs";
import { handlers } from "./public-door.mjs";
import { fmaPeak, MemoryLimits, rateOf } from "./wasm-limits.mjs";

const [, , backend, limits] = process.argv;
const isWasm = backend === "wasm";
const runtime = process.versions.bun ? `Bun ${process.versions.bun}` : `Node ${process.versions.node}`;
const { version } = JSON.parse(readFileSync(new URL("../../packages/diffattn/package.json", import.meta.url), "utf8"));

/** A module of the limits. */
function limitsOf(name) {
  const path = join(limits, `${name}.wasm`);
  if (!existsSync(path)) throw new Error(`limits-${name}.wat is not assembled`);
  return new WebAssembly.Module(readFileSync(path));
}

let peak;
let memory;

async function limit({ what, isa, threads = 1, bytes }) {
  if (!isWasm) throw new Error("the crate's subject measures the native limits");
  if (threads !== 1) throw new Error("limits of WebAssembly in Node are measured on one thread");
  if (what === "fma") {
    if (peak?.isa !== isa) peak = { isa, run: await fmaPeak(limitsOf(`fma-${isa}`)) };
    return { perSecond: rateOf([peak.run()]) };
  }
  memory ??= new MemoryLimits(limitsOf("memory"));
  return { perSecond: await memory.perSecond(what, bytes) };
}

serve(
  handlers(api, {
    about: () => ({ name: `diffattn (${backend})`, version, runtime }),
    start: (isa, threads) => ({ backend, isa, threads }),
    limit,
    isWasm,
  }),
);
