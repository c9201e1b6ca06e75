// Where models live: native in the addon with everything else, on WASM in a worker of their own
// that loads the builds with models, or where one is trained those with gradients besides. There
// objects are in the worker alone, so they are made and asked by messages.

import type { Backend, Call, Control, Handle, Local, Output, Request } from "../backend.js";
import { messageOf, type WasmObject } from "../backend/call-message.js";
import { RemoteObject } from "../backend/remote-object.js";
import { WasmBackend } from "../backend/wasm.js";
import type { WorkerClient } from "../backend/worker-client.js";
import { internal } from "../errors.js";
import { backend, live } from "../init.js";
import type { Platform } from "../platform.js";
import { checkSignal, follow } from "../run.js";
import type { CallOptions } from "../types.js";
import { type Home, modelsPlatform, trainerPlatform } from "./platform.js";

/** What models ask of a backend: an ordinary one answers at once, this one when the worker did. */
interface Models {
  begin(): void;
  create(name: Handle["name"], request: Request): Promise<Handle>;
  query(request: Request): Promise<number>;
  callAsync(request: Request, control: Control): Call;
  drop(handle: Handle): void;
}

/** An object of such a worker. */
class ModelObject extends RemoteObject {
  constructor(
    name: Handle["name"],
    backend: Backend,
    client: WorkerClient,
    readonly home: Home,
  ) {
    super(name, backend, client);
  }
}

function platformOf(home: Home): Platform {
  const platform = home === "models" ? modelsPlatform().wasm : trainerPlatform();
  if (!platform) throw internal("a trainer without its modules");
  return platform;
}

class WasmModels extends WasmBackend {
  declare owner: WasmBackend;

  constructor(
    owner: WasmBackend,
    readonly home: Home,
  ) {
    super(platformOf(home), owner.folder, owner.isa, owner.threads, []);
    this.owner = owner;
  }

  begin(): void {
    this.clientSide();
  }

  async create(name: Handle["name"], request: Request): Promise<Handle> {
    const client = this.clientSide();
    const object = new ModelObject(name, this.owner, client, this.home);
    await client.call(messageOf(client, request, { kind: "create", key: object.keyIn(client) }), null, () => {}).outputs;
    return object;
  }

  async ask(request: Request): Promise<number> {
    const client = this.clientSide();
    let answer: number | undefined;
    const call = client.call(messageOf(client, request, { kind: "change", key: undefined }), null, (length) => (answer = length));
    await call.outputs;
    if (answer === undefined) throw internal("a query without an answer");
    return answer;
  }
}

/** What is done now, as a promise. */
const atOnce = <T>(body: () => T): Promise<T> => new Promise((resolve) => resolve(body()));

/** Where a request without objects goes: to a worker that is there, for models if there are two. */
const anyHome = (running: WasmBackend): Home =>
  !running.companions.has("models") && running.companions.has("trainer") ? "trainer" : "models";

/** Where the objects of a request are. */
const homeOf = ({ objects }: Request): Home | undefined => {
  const [first] = objects;
  return first?.handle instanceof ModelObject ? first.handle.home : undefined;
};

function models(home?: Home): Models {
  const running = backend();
  if (running instanceof WasmBackend) {
    const wanted = home ?? anyHome(running);
    const known = running.companions.get(wanted);
    const worker = known instanceof WasmModels ? known : new WasmModels(running, wanted);
    running.companions.set(wanted, worker);
    return {
      begin: () => worker.begin(),
      create: (name, request) => worker.create(name, request),
      query: (request) => worker.ask(request),
      callAsync: (request, control) => worker.callAsync(request, [], control),
      drop: (handle) => (handle as WasmObject).drop(),
    };
  }
  // Native, which is one with its side that computes at once.
  const local = running.local as Local;
  return {
    begin: () => {},
    create: (name, request) => atOnce(() => local.createObject(name, request)),
    query: (request) => atOnce(() => local.query(request)),
    callAsync: (request, control) => running.callAsync(request, [], control),
    drop: (handle) => local.dropObject(handle),
  };
}

/**
 * Starts where models live, while files are still read. What goes wrong is told by the first call.
 */
export function begin(home: Home): void {
  models(home).begin();
}

/** Makes an object, where those live that it is made of; `home`: of one that is made of none. */
export async function create(name: Handle["name"], request: Request, home?: Home): Promise<Handle> {
  for (const { handle } of request.objects) live(handle);
  return models(homeOf(request) ?? home).create(name, request);
}

/** Asks or changes an object: one number. */
export async function query(request: Request): Promise<number> {
  for (const { handle } of request.objects) live(handle);
  return models(homeOf(request)).query(request);
}

/** Gives up an object; one of a backend that ended is gone already. */
export function drop(handle: Handle): void {
  try {
    live(handle);
  } catch {
    return;
  }
  models(handle instanceof ModelObject ? handle.home : undefined).drop(handle);
}

export type RunOptions = { [K in keyof CallOptions]: CallOptions[K] | null };

/** Runs a job, where its objects live; `home`: of one without objects. */
export async function run(request: Request, options: RunOptions = {}, home?: Home): Promise<Output[]> {
  checkSignal(options.signal);
  for (const { handle } of request.objects) live(handle);
  return follow(options, (control) => models(homeOf(request) ?? home).callAsync(request, control));
}
