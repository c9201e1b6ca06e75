// Where an object of the WASM backend is: made locally, so that its checks throw at once, and
// copied to the worker when an async call first takes it; a cache's content moves there, and what
// is done with it later is done there, in the order of the calls.

import type { Handle, Output, Request } from "../backend.js";
import { fail } from "../errors.js";
import * as Op from "../ops.generated.js";
import { type Change, type LocalSide, messageOf, type WasmObject } from "./call-message.js";
import { copyOf } from "./copy.js";
import type { Instance, Resolved } from "./instance.js";
import type { WasmBackend } from "./wasm.js";
import { gone, type WorkerClient } from "./worker-client.js";

/** Appends what exportCache gave: to the cache, k and v, and the layout bhsd. */
const appendExported = (handle: Handle, exported: Output[]): Request => ({
  op: Op.append,
  params: [0, ...exported.flatMap(({ kind, shape }) => [kind, shape.length, ...shape]), 0],
  operands: exported.map(({ buffer }) => new Uint8Array(buffer ?? new ArrayBuffer(0))),
  objects: [{ slot: 0, handle }],
});

/** An object on this side. */
interface Here {
  readonly local: LocalSide;
  readonly instance: Instance;
  id: number;
}

export class PlacedObject implements WasmObject {
  readonly name: Handle["name"];
  readonly backend: WasmBackend;
  readonly #here: Here;
  /** What makes it in the worker; sent once. */
  #recipe: Request | undefined;
  /** Of a cache: what makes an empty one. Its content is in one place only. */
  readonly #empty: Request | undefined;
  #remote: { readonly client: WorkerClient; readonly key: number } | undefined;
  /**
   * Of a cache in the worker: its length after the last change that ended there, and what the
   * changes under way make of it.
   */
  #length = 0;
  readonly #changes: Change[] = [];

  constructor(name: Handle["name"], backend: WasmBackend, here: Here, request: Request, empty: Request | undefined) {
    this.name = name;
    this.backend = backend;
    this.#here = here;
    // The worker gets what the caller gave now, not what its arrays hold then.
    this.#recipe = { ...request, operands: request.operands.map(copyOf) };
    this.#empty = empty;
  }

  /** Whether it lives in an instance that is used. */
  get #isHere(): boolean {
    const { local, instance } = this.#here;
    return !instance.dead && instance === local.instance && local === this.backend.local;
  }

  /** Whether its content is in the worker. */
  get isAway(): boolean {
    return this.#remote !== undefined && this.#empty !== undefined;
  }

  /** Its id in an instance. */
  idIn(instance: Instance): number {
    if (this.isAway) fail("UNAVAILABLE", this.name, "a content on this side", "one that the worker holds since an async call took it");
    return this.#here.instance === instance ? this.#here.id : gone(this.name);
  }

  keyIn(client: WorkerClient): number {
    if (this.#remote) return this.#remote.client === client ? this.#remote.key : gone(this.name);
    const recipe = this.#recipe;
    if (!recipe || !this.#isHere) return gone(this.name);
    const { local, instance, id } = this.#here;
    const about = (op: number): Resolved => ({ op, params: [id], operands: [] });
    const length = this.#empty ? instance.query(about(Op.length)) : 0;
    const content = length > 0 ? instance.call(about(Op.exportCache), []) : undefined;
    if (this.#empty) {
      // An empty cache stays behind: Rust checks appends on it.
      const twin = instance.query(local.resolve(this.#empty));
      instance.query(about(Op.drop));
      this.#here.id = twin;
    }
    this.#recipe = undefined;
    this.#remote = { client, key: client.newKey() };
    this.#length = length;
    this.#send(client, recipe, "create", () => {});
    if (content) this.#send(client, appendExported(this, content), "change", () => {});
    return this.#remote.key;
  }

  /**
   * Sends a query that makes or changes it. Its failure in the worker is told by the calls that use
   * the object later.
   */
  #send(client: WorkerClient, request: Request, kind: "create" | "change", onEnd: (length: number | undefined) => void): void {
    client.call(messageOf(client, request, { kind, key: this.#remote?.key }), null, onEnd).outputs.catch(() => {});
  }

  changing(change: Change): (length: number | undefined) => void {
    this.#changes.push(change);
    return (length) => {
      this.#changes.splice(this.#changes.indexOf(change), 1);
      if (length !== undefined) this.#length = length;
    };
  }

  /** A cache's length once all that was asked is done, but for what only the worker can know. */
  #lengthThen(): number {
    return this.#changes.reduce((length, change) => change?.(length) ?? length, this.#length);
  }

  /** Asks or changes a cache whose content is in the worker. */
  queryAway(request: Request): number {
    const { instance, id } = this.#here;
    const client = this.#remote?.client;
    if (!client || client.ended || client !== this.backend.client || instance.dead) return gone(this.name);
    if (request.op === Op.length) return this.#lengthThen();
    const here = { op: request.op, params: [id, ...request.params.slice(1)], operands: request.operands };
    let change: (length: number) => number;
    if (request.op === Op.append) {
      const added = instance.query(here);
      instance.query({ op: Op.rewind, params: [id, 0], operands: [] });
      change = (length) => length + added;
    } else {
      const [, wanted = 0] = request.params;
      // The sentence of crates/diffattn; anything but a count is refused by the empty cache.
      if (!Number.isInteger(wanted) || wanted < 0) instance.query(here);
      const held = this.#lengthThen();
      if (wanted > held && !this.#changes.includes(undefined)) fail("SHAPE", "length", `at most ${held}, the tokens held`, String(wanted));
      change = () => wanted;
    }
    this.#send(client, request, "change", this.changing(change));
    return this.#lengthThen();
  }

  drop(): void {
    const { instance, id } = this.#here;
    if (this.#isHere) instance.query({ op: Op.drop, params: [id], operands: [] });
    this.#remote?.client.send({ type: "drop", key: this.#remote.key });
  }
}
