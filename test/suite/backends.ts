// The public package as it is built, and the instruction sets that a project of vitest.config.ts
// runs it on. What should load and does not is a failure: nothing is skipped.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { afterAll, beforeAll, describe, expect } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as trainingTypes from "../../packages/diffattn/src/training/types.js";
import type * as types from "../../packages/diffattn/src/types.js";

export type Api = typeof types;

/** Required, so that Node itself loads it and vitest does not transform it. */
export const api = createRequire(import.meta.url)("../../packages/diffattn/dist/node.js") as Api;

export type Models = typeof modelTypes;

export const models = createRequire(import.meta.url)("../../packages/diffattn/dist/models-node.js") as Models;

export const training = createRequire(import.meta.url)("../../packages/diffattn/dist/training-node.js") as typeof trainingTypes;

/** What the project's environment variables choose. */
export const backend = process.env["DIFFATTN_BACKEND"] as "native" | "wasm";
export const isNative = backend === "native";

/** The instruction sets of this processor that the addon must have. */
function nativeIsas(): types.Isa[] {
  if (process.arch === "arm64") return ["scalar", "neon"];
  if (process.arch !== "x64") return ["scalar"];
  let flags = "avx2 fma";
  try {
    flags = readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    // Not Linux: what every x86-64 machine of the last ten years has.
  }
  const has = (...names: string[]): boolean => names.every((name) => new RegExp(`\\b${name}\\b`).test(flags));
  return [
    "scalar",
    ...(has("avx2", "fma") ? ["avx2" as const] : []),
    ...(has("avx512f", "avx512bw", "avx512dq", "avx512vl") ? ["avx512" as const] : []),
  ];
}

export const isas: types.Isa[] = isNative ? nativeIsas() : [process.env["DIFFATTN_ISA"] as types.Isa];

/** A block of tests per instruction set, each on a backend that runs it. */
export function onEachIsa(body: (isa: types.Isa) => void): void {
  describe.each(isas)("%s", (isa) => {
    beforeAll(async () => {
      const info = await api.init({ backend, isa });
      expect(info).toMatchObject({ backend, isa });
    });
    afterAll(() => api.dispose());
    body(isa);
  });
}

/** A call that is expected to be refused. */
export async function refused(body: () => unknown): Promise<types.DiffAttnError> {
  try {
    await body();
  } catch (error) {
    expect(error).toBeInstanceOf(api.DiffAttnError);
    return error as types.DiffAttnError;
  }
  throw new Error("expected an error, got a result");
}

/** A call that takes long enough to be caught at work: about a second on one slow core. */
export const LONG = { H: 8, Lq: 2048, d: 64 };
