#!/usr/bin/env node
// The command line's process: its streams, its signals, its end. program.ts knows the commands.

import { Exit, fileFailure, sentence } from "./failure.js";
import { main } from "./program.js";
import { Terminal } from "./terminal.js";

const interruption = new AbortController();
const terminal = new Terminal(process, interruption.signal);

// The first asks the work to stop where it can; who asks again does not wait.
process.on("SIGINT", () => {
  if (terminal.interrupted()) return;
  if (interruption.signal.aborted) process.exit(Exit.interrupted);
  interruption.abort();
});

// A reader that has seen enough, as head has, is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(Exit.ok);
  terminal.complain(`diffattn: ${sentence(fileFailure("standard output", error, "written"))}`);
  process.exit(Exit.failed);
});
// What cannot be complained of changes nothing.
process.stderr.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? Exit.ok : Exit.failed));

const code = await main(terminal, process.argv.slice(2));
await terminal.flushed();
// Everything was written by then: what is still open, a pool or a worker, need not be waited for.
process.exit(code);
