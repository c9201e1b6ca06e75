// What the addon exports, as crates/diffattn-door/PROTOCOL.md says what it means. For the package diffattn, which is its only caller.

declare const addon: addon.Addon;
declare namespace addon {
  /** Outputs of an asynchronous call in one list: how many; of each its kind, its rank, its extents; then the buffer of each. */
  type Told = readonly (number | ArrayBuffer | null)[];
  /** The buffer of an output, null where the caller gave the memory. */
  type Made = ArrayBuffer | null;

  interface Addon {
    /**
     * Runs a job to its end on this thread and the pool. `stream` begins with how many numbers the
     * request has, and these; over them it tells of the outputs: how many; of each its kind, its rank,
     * its extents. Gives the buffer of the only output, or a list. Or, before any work, how many numbers `stream`
     * must have room for.
     */
    call(op: number, stream: Float64Array, operands: Uint8Array[], outs: readonly (Uint8Array | null)[]): Made | Made[] | number;
    /** Checks a job and queues it; rejects, never throws. */
    callAsync(
      id: number,
      op: number,
      stream: Float64Array,
      operands: Uint8Array[],
      outs: readonly (Uint8Array | null)[],
      transfer: boolean,
      onProgress: ((done: number, total: number) => void) | null,
    ): Promise<Told>;
    /** Asks an open call to stop after the slice in progress. */
    cancel(id: number): void;
    /** Answers a query with a number. */
    query(op: number, stream: Float64Array, operands: Uint8Array[]): number;
    /** Zeroed memory that calls use in place. */
    createBuffer(bytes: number): ArrayBuffer;
    /** Detaches a buffer. */
    releaseBuffer(buffer: ArrayBuffer): void;
    /** Chooses instruction set and threads for calls from now on. */
    configure(isa: string | null, threads: number | null): void;
    /** What the addon runs on: all instruction sets of the machine (slowest first), and its own version among the rest. */
    info(): { isa: string; isas: string[]; threads: number; availableThreads: number; version: string };
    /** Ends open calls, drops objects, gives memory and threads back. */
    dispose(): void;
  }
}
export = addon;
