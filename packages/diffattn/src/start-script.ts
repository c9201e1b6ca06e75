// How a script (platform.ts) is started: the same by the local side, for the worker, and by the
// worker, for the threads of its pool.

import type { Script } from "./port.js";

/** As a Web Worker, under a name. */
export const startWeb = ({ kind, text }: Script, name: string): Worker =>
  new Worker(text, { type: kind === "module" ? "module" : "classic", name });

/** What a worker says of an error; of a script that does not load there is no message. */
export const saidOf = (event: ErrorEvent): string => event.message || "its script did not load";

/**
 * What Node's `Worker` takes of it. The caller's own loaders and flags are none of its business.
 */
export const forNode = ({ kind, text }: Script): [script: string | URL, options: { execArgv: string[]; eval: boolean }] => {
  const isText = kind === "text";
  return [isText ? text : new URL(text), { execArgv: [], eval: isText }];
};
