// A request as the worker takes it: operands of its own, objects by the keys that both sides know.
// Knows no operator.

import type { Handle, Local, Outs, Request } from "../backend.js";
import type { Spares } from "./copy.js";
import type { Instance, Resolved } from "./instance.js";
import type { CallMessage } from "./messages.js";
import type { WorkerClient } from "./worker-client.js";

/** The side of the sync forms, as the others know it. */
export interface LocalSide extends Local {
  /** Its instance, where there is one. */
  readonly instance: Instance | undefined;
  /** A request with the ids that objects have there. */
  resolve(request: Request): Resolved;
}

/** A cache's new length from the one before; undefined while only the worker can know it. */
export type Change = ((length: number) => number) | undefined;

/** An object of this backend, as async calls take it. */
export interface WasmObject extends Handle {
  /** The number by which a worker knows it; puts it there if it is not. */
  keyIn(client: WorkerClient): number;
  /**
   * Notes that a change of a cache begins; gives what is to be called with the cache's length when
   * it ends.
   */
  changing(change: Change): (length: number | undefined) => void;
  drop(): void;
}

/** Operands that belong to this side: the caller's own, detached, or copies. */
function own(operands: readonly Uint8Array[], transfer: boolean, spares: Spares): Uint8Array[] {
  // Ranges first: detaching a buffer empties every view of it.
  const ranges = operands.map(({ buffer, byteOffset, byteLength }) => ({ buffer: buffer as ArrayBuffer, byteOffset, byteLength }));
  const moved = new Map<ArrayBuffer, ArrayBuffer>();
  return ranges.map(({ buffer, byteOffset, byteLength }) => {
    if (transfer) {
      try {
        const mine = moved.get(buffer) ?? structuredClone(buffer, { transfer: [buffer] });
        moved.set(buffer, mine);
        return new Uint8Array(mine, byteOffset, byteLength);
      } catch {
        // Shared memory, WASM's and what else cannot be detached is copied.
      }
    }
    return spares.copyOf(new Uint8Array(buffer, byteOffset, byteLength));
  });
}

/** What a call is, besides its request. */
interface About {
  readonly kind: CallMessage["kind"];
  /** The object that it makes or changes. */
  readonly key: number | undefined;
  readonly transfer?: boolean;
  readonly outs?: Outs;
}

export function messageOf(
  client: WorkerClient,
  { op, params, operands, objects }: Request,
  { kind, key, transfer = false, outs = [] }: About,
): Omit<CallMessage, "type" | "id" | "progress"> {
  const keys = objects.map(({ slot, handle }) => ({ slot, key: (handle as WasmObject).keyIn(client) }));
  return {
    op,
    params: new Float64Array(params),
    objects: keys,
    operands: own(operands, transfer, client.spares),
    areCopies: !transfer,
    outBytes: outs.map((out) => out && out.byteLength),
    kind,
    key,
  };
}
