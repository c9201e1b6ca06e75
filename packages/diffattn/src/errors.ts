// The one error class and the one sentence form. Knows no operator.

import type { ErrorCode } from "./types.js";

/**
 * What errors of this package have, whichever of its files made them: an entry that stands alone
 * has a class of its own.
 */
export const MARK: unique symbol = Symbol.for("diffattn.DiffAttnError");

export class DiffAttnError extends Error {
  /**
   * By the mark, so that it holds between entries; a class that extends this one is asked as any
   * other.
   */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (this !== DiffAttnError) return Function.prototype[Symbol.hasInstance].call(this, value);
    return typeof value === "object" && value !== null && MARK in value;
  }

  get [MARK](): true {
    return true;
  }

  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.name = code === "ABORTED" ? "AbortError" : "DiffAttnError";
  }
}

/** Characters of what a caller or a file says that a sentence repeats at most. */
export const SHOWN = 300;
/**
 * Characters of a reason that a sentence repeats at most; it may be that of another library or of
 * the system.
 */
const REASON = 800;

/** A text's beginning, where it is long. */
export const cut = (text: string, most = SHOWN): string => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Throws `argument: expected …, got …`. */
export function fail(code: ErrorCode, argument: string, expected: string, got: string, cause?: unknown): never {
  // A name may be the caller's own: of a tensor, of a file.
  const sentence = `${cut(argument)}: expected ${cut(expected, REASON)}, got ${cut(got, REASON)}`;
  throw new DiffAttnError(code, sentence, cause === undefined ? undefined : { cause });
}

/** What something thrown says. */
export function reasonOf(thrown: unknown): string {
  try {
    return cut(String(thrown instanceof Error ? (thrown as { message: unknown }).message : thrown), REASON);
  } catch {
    // An object without a prototype, for instance.
    return "something that cannot be shown";
  }
}

// The sentences that Rust also has, word for word (crates/diffattn/src/error.rs).

export const aborted = (reason: unknown): DiffAttnError => new DiffAttnError("ABORTED", "signal: the call was aborted", { cause: reason });

export const disposed = (argument: string): DiffAttnError =>
  new DiffAttnError("DISPOSED", `${argument}: expected a live object, got one that was disposed of`);

export const outOfMemory = (bytes: number): DiffAttnError =>
  new DiffAttnError("OUT_OF_MEMORY", `memory: expected ${bytes} more bytes, got a refusal`);

export const internal = (what: string, cause?: unknown): DiffAttnError =>
  new DiffAttnError("INTERNAL", `internal error (a bug of diffattn): ${what}`, { cause });
