// Where an object of the WASM backend is: made locally, so that its checks throw at once, and
// copied to the worker when an async call first takes it; a cache's content moves there, and what
// is done with it later is done there, in the order of the calls. A layer, whose content is what it
// was made of, is made again wherever else it is wanted: in a worker, in an instance of gradients.

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

/** Whether two requests differ in nothing but the values of their tensors. */
const isAlike = (a: Request, b: Request): boolean =>
  a.op === b.op && a.params.length === b.params.length && a.params.every((x, i) => x === b.params[i]);

/** A request with the caller's arrays as they are now. */
const kept = (request: Request): Request => ({ ...request, operands: request.operands.map(copyOf) });

/** An object on this side. */
interface Here {
  readonly local: LocalSide;
  readonly instance: Instance;
  id: number;
}

export class PlacedObject implements WasmObject {
  readonly name: Handle["name"];
  /** The backend that it lives in. */
  readonly #home: WasmBackend;
  readonly #here: Here;
  /**
   * What makes it elsewhere, and then what changed it since; of a cache, which is sent once, none
   * afterwards.
   */
  #recipe: Request[];
  /** Of a cache: what makes an empty one. Its content is in one place only. */
  readonly #empty: Request | undefined;
  /** Its numbers in workers. */
  readonly #remotes = new Map<WorkerClient, number>();
  /** Its ids in other instances of this side. */
  readonly #twins = new Map<Instance, number>();
  /**
   * Of a cache in the worker: its length after the last change that ended there, and what the
   * changes under way make of it.
   */
  #length = 0;
  readonly #changes: Change[] = [];

  constructor(name: Handle["name"], home: WasmBackend, here: Here, request: Request, empty: Request | undefined) {
    this.name = name;
    this.#home = home;
    this.#here = here;
    // The worker gets what the caller gave now, not what its arrays hold then.
    this.#recipe = [kept(request)];
    this.#empty = empty;
  }

  /** The one that users know. */
  get backend(): WasmBackend {
    return this.#home.owner ?? this.#home;
  }

  /** Whether it lives in an instance that is used. */
  get #isHere(): boolean {
    const { local, instance } = this.#here;
    return !instance.dead && instance === local.instance && local === this.#home.local;
  }

  /** Whether its content is in the worker. */
  get isAway(): boolean {
    return this.#remotes.size > 0 && this.#empty !== undefined;
  }

  /** Its id in an instance. */
  idIn(instance: Instance): number {
    if (this.isAway) fail("UNAVAILABLE", this.name, "a content on this side", "one that the worker holds since an async call took it");
    if (this.#here.instance === instance) return this.#here.id;
    if (this.#empty || !this.#isHere) return gone(this.name);
    return this.#twins.get(instance) ?? this.#twinIn(instance);
  }

  /** Makes it in another instance. */
  #twinIn(instance: Instance): number {
    const [make, ...changes] = this.#recipe;
    if (!make) return gone(this.name);
    for (const other of this.#twins.keys()) if (other.dead) this.#twins.delete(other);
    const id = instance.query(make);
    this.#twins.set(instance, id);
    for (const change of changes) this.#changeTwin(instance, id, change);
    return id;
  }

  /** Drops one that does not take a change. */
  #changeTwin(instance: Instance, id: number, { op, params: [, ...params], operands }: Request): void {
    try {
      instance.query({ op, params: [id, ...params], operands });
    } catch (error) {
      this.#twins.delete(instance);
      if (!instance.dead) instance.query({ op: Op.drop, params: [id], operands: [] });
      throw error;
    }
  }

  /** Follows a change of a layer, which it has here already, wherever else it is. */
  changed(request: Request): void {
    const change = kept(request);
    // (One that says as much of other values stands for the one before.)
    this.#recipe = [...this.#recipe.filter((one) => !isAlike(one, change)), change];
    for (const client of this.#remotes.keys()) if (!client.ended) this.#send(client, change, "change", () => {});
    for (const [instance, id] of this.#twins) {
      try {
        if (!instance.dead) this.#changeTwin(instance, id, change);
      } catch {
        // The call that next wants it makes it again, and says what is wrong.
      }
    }
  }

  keyIn(client: WorkerClient): number {
    const known = this.#remotes.get(client);
    if (known !== undefined) return known;
    const recipe = this.#recipe;
    if (this.isAway || recipe.length === 0 || !this.#isHere) return gone(this.name);
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
    for (const other of this.#remotes.keys()) if (other.ended) this.#remotes.delete(other);
    const key = client.newKey();
    this.#remotes.set(client, key);
    this.#length = length;
    for (const [i, request] of recipe.entries()) this.#send(client, request, i === 0 ? "create" : "change", () => {});
    if (content) this.#send(client, appendExported(this, content), "change", () => {});
    if (this.#empty) this.#recipe = [];
    return key;
  }

  /**
   * Sends a query that makes or changes it. Its failure in the worker is told by the calls that use
   * the object later.
   */
  #send(client: WorkerClient, request: Request, kind: "create" | "change", onEnd: (length: number | undefined) => void): void {
    client.call(messageOf(client, request, { kind, key: this.#remotes.get(client) }), null, onEnd).outputs.catch(() => {});
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
    const [client] = this.#remotes.keys();
    if (!client || client.ended || client !== this.#home.client || instance.dead) return gone(this.name);
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
    for (const [instance, id] of this.#twins) if (!instance.dead) instance.query({ op: Op.drop, params: [id], operands: [] });
    for (const [client, key] of this.#remotes) client.send({ type: "drop", key });
  }
}
