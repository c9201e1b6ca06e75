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
  bind(job: number): boolean;
  step(job: number, milliseconds: number): boolean;
  run(job: number): boolean;
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

/** An output of a prepared job: what it is, and where its memory is. */
interface Placed {
  kind: number;
  shape: number[];
  bytes: number;
  address: number;
  /** The caller's array that it is copied to. */
  out: Uint8Array | undefined;
  /** Whether the memory is the caller's own. */
  inPlace: boolean;
}

/** A prepared job by its number, its outputs, and the memory that goes back when it has ended. */
interface Prepared {
  job: number;
  outputs: Placed[];
  blocks: Block[];
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

/** A job that has its memory. `end` it, whatever happened; a second time does nothing. */
export interface Job {
  total: () => number;
  done: () => number;
  /** One slice; `milliseconds` is what the slice before took. */
  step: (milliseconds: number) => void;
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
    const kept = this.#kept;
    for (const [index, block] of kept.entries()) {
      if (block.bytes < bytes) continue;
      const last = kept.pop() as Block;
      if (last !== block) kept[index] = last;
      return block;
    }
    const size = Math.max(bytes, SMALLEST);
    return { address: this.allocate(size), bytes: size };
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
   * Writes a request and hands it to an entry of the door. Gives the memory that must stay until
   * the job ends.
   */
  readonly #write = ({ op, params, operands }: Resolved, entry: "prepare" | "query"): { result: number; block: Block } => {
    const pairsAt = aligned(params.length * 8);
    const copiesAt = pairsAt + aligned(operands.length * 8);
    let total = copiesAt;
    // Addresses first: allocating may grow the memory, which detaches every view of it.
    const addresses: (number | undefined)[] = [];
    for (const bytes of operands) {
      const address = this.addressOf(bytes);
      addresses.push(address);
      if (address === undefined) total += aligned(bytes.byteLength);
    }
    const block = this.#take(total);
    const start = block.address;
    const { bytes: all, numbers, words } = this.#all();
    numbers.set(params, start / 8);
    let next = start + copiesAt;
    let pair = (start + pairsAt) / 4;
    for (const [index, bytes] of operands.entries()) {
      let address = addresses[index];
      if (address === undefined) {
        all.set(bytes, (address = next));
        next += aligned(bytes.byteLength);
      }
      words[pair++] = address;
      words[pair++] = bytes.byteLength;
    }
    // (What throws is a trap, after which no memory is given back.)
    const result = this.#in((door) => door[entry](op, start, params.length, start + pairsAt, operands.length));
    return { result, block };
  };

  query(request: Resolved): number {
    const { result, block } = this.#write(request, "query");
    try {
      if (this.#in((door) => door.errorCode()) !== "") throw this.#error();
      return result;
    } finally {
      this.#giveBack(block);
    }
  }

  /** Ends a job and gives back what it had. */
  readonly #end = ({ job, blocks }: Prepared): void => {
    if (!this.dead) this.#in((door) => door.end(job));
    blocks.forEach(this.#giveBack);
  };

  /** Prepares a job and the memory of its outputs; `outs` say where the first of them go. */
  readonly #prepare = (request: Resolved, outs: readonly (Place | null)[]): Prepared => {
    // As with operands: an address before any allocation.
    const addresses = outs.map((place) => place?.bytes && this.addressOf(place.bytes));
    const { result, block } = this.#write(request, "prepare");
    const blocks = [block];
    const list = (result >>> 0) / 4;
    if (list === 0) {
      this.#giveBack(block);
      throw this.#error();
    }
    let { words } = this.#all();
    const word = (index: number): number => words[index] ?? 0;
    const [job, count] = [word(list), word(list + 1)];
    const outputs: Placed[] = [];
    const prepared = { job, outputs, blocks };
    let pair = list + 2;
    let next = pair + 2 * count;
    try {
      for (let index = 0; index < count; index++) {
        const place = outs[index];
        const kind = word(next++);
        const shape: number[] = [];
        for (let rank = word(next++); shape.length < rank;) shape.push(word(next++));
        // A place of another length still travels as it is, for Rust to refuse.
        const bytes = place?.length ?? word(pair + 1);
        let address = addresses[index];
        const inPlace = address !== undefined;
        if (address === undefined) {
          const made = this.#take(bytes);
          blocks.push(made);
          ({ address } = made);
          ({ words } = this.#all());
        }
        words[pair++] = address;
        words[pair++] = bytes;
        outputs.push({ kind, shape, bytes, address, out: place?.bytes, inPlace });
      }
    } catch (error) {
      this.#end(prepared);
      throw error;
    }
    return prepared;
  };

  /** The outputs of a job that is done. */
  readonly #outputs = ({ outputs }: Prepared): Output[] =>
    outputs.map(({ kind, shape, bytes, address, out, inPlace }) => {
      if (inPlace) return { kind, shape, buffer: null };
      const computed = this.#all().bytes.subarray(address, address + bytes);
      if (!out) return { kind, shape, buffer: copyOf(computed).buffer };
      out.set(computed);
      return { kind, shape, buffer: null };
    });

  /** A job that is worked off in slices. */
  begin(request: Resolved, outs: readonly (Place | null)[]): Job {
    const prepared = this.#prepare(request, outs);
    const { job } = prepared;
    let ended = false;
    const end = (): void => {
      if (ended) return;
      ended = true;
      this.#end(prepared);
    };
    try {
      this.#check(this.#in((door) => door.bind(job)));
    } catch (error) {
      end();
      throw error;
    }
    const door = this.#door;
    return {
      total: () => door.total(job) >>> 0,
      done: () => door.done(job) >>> 0,
      step: (milliseconds) => this.#check(this.#in((door) => door.step(job, milliseconds))),
      outputs: () => this.#outputs(prepared),
      end,
    };
  }

  /** A job from its first slice to its last. */
  call(request: Resolved, outs: Outs): Output[] {
    const places = outs.map((bytes) => bytes && { bytes, length: bytes.byteLength });
    const prepared = this.#prepare(request, places);
    try {
      this.#check(this.#in((door) => door.run(prepared.job)));
      return this.#outputs(prepared);
    } finally {
      prepared.blocks.forEach(this.#giveBack);
    }
  }
}
