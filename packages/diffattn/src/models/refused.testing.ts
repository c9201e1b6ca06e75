// For tests alone: what something is refused with. No part of what is built.

import type { DiffAttnError } from "../errors.js";

/** The code and the sentence that `body` is refused with. */
export async function refused(body: () => unknown): Promise<string> {
  try {
    await body();
  } catch (error) {
    const { code, message } = error as DiffAttnError;
    return `${code} ${message}`;
  }
  throw new Error("expected an error, got a result");
}
