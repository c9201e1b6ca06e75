// One way to run a call, sync or async, for every operator and layer: checks what concerns all of
// them, follows the signal and the progress. Knows no operator.

import type { Backend, Call, Control, Output, Outs, Request } from "./backend.js";
import { checkOut, isAbsent, overlaps, show } from "./check.js";
import { aborted, DiffAttnError, fail } from "./errors.js";
import { backend } from "./init.js";
import type * as types from "./types.js";

/** An array of the caller that a result goes into. */
interface Given {
  /** What errors call it. */
  readonly argument: string;
  readonly array: unknown;
  /** The result's element type. */
  readonly dtype: types.DType;
}

/** A call that is ready to run. */
export interface Plan<R> {
  request: Request;
  options: types.CallOptions | null | undefined;
  /** The caller's arrays for the first results, in the protocol's order. */
  outs?: readonly (Given | null)[];
  finish(outputs: Output[]): R;
}

/**
 * For tests only: its value in a call's options replaces the request by one of the protocol's test
 * requests.
 */
const TEST_OP = Symbol.for("diffattn.testOp");

/**
 * Whether it is a signal that can be followed: one behind a proxy cannot, no getter of its own
 * works there.
 */
function isSignal(x: unknown): x is AbortSignal {
  try {
    const { addEventListener, aborted } = x as Partial<AbortSignal>;
    return typeof addEventListener === "function" && typeof aborted === "boolean";
  } catch {
    return false;
  }
}

/** Refuses what is no signal, and throws where the signal was aborted. */
export function checkSignal(signal: AbortSignal | null | undefined): void {
  if (isAbsent(signal)) return;
  if (!isSignal(signal)) return fail("OPTION", "signal", "an AbortSignal", show(signal));
  if (signal.aborted) throw aborted(signal.reason);
}

/** Checks what concerns every call. Gives the caller's arrays as the backend takes them. */
export function prepare<R>({ request, options, outs = [] }: Plan<R>): Outs {
  const { signal, transfer } = (options ?? {}) as { [K in keyof types.CallOptions]: types.CallOptions[K] | null };
  if (transfer !== undefined && transfer !== null && typeof transfer !== "boolean")
    fail("OPTION", "transfer", "true or false", show(transfer));
  const testOp = (options as Record<symbol, unknown> | null | undefined)?.[TEST_OP];
  if (typeof testOp === "number") Object.assign(request, { op: testOp, params: [], operands: [], objects: [] });
  checkSignal(signal);
  const places: (Uint8Array | null)[] = [];
  for (const out of outs) {
    const bytes = out && checkOut(out.argument, out.array, out.dtype);
    if (bytes) checkPlace(out.argument, bytes, request.operands, transfer === true, places);
    places.push(bytes);
  }
  return places;
}

function checkPlace(
  argument: string,
  bytes: Uint8Array,
  operands: readonly Uint8Array[],
  transfer: boolean,
  others: readonly (Uint8Array | null)[],
): void {
  for (const operand of operands) {
    if (overlaps(bytes, operand)) fail("OPTION", argument, "memory that does not overlap an input", "an overlap");
    if (transfer && operand.buffer === bytes.buffer) fail("OPTION", argument, "a buffer that is not transferred", "that of an input");
  }
  if (others.some((other) => other && overlaps(bytes, other))) fail("OPTION", argument, "memory that no other result has", "an overlap");
}

/** Starts a call, follows its signal and its progress to the end. */
export async function follow(
  { signal, onProgress, transfer }: { [K in keyof types.CallOptions]: types.CallOptions[K] | null },
  start: (control: Control) => Call,
): Promise<Output[]> {
  if (!isAbsent(onProgress) && typeof onProgress !== "function") fail("OPTION", "onProgress", "a function", show(onProgress));
  let thrown: { error: unknown } | undefined;
  const call = start({
    transfer: transfer ?? false,
    onProgress: onProgress
      ? (done, total) => {
          if (thrown || signal?.aborted) return;
          try {
            onProgress({ done, total });
          } catch (error) {
            // Here it would reach nobody: it ends the call and rejects it.
            thrown = { error };
            call.cancel();
          }
        }
      : null,
  });
  signal?.addEventListener("abort", call.cancel);
  try {
    const outputs = await call.outputs;
    if (thrown) throw thrown.error;
    return outputs;
  } catch (error) {
    if (thrown) throw thrown.error;
    throw signal?.aborted && error instanceof DiffAttnError && error.code === "ABORTED" ? aborted(signal.reason) : error;
  } finally {
    signal?.removeEventListener("abort", call.cancel);
  }
}

/** `on`: the backend that has the request. */
export async function runAsync<R>(plan: Plan<R>, on: () => Backend = backend): Promise<R> {
  const outs = prepare(plan);
  return plan.finish(await follow(plan.options ?? {}, (control) => on().callAsync(plan.request, outs, control)));
}
