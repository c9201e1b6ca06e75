// One suite, every backend: each project runs test/suite against one backend, which test/suite reads from these environment
// variables. Which Node runs which project is said in scripts/test.mjs.
import { defineConfig } from "vitest/config";

const backends = {
  native: { DIFFATTN_BACKEND: "native" },
  simd: { DIFFATTN_BACKEND: "wasm", DIFFATTN_ISA: "simd128" },
  relaxed: { DIFFATTN_BACKEND: "wasm", DIFFATTN_ISA: "relaxed-simd" },
  threads: { DIFFATTN_BACKEND: "wasm", DIFFATTN_ISA: "relaxed-simd+threads" },
};

export default defineConfig({
  test: {
    // Processes, not threads: an addon's state, its pools and a crash belong to one test file.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    projects: [
      ...Object.entries(backends).map(([name, env]) => ({
        extends: true as const,
        test: { name, env, include: ["test/suite/**/*.test.ts"] },
      })),
      // The built command line, as a process; it chooses its backend itself.
      { extends: true as const, test: { name: "cli", include: ["test/cli/*.test.ts"] } },
      // The server of the built command line: over plain HTTP, and with the clients that people have, which want a newer Node.
      { extends: true as const, test: { name: "serve", include: ["test/serve/serve.test.ts"] } },
      { extends: true as const, test: { name: "clients", include: ["test/serve/clients.test.ts"] } },
      // What needs no backend: requests, checks and errors of the package alone; what the benchmark computes without measuring; the server of the page, and its words.
      {
        extends: true as const,
        test: {
          name: "unit",
          include: [
            "packages/diffattn/{src,test}/**/*.test.ts",
            "packages/native/*.test.mjs",
            "bench/*.test.mjs",
            "packages/demo/*.test.mjs",
            "packages/demo/src/*.test.ts",
            "scripts/*.test.mjs",
          ],
        },
      },
    ],
  },
});
