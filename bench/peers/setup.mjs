// Installs the libraries that the benchmark compares with: those from npm into this folder, PyTorch,
// transformers and PEFT into .cache/bench-python. Idempotent: what is there already costs nothing. A
// library that cannot be had here is a reason to print, never an error.
//
//   node bench/peers/setup.mjs
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ask, cache, ensureFolder, fingerprint, isMain, onPath, pnpm, run, seconds } from "../../scripts/tools.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const environment = join(cache, "bench-python");
/** The Python that has PyTorch, once it is installed. */
export const python = join(environment, ...(process.platform === "win32" ? ["Scripts", "python.exe"] : ["bin", "python"]));

const say = (text) => console.error(`peers: ${text}`);

/**
 * Makes the peers ready. Returns why those of `javascript` and of `python` (the `needs` of
 * subjects/peers.mjs) cannot run here, undefined where they can.
 */
export function setupPeers() {
  return {
    javascript: once(
      "from npm",
      join(here, "node_modules"),
      ["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml"],
      "",
      installJavaScript,
    ),
    python: once("PyTorch, transformers and PEFT", environment, ["requirements.txt"], systemPython(), installPython),
  };
}

/**
 * Runs `install` unless `folder` was made by it from the same files before. Returns the reason if
 * that is impossible.
 */
function once(what, folder, files, tool, install) {
  const stamp = join(folder, ".diffattn");
  const wanted = fingerprint(
    files.map((name) => join("bench", "peers", name)),
    process.platform,
    process.arch,
    tool,
  );
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return void say(`${what}: present`);
  const start = Date.now();
  say(`${what}: installing`);
  try {
    install();
    writeFileSync(stamp, wanted);
    say(`${what}: installed in ${seconds(start)}`);
  } catch (error) {
    say(`${what}: cannot be had here: ${error.message}`);
    return error.message;
  }
}

function installJavaScript() {
  if (!existsSync(pnpm)) throw new Error("pnpm is missing; node scripts/setup.mjs installs it");
  // onnxruntime-node's script downloads what only a GPU needs; its library for the CPU lies in the
  // package.
  run(pnpm, ["install", "--frozen-lockfile", "--ignore-scripts"], { cwd: here, quiet: true });
}

const systemPython = () => onPath("python3", "python") ?? "";

function installPython() {
  const system = systemPython();
  if (!system) throw new Error("there is no python3");
  rmSync(environment, { recursive: true, force: true });
  run(system, ["-m", "venv", environment], { cwd: ensureFolder(cache), quiet: true });
  const requirements = join(here, "requirements.txt");
  const torch = /^torch==.*$/m.exec(readFileSync(requirements, "utf8"))[0];
  // Modules are compiled when they are imported: of PyTorch's thousands that is a part.
  const pip = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile", "--disable-pip-version-check"];
  // The build for CPUs alone is a tenth of the one on PyPI, which brings CUDA on Linux. Where its
  // index cannot be reached, PyPI's does as well: on the CPU both run the same code.
  const light = ["--index-url", "https://download.pytorch.org/whl/cpu", "--retries", "0", "--timeout", "15", "--no-deps", torch];
  if (process.platform === "linux") spawnSync(python, [...pip, ...light], { stdio: "ignore" });
  run(python, [...pip, "-r", requirements], { quiet: true });
  const version = ask(python, [
    "-c",
    "import torch, numpy, transformers, safetensors, peft; print(torch.__version__, transformers.__version__, peft.__version__)",
  ]);
  if (!version) throw new Error("PyTorch, transformers and PEFT were installed but cannot be imported");
  say(`PyTorch, transformers and PEFT ${version}`);
}

if (isMain(import.meta)) setupPeers();
