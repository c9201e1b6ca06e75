// What the server answers where it does not do what was asked: `{ error: { message, type, param,
// code } }`, as clients of OpenAI's interface read it.

import type { ContentfulStatusCode } from "hono/utils/http-status";
import { sentence } from "../failure.js";

/** An answer in the place of the one that was asked for. */
export class ApiError extends Error {
  constructor(
    readonly status: ContentfulStatusCode,
    message: string,
    readonly param: string | null = null,
    readonly code: string | null = null,
  ) {
    super(message);
  }

  /** The body. */
  get json(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { message, param, code } = this;
    return { error: { message, type: TYPES[this.status] ?? (this.status < 500 ? "invalid_request_error" : "server_error"), param, code } };
  }
}

const TYPES: Readonly<Record<number, string>> = { 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error" };

/** A request that cannot be meant. */
export const invalid = (param: string, message: string): ApiError => new ApiError(400, `${param}: ${message}`, param);

/** A part of the interface that this server lacks. */
export const notDone = (param: string, message = "is not done by this server"): ApiError =>
  new ApiError(400, `${param}: ${message}`, param, "unsupported_parameter");

/** What the package refuses of a request, and what its end means. */
const STATUS: Readonly<Record<string, ContentfulStatusCode>> = {
  OPTION: 400,
  SHAPE: 400,
  DTYPE: 400,
  UNAVAILABLE: 400,
  // (As nginx has it: no one reads the answer.)
  ABORTED: 499 as ContentfulStatusCode,
  FILE: 500,
  OUT_OF_MEMORY: 503,
  DISPOSED: 503,
};

/** Whatever was thrown, as an answer. */
export function apiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  const code = (thrown as { code?: unknown } | null | undefined)?.code;
  const status = typeof code === "string" ? STATUS[code] : undefined;
  if (status === undefined) return new ApiError(500, "the server failed", null, "internal_error");
  if (code === "DISPOSED") return new ApiError(status, "the server is stopping", null, "stopping");
  return new ApiError(status, sentence(thrown), null, String(code).toLowerCase());
}
