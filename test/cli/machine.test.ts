// What the commands say of this machine: doctor and bench.

import { closeSync, existsSync, openSync } from "node:fs";
import { expect, test } from "vitest";
import { diffattn, program, trained } from "./run.js";

interface Doctor {
  backend: string;
  isa: string;
  threads: number;
  notes: string[];
  right: boolean;
  settings: string[];
  builds: { backend: string; isa: string; reason: string | null }[];
}

const doctor = async (args: string[] = [], environment: Record<string, string> = {}): Promise<Doctor> => {
  const { code, out, err } = await diffattn(["doctor", "--json", ...args], { environment });
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return JSON.parse(out) as Doctor;
};

test("doctor names the build that runs, those that could, and why the others do not", async () => {
  const { backend, isa, right, builds, settings } = await doctor();
  expect({ backend, right, settings }).toEqual({ backend: "native", right: true, settings: [] });
  expect(builds.find((build) => build.isa === isa)?.reason).toBe(null);
  for (const name of ["scalar", "simd128"]) expect(builds.find((build) => build.isa === name)?.reason, name).toBe(null);
  for (const { reason } of builds) expect([null, "this CPU lacks it", "this Node lacks it"]).toContain(reason);

  const { code, out } = await diffattn(["doctor"]);
  expect(code).toBe(0);
  expect(out).toMatch(/^runs +native \S+, \d threads?, version \d/m);
  expect(out).toMatch(/^why not faster +\S/m);
});

test("options and the environment's settings count", async () => {
  expect(await doctor(["--isa", "scalar", "--threads", "1"])).toMatchObject({ backend: "native", isa: "scalar", threads: 1 });
  expect(await doctor([], { DIFFATTN_BACKEND: "wasm" })).toMatchObject({ backend: "wasm", settings: ["DIFFATTN_BACKEND=wasm"] });
});

test("a setting that cannot be meant is one sentence", async () => {
  const { code, out, err } = await diffattn(["doctor"], { environment: { DIFFATTN_ISA: "sse" } });
  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(err).toMatch(/^diffattn: DIFFATTN_ISA: expected .*, got "sse"\n$/);
});

test("a native binary that does not load is told, and WebAssembly runs", async () => {
  // Node refuses addons in such a process.
  const { spawnSync } = await import("node:child_process");
  const { status, stdout } = spawnSync(process.execPath, ["--no-addons", program, "doctor"], { encoding: "utf8" });
  expect(status).toBe(0);
  expect(stdout).toMatch(/^runs +wasm simd128/m);
  expect(stdout).toMatch(/^why not faster +the native binary did not load, so WASM runs: \S/m);
});

test("bench checks every answer and times a model", async () => {
  const { code, out, err } = await diffattn(["bench", trained, "--seconds", "0.01", "--json"]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const { results } = JSON.parse(out) as { results: { name: string; rate: number; error: number; unit: string }[] };
  expect(results.map(({ unit }) => unit)).toEqual(["GFLOP/s", "GFLOP/s", "GB/s", "GB/s", "GB/s", "tokens/s", "tokens/s"]);
  for (const { name, rate, error } of results) {
    expect(rate, name).toBeGreaterThan(0);
    expect(error, name).toBeLessThan(2e-5);
  }
});

test("SIGINT ends a measurement with 130", async () => {
  const { spawn } = await import("node:child_process");
  const child = spawn(process.execPath, [program, "bench", "--seconds", "60"], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  setTimeout(() => child.kill("SIGINT"), 1500);
  expect(await ended).toBe(130);
});

test.runIf(existsSync("/dev/full"))("a disk that is full is one sentence and code 1", async () => {
  const { spawnSync } = await import("node:child_process");
  const full = openSync("/dev/full", "w");
  const { status, stderr } = spawnSync(process.execPath, [program, "inspect", trained], {
    stdio: ["ignore", full, "pipe"],
    encoding: "utf8",
  });
  closeSync(full);
  expect({ status, stderr }).toEqual({ status: 1, stderr: "diffattn: standard output: cannot be written: the disk is full\n" });
});
