// A subject: our package in Node, through its public door. Its limits are those of WebAssembly in this engine.
//
//   node bench/subjects/diffattn.mjs native|wasm
import { existsSync, readFileSync } from "node:fs";
import * as api from "../../packages/diffattn/dist/node.js";
import { serve } from "./protocol.mjs";
import { handlers } from "./public-door.mjs";
import { fmaPeak, MemoryLimits, rateOf } from "./wasm-limits.mjs";

const [, , backend, limitsPath] = process.argv;
const isWasm = backend === "wasm";
const { version } = JSON.parse(readFileSync(new URL("../../packages/diffattn/package.json", import.meta.url), "utf8"));

/** A build's module with its glue, apart from the package's own instances. */
async function glueOf(isa) {
  const folder = new URL(`../../packages/wasm/${isa === "simd128" ? "pkg-simd" : "pkg-relaxed"}/`, import.meta.url);
  const glue = await import(new URL("diffattn_wasm.js", folder));
  glue.initSync({ module: new WebAssembly.Module(readFileSync(new URL("diffattn_wasm_bg.wasm", folder))) });
  return glue;
}

let peak;
let memory;

async function limit({ what, isa, threads = 1, bytes }) {
  if (!isWasm) throw new Error("the crate's subject measures the native limits");
  if (threads !== 1) throw new Error("limits of WebAssembly in Node are measured on one thread");
  if (what === "fma") {
    if (peak?.isa !== isa) peak = { isa, run: await fmaPeak(await glueOf(isa)) };
    return { perSecond: rateOf([peak.run()]) };
  }
  if (!existsSync(limitsPath)) throw new Error("limits.wat is not assembled");
  memory ??= new MemoryLimits(new WebAssembly.Module(readFileSync(limitsPath)));
  return { perSecond: await memory.perSecond(what, bytes) };
}

serve(
  handlers(api, {
    about: () => ({ name: `diffattn (${backend})`, version, runtime: `Node ${process.versions.node}` }),
    start: (isa, threads) => ({ backend, isa, threads }),
    limit,
    isWasm,
  }),
);
