// diffattn doctor: which build runs here, which others could, and why it is not faster.

import { arch, cpus, platform, release } from "node:os";
import { variable } from "../environment.js";
import type * as operators from "../types.js";
import { Failure, sentence } from "./failure.js";
import { columns, counted } from "./format.js";
import { type BackendOptions, loadOperators } from "./library.js";
import type { Terminal } from "./terminal.js";

export interface DoctorOptions extends BackendOptions {
  json?: boolean;
}

const OF_CPU: Record<string, readonly operators.Isa[]> = { x64: ["avx512", "avx2"], arm64: ["neon"] };

/** Fastest first within each backend. */
const CANDIDATES: readonly { backend: "native" | "wasm"; isa: operators.Isa }[] = [
  ...([...(OF_CPU[arch()] ?? []), "scalar"] as const).map((isa) => ({ backend: "native" as const, isa })),
  ...(["relaxed-simd+threads", "relaxed-simd", "simd128"] as const).map((isa) => ({ backend: "wasm" as const, isa })),
];

/** A call whose answer is known: two tokens, one head, λ = 1/2 (the README's example). */
const KNOWN = [0.5, 1, 1.1698, 1.6698];

async function isRight({ diffAttention }: typeof operators): Promise<boolean> {
  const q = { data: Float32Array.of(1, 0, 0, 1, 0, 1, 1, 0), shape: [1, 2, 2, 2] };
  const v = { data: Float32Array.of(1, 2, 3, 4), shape: [1, 1, 2, 2] };
  const { data } = await diffAttention(q, q, v, { lambda: 0.5, isCausal: true });
  return KNOWN.every((value, i) => Math.abs((data[i] ?? NaN) - value) < 1e-4);
}

/** Why a build does not run, short where it is the usual reason. */
function reasonOf(backend: "native" | "wasm", error: unknown): string {
  const said = sentence(error);
  // A native binary that does not load says so about the backend.
  if ((error as { code?: string }).code !== "UNAVAILABLE" || !said.startsWith("isa:")) return said;
  return backend === "native" ? "this CPU lacks it" : "this Node lacks it";
}

interface Candidate {
  backend: "native" | "wasm";
  isa: operators.Isa;
  /** null when it runs and computes right. */
  reason: string | null;
}

export async function doctor(terminal: Terminal, options: DoctorOptions): Promise<void> {
  const library = await loadOperators();
  const { backend, isa, threads } = options;
  // First: init keeps the options of the one before. Without options of this command it is what a
  // program gets, by the environment's settings.
  const chosen = await library.init({ backend, isa, threads });
  const right = await isRight(library);
  const candidates: Candidate[] = [];
  for (const candidate of CANDIDATES) {
    if (terminal.signal.aborted) return;
    try {
      await library.init(candidate);
      candidates.push({ ...candidate, reason: (await isRight(library)) ? null : "it computes a wrong answer" });
    } catch (error) {
      candidates.push({ ...candidate, reason: reasonOf(candidate.backend, error) });
    }
  }

  const settings = ["DIFFATTN_BACKEND", "DIFFATTN_ISA", "DIFFATTN_NUM_THREADS", "DIFFATTN_NATIVE"].flatMap((name) => {
    const value = variable(name);
    return value ? [`${name}=${value}`] : [];
  });
  const machine = {
    node: process.version,
    platform: `${platform()} ${release()}, ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
  };
  if (options.json) await terminal.json({ ...chosen, right, machine, settings, builds: candidates }, 2);
  else {
    const rows = [
      ["runs", `${chosen.backend} ${chosen.isa}, ${counted(chosen.threads, "thread")}, version ${chosen.version}`],
      ["answer", right ? "right, in a small known case" : "WRONG, in a small known case"],
      ["Node", `${machine.node} on ${machine.platform}`],
      ["CPU", `${machine.cpu}, ${counted(machine.cores, "core")}`],
      ...(settings.length > 0 ? [["environment", settings.join(", ")]] : []),
      ...(chosen.notes.length > 0 ? chosen.notes : ["nothing: it is the fastest build for this machine"]).map((note, i) => [
        i === 0 ? "why not faster" : "",
        sentence(note),
      ]),
    ];
    for (const line of columns(rows)) await terminal.line(line);
    await terminal.line();
    await terminal.line("builds:");
    for (const line of columns(candidates.map(({ backend, isa, reason }) => [`  ${backend}`, isa, reason ?? "works"])))
      await terminal.line(line);
  }
  const wrong = candidates.filter(({ reason }) => reason === "it computes a wrong answer").map(({ isa }) => isa);
  if (!right || wrong.length > 0) throw new Failure(`wrong answers: ${[...(right ? [] : [chosen.isa]), ...wrong].join(", ")}`);
}
