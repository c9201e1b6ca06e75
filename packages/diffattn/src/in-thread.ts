// What stands in a worker's place where none is to be had: its side of the work, on the caller's
// own thread, a slice at a time. No threads.

import type { ToWorker } from "./backend/messages.js";
import type { Port } from "./port.js";
import { WorkerSide } from "./worker-side.js";

/** A worker that is none. What it was asked before its end goes on, unheard. */
export function inThread(onMessage: (message: unknown) => void): Port {
  let ended = false;
  const side = new WorkerSide((message) => {
    if (!ended) onMessage(message);
  });
  return {
    post: (message) => side.take(message as ToWorker),
    // A turn of the event loop that is due holds the process by itself.
    hold: () => {},
    terminate: () => (ended = true),
  };
}
