// The built server as a process, on a port of its own choice unless one is named. Ends nothing: who
// starts it stops it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("../../packages/diffattn/dist/cli.js", import.meta.url));

/** Serves a model once it listens: the process, and its address. */
export async function startServer(model, args = [], port = 0) {
  const all = [program, "serve", model, "--port", String(port), ...args];
  const child = spawn(process.execPath, all, { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  return { child, address: line.split(" ")[0] };
}
