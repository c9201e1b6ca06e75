// One WASM instance: writes requests into its memory, runs jobs, reads outputs. The local side
// (wasm.ts) and the worker (worker.ts) each own one. Knows no operator, no worker and no object.

import type { Output, Outs } from "../backend.js";
import { DiffAttnError, internal, outOfMemory } from "../errors.js";
import type { ErrorCode } from "../types.js";
import { copyOf } from "./copy.js";

/**
 * The exports of crates/diffattn-wasm, as PROTOCOL.md lists them. Addresses and counts, of 32 bits,
 * may come with a sign.
 */
export interface Door {
  allocate(bytes: number, zeroed: boolean): number;
  release(address: number, bytes: number): void;
  prepare(op: number, params: number, paramCount: number, operands: number, operandCount: number): number;
  outputs(job: number): number;
  bind(job: number, outputs: number, count: number): boolean;
  step(job: number, milliseconds: number): boolean;
  finish(job: number): boolean;
  total(job: number): number;
  done(job: number): number;
  end(job: number): void;
  query(op: number, params: number, paramCount: number, operands: number, operandCount: number): number;
  errorCode(): string;
  errorMessage(): string;
  configure(threads: number): boolean;
  isa(): string;
  panicAddress(): number;
}

/** A request whose object ids are in place. */
export interface Resolved {
  op: number;
  params: ArrayLike<number>;
  operands: Uint8Array[];
}

/**
 * What a trap was: the panic's message at the address that the door named, or the engine's own
 * words.
 */
export function trapMessage({ buffer }: WebAssembly.Memory, panicAddress: number, trap: unknown): string {
  const length = new DataView(buffer).getUint32(panicAddress, true);
  // A copy, because text cannot be decoded from shared memory.
  return new TextDecoder().decode(new Uint8Array(buffer, panicAddress + 4, length).slice()) || String(trap);
}

/** Where an output goes: the caller's array, or new memory of that many bytes. */
export interface Place {
  length: number;
  bytes?: Uint8Array;
}

/** An output as the door tells it. */
interface Told {
  kind: number;
  bytes: number;
  shape: number[];
}

/** Bytes that Rust aligns an allocation to; operands that share one keep that alignment. */
const ALIGNMENT = 64;
const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** The whole of a memory, as bytes, float64s and 32-bit words. */
const viewsOf = (buffer: ArrayBufferLike) => ({
  buffer,
  bytes: new Uint8Array(buffer),
  numbers: new Float64Array(buffer),
  words: new Uint32Array(buffer),
});

type Views = ReturnType<typeof viewsOf>;

/** A stretch of the memory. */
interface Block {
  readonly address: number;
  readonly bytes: number;
}

/** Bytes of the largest block that is kept for the next request, and blocks that are. */
const [KEPT_BYTES, KEPT] = [64 << 10, 4];

/** Bytes of the smallest block: it fits many requests. */
const SMALLEST = 4 << 10;

/** A prepared job. `end` it, whatever happened; a second time does nothing. */
export interface Job {
  total: () => number;
  done: () => number;
  /** One slice; `milliseconds` is what the slice before took. */
  step: (milliseconds: number) => void;
  finish: () => void;
  outputs: () => Output[];
  end: () => void;
}

/**
 * One instance. (What would be private methods are functions in private fields: for ncc's sake the
 * build for Node makes a WeakMap of every private name of a class that has private methods.)
 */
export class Instance {
  readonly #door: Door;
  readonly #memory: WebAssembly.Memory;
  readonly #panic: number;
  #views: Views | undefined;
  /** Small blocks that no request has: getting memory anew took a sixth of the smallest call. */
  readonly #kept: Block[] = [];
  /** Whether it trapped: nothing in it can be used any more. */
  dead = false;

  constructor(door: Door, memory: WebAssembly.Memory) {
    this.#door = door;
    this.#memory = memory;
    this.#panic = door.panicAddress() >>> 0;
  }

  /** Calls into the door. What it throws is a trap: the instance is dead. */
  readonly #in = <T>(body: (door: Door) => T): T => {
    try {
      return body(this.#door);
    } catch (cause) {
      this.dead = true;
      throw internal(trapMessage(this.#memory, this.#panic, cause), cause);
    }
  };

  /** The error of the request just made. */
  readonly #error = (): DiffAttnError => {
    return this.#in((door) => new DiffAttnError(door.errorCode() as ErrorCode, door.errorMessage()));
  };

  readonly #check = (went: boolean): void => {
    if (!went) throw this.#error();
  };

  /** Where a view lies in this memory; undefined when it does not. */
  addressOf(bytes: Uint8Array): number | undefined {
    return bytes.buffer === this.#memory.buffer ? bytes.byteOffset : undefined;
  }

  view(address: number, bytes: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, address, bytes);
  }

  /** The whole memory; any allocation may make it another. */
  readonly #all = (): Views => {
    const { buffer } = this.#memory;
    return this.#views?.buffer === buffer ? this.#views : (this.#views = viewsOf(buffer));
  };

  /** Memory of that many bytes or more, for one request: give it back. */
  readonly #take = (bytes: number): Block => {
    const index = this.#kept.findIndex((block) => block.bytes >= bytes);
    const size = Math.max(bytes, SMALLEST);
    return index < 0 ? { address: this.allocate(size), bytes: size } : (this.#kept.splice(index, 1)[0] as Block);
  };

  readonly #giveBack = (block: Block): void => {
    if (block.bytes <= KEPT_BYTES && this.#kept.length < KEPT) this.#kept.push(block);
    else this.release(block.address, block.bytes);
  };

  /** The content is unspecified unless it is asked to be zeros. */
  allocate(bytes: number, zeroed = false): number {
    // Rust takes the size as 32 bits; a larger one would wrap.
    const address = bytes < 2 ** 32 ? this.#in((door) => door.allocate(bytes, zeroed)) >>> 0 : 0;
    if (address === 0) throw outOfMemory(bytes);
    return address;
  }

  release(address: number, bytes: number): void {
    if (!this.dead) this.#in((door) => door.release(address, bytes));
  }

  /** The instruction set of its build. */
  isa(): string {
    return this.#in((door) => door.isa());
  }

  configure(threads: number): void {
    this.#check(this.#in((door) => door.configure(threads)));
  }

  /**
   * Writes a request and hands it to `enter`. Gives the memory that must stay until the job ends.
   */
  readonly #write = <T>(
    request: Resolved,
    enter: (door: Door, op: number, params: number, paramCount: number, operands: number, operandCount: number) => T,
  ): { result: T; block: Block } => {
    const { op, params, operands } = request;
    // Addresses first: allocating may grow the memory, which detaches every view of it.
    const addresses = operands.map((bytes) => this.addressOf(bytes));
    const pairsAt = aligned(params.length * 8);
    const copiesAt = pairsAt + aligned(operands.length * 8);
    let total = copiesAt;
    operands.forEach(({ byteLength }, index) => {
      if (addresses[index] === undefined) total += aligned(byteLength);
    });
    const block = this.#take(total);
    const start = block.address;
    const { bytes: all, numbers, words } = this.#all();
    numbers.set(params, start / 8);
    let next = start + copiesAt;
    let pair = (start + pairsAt) / 4;
    operands.forEach((bytes, index) => {
      let address = addresses[index];
      if (address === undefined) {
        all.set(bytes, (address = next));
        next += aligned(bytes.byteLength);
      }
      words[pair++] = address;
      words[pair++] = bytes.byteLength;
    });
    // (What throws is a trap, after which no memory is given back.)
    const result = this.#in((door) => enter(door, op, start, params.length, start + pairsAt, operands.length));
    return { result, block };
  };

  /** The outputs of a job, as the door tells them. */
  readonly #told = (job: number): Told[] => {
    let next = (this.#in((door) => door.outputs(job)) >>> 0) / 4;
    const { words } = this.#all();
    const read = (): number => words[next++] ?? 0;
    const told: Told[] = [];
    for (let count = read(); told.length < count;) {
      const [kind, bytes, shape] = [read(), read(), [] as number[]];
      for (let rank = read(); shape.length < rank;) shape.push(read());
      told.push({ kind, bytes, shape });
    }
    return told;
  };

  query(request: Resolved): number {
    const { result, block } = this.#write(request, (door, ...at) => door.query(...at));
    try {
      if (this.#in((door) => door.errorCode()) !== "") throw this.#error();
      return result;
    } finally {
      this.#giveBack(block);
    }
  }

  /** Prepares a job and its outputs; `outs` say where the first of them go. */
  begin(request: Resolved, outs: readonly (Place | null)[]): Job {
    // As with operands: an address before any allocation.
    const addresses = outs.map((place) => place?.bytes && this.addressOf(place.bytes));
    const { result: job, block } = this.#write(request, (door, ...at) => door.prepare(...at));
    const blocks = [block];
    let ended = job === 0;
    const end = (): void => {
      if (!this.dead && !ended) this.#in((door) => door.end(job));
      ended = true;
      blocks.splice(0).forEach(this.#giveBack);
    };
    try {
      if (job === 0) throw this.#error();
      const outputs = this.#told(job).map(({ kind, shape, bytes: told }, index) => {
        const [place, given] = [outs[index], addresses[index]];
        // A place of another length still travels as it is, for Rust to refuse.
        const bytes = place?.length ?? told;
        let address = given;
        if (address === undefined) {
          const made = this.#take(bytes);
          blocks.push(made);
          address = made.address;
        }
        return { kind, shape, bytes, address, out: place?.bytes, inPlace: given !== undefined };
      });
      const list = this.#take(outputs.length * 8);
      blocks.push(list);
      const { words } = this.#all();
      let pair = list.address / 4;
      for (const { address, bytes } of outputs) {
        words[pair++] = address;
        words[pair++] = bytes;
      }
      this.#check(this.#in((door) => door.bind(job, list.address, outputs.length)));

      const door = this.#door;
      return {
        total: () => door.total(job) >>> 0,
        done: () => door.done(job) >>> 0,
        step: (milliseconds) => this.#check(this.#in((door) => door.step(job, milliseconds))),
        finish: () => this.#check(this.#in((door) => door.finish(job))),
        outputs: () =>
          outputs.map(({ kind, shape, bytes, address, out, inPlace }) => {
            if (inPlace) return { kind, shape, buffer: null };
            const computed = this.#all().bytes.subarray(address, address + bytes);
            if (!out) return { kind, shape, buffer: copyOf(computed).buffer };
            out.set(computed);
            return { kind, shape, buffer: null };
          }),
        end,
      };
    } catch (error) {
      end();
      throw error;
    }
  }

  /** A job from its first slice to its last. */
  call(request: Resolved, outs: Outs): Output[] {
    const job = this.begin(
      request,
      outs.map((bytes) => bytes && { bytes, length: bytes.byteLength }),
    );
    try {
      job.finish();
      return job.outputs();
    } finally {
      job.end();
    }
  }
}
