// One thread of the limit "fma" in a page: told a build it makes an instance of its own, told "run" it multiplies and adds once.
import { fmaPeak } from "./wasm-limits.mjs";

let run;

async function start(isa) {
  const folder = `/packages/wasm/${isa === "simd128" ? "pkg-simd" : "pkg-relaxed"}/`;
  const glue = await import(`${folder}diffattn_wasm.js`);
  await glue.default({ module_or_path: `${folder}diffattn_wasm_bg.wasm` });
  run = await fmaPeak(glue);
}

onmessage = async ({ data }) => {
  if (data !== "run") await start(data.isa);
  postMessage(data === "run" ? run() : "ready");
};
