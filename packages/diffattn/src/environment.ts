// Variables of the environment, in Node and what is like it.

import type { Settings } from "./platform.js";
import { BUILDS, type Build } from "./port.js";
import { BACKENDS, choice, ISAS, threadCount } from "./settings.js";

/** A variable's value; one that is empty or may not be read (Deno's permissions) is not set. */
export function variable(name: string): string | undefined {
  try {
    return process.env[name] || undefined;
  } catch {
    return undefined;
  }
}

/** What options leave open is as the environment says. */
export function settings(given: Settings): Settings {
  const isa = given.isa ?? choice("DIFFATTN_ISA", variable("DIFFATTN_ISA"), ISAS);
  const text = variable("DIFFATTN_NUM_THREADS");
  // A text that is no number stays a text, for the error to show.
  const number = text && /^\d+$/.test(text) ? Number(text) : text;
  const threads = given.threads ?? threadCount("DIFFATTN_NUM_THREADS", number);
  const ofIsa = BUILDS.includes(isa as Build) ? "wasm" : undefined;
  const asked = given.backend ?? (given.isa ? ofIsa : undefined);
  const backend = asked ?? choice("DIFFATTN_BACKEND", variable("DIFFATTN_BACKEND"), BACKENDS) ?? ofIsa;
  return { backend, isa, threads };
}
