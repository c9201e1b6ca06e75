// What is said of a worker that does not start. (What it does once it runs: test/suite,
// test/browser.)

import { expect, test } from "vitest";
import type { OwnFiles } from "../own-files.js";
import type { Platform } from "../platform.js";
import type { Port } from "../port.js";
import { WorkerClient } from "./worker-client.js";

const platform = {
  scriptOf: () => ({ kind: "classic", text: "a script" }),
  startWorker: (_script, _onMessage, onError) => {
    queueMicrotask(() => onError("its script did not load"));
    return { post: () => {}, hold: () => {}, terminate: () => {} };
  },
  // Its side on this thread, without a module.
  inThread: () =>
    Promise.resolve((onMessage: (message: unknown) => void): Port => ({
      post: () => onMessage({ type: "started" }),
      hold: () => {},
      terminate: () => {},
    })),
} as Partial<Platform> as Platform;

test.each([
  [new URL("https://page.example/worker.js"), "https://page.example/worker.js: its script did not load"],
  ["self.onmessage = null;", "its script did not load"],
])("a script that does not load is named by its address: %s", async (worker, said) => {
  const files: Partial<OwnFiles> = { worker: () => worker };
  const client = new WorkerClient(platform, files as OwnFiles);
  await client.start("simd128", {}, 1);
  expect(client.noWorker).toBe(said);
});
