// What the bench tab and its worker know of each other. Does nothing.

/** What the worker says. Times are seconds, medians so far. */
export type BenchMessage =
  | { error: string }
  | { state: string }
  | { about: string }
  | { done: true }
  | {
      id: string;
      name: string;
      ours: number;
      peer: number;
      call: string;
      form: string;
      values: number;
      difference: number;
      agrees: boolean;
    };

/** The name of a worker that measures on one thread and starts no worker of its own. */
export const SINGLE = "bench-on-one-thread";
