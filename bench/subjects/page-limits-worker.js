// One thread of the limit "fma" in a page: told a build it makes an instance of its own, told "run"
// it multiplies and adds once.
import { fmaPeak } from "./wasm-limits.mjs";

let run;

async function start(isa) {
  run = await fmaPeak(await WebAssembly.compileStreaming(fetch(`/.cache/bench-limits/fma-${isa}.wasm`)));
}

onmessage = async ({ data }) => {
  if (data !== "run") await start(data.isa);
  postMessage(data === "run" ? run() : "ready");
};
