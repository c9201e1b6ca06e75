// The peers that `run.mjs` starts: how each is named, what it needs and the command of its process.
// It starts none itself.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { newerNode } from "../../scripts/tools.mjs";
import { python } from "../peers/setup.mjs";

const subject = (name) => fileURLToPath(new URL(name, import.meta.url));
// WebAssembly is measured in the newer Node, as ours is: the older one has no relaxed SIMD.
const newer = existsSync(newerNode) ? newerNode : process.execPath;

/**
 * `kind` says what of ours a peer is compared with; `needs` is the key of setupPeers() that can
 * name a reason why it cannot run. `command(more)` is the program and its arguments, the given ones
 * last.
 */
export const peers = [
  {
    name: "onnxruntime-node",
    kind: "native",
    needs: "javascript",
    command: (more = []) => [process.execPath, subject("onnxruntime.mjs"), "node", ...more],
  },
  {
    name: "onnxruntime-web",
    kind: "wasm",
    needs: "javascript",
    command: (more = []) => [newer, subject("onnxruntime.mjs"), "web", ...more],
  },
  { name: "tfjs-backend-wasm", kind: "wasm", needs: "javascript", command: (more = []) => [newer, subject("tfjs.mjs"), ...more] },
  { name: "jax-js", kind: "wasm", needs: "javascript", command: (more = []) => [newer, subject("jax.mjs"), ...more] },
  {
    name: "transformers",
    kind: "model",
    needs: "python",
    command: (more = []) => [python, subject("transformers_cpu.py"), ...more],
  },
  { name: "llama.cpp", kind: "gguf", needs: "javascript", command: (more = []) => [process.execPath, subject("llama-cpp.mjs"), ...more] },
  {
    name: "wllama",
    kind: "gguf page",
    needs: "javascript",
    command: (more = []) => [process.execPath, subject("page.mjs"), "isolated", "wllama", ...more],
  },
  { name: "pytorch-cpu", kind: "native", needs: "python", command: (more = []) => [python, subject("torch_cpu.py"), ...more] },
];
