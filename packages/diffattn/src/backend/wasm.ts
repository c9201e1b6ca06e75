// The backend over WASM: sync forms run in a local instance, async calls in a worker. Places objects: made locally (so their
// checks throw at once), copied to the worker when an async call first takes them; a cache's content moves there.

import type { Backend, BackendMemory, Call, Control, Handle, Output, Request } from "../backend.js";
import { oneOf, show } from "../check.js";
import { aborted, DiffAttnError, fail, internal, reasonOf } from "../errors.js";
import { instantiate } from "../instantiate.js";
import { NOT_CARRIED } from "../module.js";
import { Op } from "../ops.js";
import { folderOf, inFolder, type OwnFiles } from "../own-files.js";
import { type Build, type Platform } from "../platform.js";
import { supports } from "../probe.js";
import type { InitOptions, Isa } from "../types.js";
import { copyOf, type Instance, type Resolved } from "./instance.js";
import type { CallMessage } from "./messages.js";
import { gone, WorkerClient } from "./worker-client.js";

export interface WasmObject extends Handle {
  /** Absent where only the worker has it (models/backend.ts). */
  readonly local?: { instance: Instance; id: number };
  /** What makes it in the worker; sent once. */
  recipe: Request | undefined;
  /** Of a cache: what makes an empty one. Its content is in one place only. */
  readonly empty: Request | undefined;
  remote?: { client: WorkerClient; key: number };
  /** Of a cache in the worker: its length after the last change that ended there, and what the changes under way make of it. */
  length: number;
  changes: Change[];
}

/** A change's new length from the one before; undefined while only the worker can know it. */
type Change = ((length: number) => number) | undefined;

/** A cache's length once all that was asked is done, but for what only the worker can know. */
const lengthOf = ({ length, changes }: WasmObject): number => changes.reduce((length, change) => change?.(length) ?? length, length);

/** Operands that belong to this side: the caller's own, detached, or copies. */
function own(operands: readonly Uint8Array[], transfer: boolean): Uint8Array[] {
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
    return copyOf(new Uint8Array(buffer, byteOffset, byteLength));
  });
}

/** Appends what exportCache gave. Written here and not where requests are, so that models need not load those of the operators. */
const appendExported = (handle: Handle, exported: Output[]): Request => ({
  op: Op.append,
  // The cache, k, v, and the layout: bhsd.
  params: [0, ...exported.flatMap(({ kind, shape }) => [kind, shape.length, ...shape]), 0],
  operands: exported.map(({ buffer }) => new Uint8Array(buffer ?? new ArrayBuffer(0))),
  objects: [{ slot: 0, handle }],
});

const notReady = (): never =>
  fail("UNAVAILABLE", "init", "an init() that has ended, before info(), sync forms and objects on a browser's main thread", "none");

export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly #platform: Platform;
  /** The package's own files, in the folder that the caller names where there is one. */
  readonly #files: OwnFiles;
  readonly #folder: URL | undefined;
  /** The caller's module, if there is one and it is no folder; once compiled, it stands in its own place. */
  readonly #given: Pick<InitOptions, "wasm">;
  readonly #isa: string | undefined;
  /** Builds to try for the worker, best first. */
  readonly #builds: readonly [Build, ...Build[]];
  readonly #localBuild: Build;
  readonly #modules = new Map<Build, WebAssembly.Module>();
  readonly #notes: string[];
  /** Why builds did not start. */
  protected refusals: string[] = [];
  #threads: number;
  #local: Instance | undefined;
  #client: WorkerClient | undefined;
  #companion: WasmBackend | undefined;
  #started: Promise<void> = Promise.resolve();
  /** What the worker runs, once it runs. */
  protected running: { build: Build; pool: number } | undefined;

  constructor(platform: Platform, given: Pick<InitOptions, "wasm">, isa: string | undefined, threads: number | undefined, notes: string[]) {
    this.#platform = platform;
    this.#folder = folderOf(given.wasm);
    this.#files = this.#folder ? inFolder(this.#folder, platform.models) : platform.files;
    this.#given = this.#folder ? {} : given;
    this.#isa = isa;
    this.#notes = notes;
    this.#threads = threads ?? platform.threads;
    const { builds } = this.#files;
    const canPool = platform.noPool === undefined;
    const possible = [...builds].reverse().filter((build) => supports(build) && (build !== "relaxed-simd+threads" || canPool));
    const wanted = possible.filter((build) => (isa === undefined ? build !== "relaxed-simd+threads" || this.#threads > 1 : build === isa));
    const [best, ...others] = wanted;
    if (best === undefined) {
      const expected = possible.length > 0 ? `one of ${oneOf(possible)} on WASM here` : "an engine with WASM SIMD";
      fail("UNAVAILABLE", "isa", expected, isa === undefined ? "one without" : show(isa));
    }
    // The caller's module is of one build, so there is nothing to fall back to.
    this.#builds = this.#given.wasm ? [best] : [best, ...others];
    this.#localBuild = best === "relaxed-simd+threads" ? "relaxed-simd" : best;
    if (isa === undefined) {
      if (best === "simd128") {
        const why = supports("relaxed-simd") ? "no file of another build is here" : "this engine has no relaxed WASM SIMD";
        this.#notes.push(`${why}: the plain SIMD build runs`);
      }
      if (platform.noPool !== undefined) this.#notes.push(platform.noPool);
      else if (!builds.includes("relaxed-simd+threads"))
        this.#notes.push("no file of the build with threads is here, so calls run on one thread");
    }
  }

  // The two sides.

  /** The backend of models, which goes by the same options and ends with this one. */
  companion<T extends WasmBackend>(create: (folder: URL | undefined, isa: string | undefined, threads: number) => T): T {
    return (this.#companion ??= create(this.#folder, this.#isa, this.#threads)) as T;
  }

  #localInstance(): Instance {
    if (this.#local && !this.#local.dead) return this.#local;
    let module = this.#modules.get(this.#localBuild);
    if (!module) {
      if (!this.#platform.blocking || this.#sourceOf(this.#localBuild) !== undefined) notReady();
      module = this.#platform.readModule(this.#files.module(this.#localBuild));
      this.#modules.set(this.#localBuild, module);
    }
    return (this.#local = instantiate(module));
  }

  /** Where the caller says that a build comes from. */
  #sourceOf(build: Build): InitOptions["wasm"] | undefined {
    return build === this.#builds[0] ? (this.#given.wasm ?? undefined) : undefined;
  }

  async #module(build: Build): Promise<WebAssembly.Module> {
    const known = this.#modules.get(build);
    if (known) return known;
    const source = this.#sourceOf(build);
    const module = await (source === undefined
      ? this.#platform.loadModule(this.#files.module(build), NOT_CARRIED)
      : this.#platform.loadModule(source));
    // A response can be read once only.
    if (source !== undefined) this.#given.wasm = module;
    this.#modules.set(build, module);
    return module;
  }

  protected clientSide(): WorkerClient {
    if (this.#client && !this.#client.ended) return this.#client;
    const client = (this.#client = new WorkerClient(this.#platform, this.#files));
    this.running = undefined;
    this.refusals = [];
    this.#started = this.#startClient(client);
    this.#started.catch((error: unknown) => client.end(error instanceof DiffAttnError ? error : internal(reasonOf(error), error)));
    return client;
  }

  async #startClient(client: WorkerClient): Promise<void> {
    for (const [index, build] of this.#builds.entries()) {
      try {
        await client.start(build, await this.#module(build), this.#threads);
        this.running = { build, pool: build === "relaxed-simd+threads" ? this.#threads : 1 };
        return;
      } catch (error) {
        if (client.ended || index === this.#builds.length - 1) throw error;
        // Without a worker there are no threads, which a note of its own says.
        if (client.noWorker === undefined || build !== "relaxed-simd+threads")
          this.refusals.push(`the build ${build} did not start: ${reasonOf(error)}`);
      }
    }
  }

  async start(): Promise<void> {
    this.clientSide();
    await this.#started;
    await this.#module(this.#localBuild);
  }

  info(): { isa: Isa; threads: number; notes: string[] } {
    // Who uses models alone has only their worker.
    const side = this.running ? this : (this.#companion ?? this);
    if (!side.running && !this.#platform.blocking) notReady();
    const { build, pool } = side.running ?? { build: this.#builds[0], pool: this.#builds[0] === "relaxed-simd+threads" ? Infinity : 1 };
    const noWorker = side.#client?.noWorker;
    const inSlices =
      noWorker === undefined ? [] : [`no worker starts here (${noWorker}), so async calls run in slices on the caller's thread`];
    return { isa: build, threads: Math.min(this.#threads, pool), notes: [...this.#notes, ...side.refusals, ...inSlices] };
  }

  configure(isa: string | undefined, threads: number | undefined): boolean {
    const count = threads ?? this.#platform.threads;
    if (isa !== this.#isa) return false;
    if (
      this.running?.build === "relaxed-simd+threads"
        ? count > this.running.pool
        : this.#platform.noPool === undefined && count !== this.#threads
    )
      return false;
    this.setThreads(count);
    return true;
  }

  setThreads(threads: number): void {
    this.#threads = threads;
    this.#companion?.setThreads(threads);
    if (this.running && this.running.pool > 1) this.#client?.send({ type: "threads", threads: Math.min(threads, this.running.pool) });
  }

  // Calls.

  #resolve({ op, params, operands, objects }: Request): Resolved {
    const here = this.#localInstance();
    const resolved = [...params];
    for (const { slot, handle } of objects) {
      const object = handle as WasmObject;
      if (object.remote && object.empty) {
        fail("UNAVAILABLE", object.name, "a content on this side", "one that the worker holds since an async call took it");
      }
      if (object.local?.instance !== here) return gone(object.name);
      resolved[slot] = object.local.id;
    }
    return { op, params: resolved, operands };
  }

  call(request: Request, outs: Uint8Array[]): Output[] {
    return this.#localInstance().call(this.#resolve(request), outs);
  }

  callAsync(request: Request, outs: Uint8Array[], { transfer, onProgress }: Control): Call {
    const client = this.clientSide();
    const cache =
      request.op === Op.forward
        ? (request.objects.find(({ handle }) => handle.name === "cache")?.handle as WasmObject | undefined)
        : undefined;
    const message = this.message(client, request, "job", cache, transfer, outs);
    const targets = outs.map((out) => ({ out, length: out.byteLength, local: this.#local, address: this.#local?.addressOf(out) }));
    const call = client.call(message, onProgress, cache ? this.#changing(cache, undefined) : () => {});
    const outputs = call.outputs.then((outputs) =>
      outputs.map((output, index) => {
        const target = targets[index];
        if (!target || !output.buffer) return output;
        const { out, length, local, address } = target;
        // Memory of the local instance may have grown since, which detaches the view that the caller gave.
        const place = address === undefined ? out : local?.view(address, length);
        if (!place || place.byteLength < length) fail("SHAPE", "out", "a buffer with its memory", "a detached one");
        place.set(new Uint8Array(output.buffer));
        return { ...output, buffer: null };
      }),
    );
    return { ...call, outputs };
  }

  protected message(
    client: WorkerClient,
    { op, params, operands, objects }: Request,
    kind: CallMessage["kind"],
    subject: WasmObject | undefined,
    transfer = false,
    outs: Uint8Array[] = [],
  ): Omit<CallMessage, "type" | "id" | "progress"> {
    const keys = objects.map(({ slot, handle }) => ({ slot, key: this.#place(client, handle as WasmObject) }));
    return {
      op,
      params: new Float64Array(params),
      objects: keys,
      operands: own(operands, transfer),
      outBytes: outs.map(({ byteLength }) => byteLength),
      kind,
      key: subject?.remote?.key,
    };
  }

  query(request: Request): number {
    const object = request.objects[0]?.handle as WasmObject | undefined;
    if (object?.remote && object.empty) return this.#queryRemote(object, object.remote, request);
    return this.#localInstance().query(this.#resolve(request));
  }

  // Objects.

  createObject(name: Handle["name"], request: Request, empty?: Request): Handle {
    const instance = this.#localInstance();
    const id = instance.query(this.#resolve(request));
    // The worker gets what the caller gave now, not what its arrays hold then.
    const operands = request.operands.map(copyOf);
    const { op, params, objects } = request;
    const object: WasmObject = {
      name,
      backend: this,
      local: { instance, id },
      recipe: { op, params, objects, operands },
      empty,
      length: 0,
      changes: [],
    };
    return object;
  }

  /** The key of an object in the worker, where it is put if it is not there. */
  #place(client: WorkerClient, object: WasmObject): number {
    if (object.remote) return object.remote.client === client ? object.remote.key : gone(object.name);
    const { recipe, local, empty } = object;
    if (!recipe || !local || local.instance.dead || local.instance !== this.#local) return gone(object.name);
    const here = local.instance;
    const about = (op: number): Resolved => ({ op, params: [local.id], operands: [] });
    const length = empty ? here.query(about(Op.length)) : 0;
    const content = length > 0 ? here.call(about(Op.exportCache), []) : undefined;
    if (empty) {
      // An empty cache stays behind: Rust checks appends on it.
      const twin = here.query(this.#resolve(empty));
      here.query(about(Op.drop));
      local.id = twin;
    }
    object.recipe = undefined;
    object.remote = { client, key: client.newKey() };
    object.length = length;
    this.#send(client, object, recipe, "create", () => {});
    if (content) this.#send(client, object, appendExported(object, content), "change", () => {});
    return object.remote.key;
  }

  /** Sends a query that makes or changes an object. Its failure in the worker is told by the calls that use the object later. */
  #send(
    client: WorkerClient,
    object: WasmObject,
    request: Request,
    kind: "create" | "change",
    onEnd: (length: number | undefined) => void,
  ): void {
    client.call(this.message(client, request, kind, object), null, onEnd).outputs.catch(() => {});
  }

  /** Notes a change of a cache that begins; gives what is to be called with the cache's length when it ends. */
  #changing(object: WasmObject, change: Change): (length: number | undefined) => void {
    object.changes.push(change);
    return (length) => {
      object.changes.splice(object.changes.indexOf(change), 1);
      if (length !== undefined) object.length = length;
    };
  }

  #queryRemote(object: WasmObject, { client }: { client: WorkerClient }, request: Request): number {
    const { instance, id } = object.local ?? gone(object.name);
    if (client.ended || client !== this.#client || instance.dead) gone(object.name);
    if (request.op === Op.length) return lengthOf(object);
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
      const held = lengthOf(object);
      if (wanted > held && !object.changes.includes(undefined)) fail("SHAPE", "length", `at most ${held}, the tokens held`, String(wanted));
      change = () => wanted;
    }
    this.#send(client, object, request, "change", this.#changing(object, change));
    return lengthOf(object);
  }

  dropObject(handle: Handle): void {
    const { local, remote } = handle as WasmObject;
    if (local && !local.instance.dead && local.instance === this.#local)
      local.instance.query({ op: Op.drop, params: [local.id], operands: [] });
    remote?.client.send({ type: "drop", key: remote.key });
  }

  createMemory(bytes: number): BackendMemory {
    const instance = this.#localInstance();
    const length = Math.max(bytes, 1);
    const address = instance.allocate(length, true);
    return { bytes: () => instance.view(address, bytes), release: () => instance.release(address, length), leaks: true };
  }

  async idle(): Promise<void> {
    await Promise.all([this.#client?.idle(), this.#companion?.idle()]);
  }

  dispose(): void {
    this.#client?.end(aborted(undefined));
    this.#companion?.dispose();
    this.#client = this.#local = this.#companion = undefined;
  }
}
