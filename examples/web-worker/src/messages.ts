// What page and worker say to each other. Types alone: no code.

export type ToWorker =
  { type: "load"; source: string } | { type: "write"; id: number; prompt: string; maxNewTokens: number } | { type: "stop"; id: number };

/** `id` is the one of the `write` that it answers. */
export type FromWorker =
  | { type: "progress"; done: number; total: number }
  | { type: "ready" }
  | { type: "failed"; message: string }
  | { type: "text"; id: number; text: string }
  | { type: "end"; id: number; error: string | null };
