#!/usr/bin/env node
// The command line's process: its streams, its signals, its end. program.ts knows the commands.

import { Exit } from "./failure.js";
import { main } from "./program.js";
import { Terminal } from "./terminal.js";

const interruption = new AbortController();

// The first asks the work to stop where it can; who asks again does not wait.
process.on("SIGINT", () => {
  if (interruption.signal.aborted) process.exit(Exit.interrupted);
  interruption.abort();
});

// A reader that has seen enough, as head has, is no failure.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? Exit.ok : Exit.failed);
  });

// Everything was written by then: what is still open, a pool or a worker, need not be waited for.
process.exit(await main(new Terminal(process, interruption.signal), process.argv.slice(2)));
