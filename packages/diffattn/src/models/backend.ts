// Where models live: native in the addon with everything else, on WASM in a worker of their own
// that loads the builds with models. There objects are in the worker alone, so they are made and
// asked by messages.

import type { Call, Control, Handle, Local, Output, Request } from "../backend.js";
import { messageOf, type WasmObject } from "../backend/call-message.js";
import { RemoteObject } from "../backend/remote-object.js";
import { WasmBackend } from "../backend/wasm.js";
import { internal } from "../errors.js";
import { backend, live } from "../init.js";
import { checkSignal, follow } from "../run.js";
import type { CallOptions } from "../types.js";
import { modelsPlatform } from "./platform.js";

/** What models ask of a backend: an ordinary one answers at once, this one when the worker did. */
interface Models {
  begin(): void;
  create(name: Handle["name"], request: Request): Promise<Handle>;
  query(request: Request): Promise<number>;
  callAsync(request: Request, control: Control): Call;
  drop(handle: Handle): void;
}

class WasmModels extends WasmBackend {
  declare owner: WasmBackend;

  constructor(owner: WasmBackend) {
    super(modelsPlatform().wasm, owner.folder, owner.isa, owner.threads, []);
    this.owner = owner;
  }

  begin(): void {
    this.clientSide();
  }

  async create(name: Handle["name"], request: Request): Promise<Handle> {
    const client = this.clientSide();
    const object = new RemoteObject(name, this.owner, client);
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

function models(): Models {
  const running = backend();
  if (running instanceof WasmBackend) {
    const known = running.companions.get("models");
    const worker = known instanceof WasmModels ? known : new WasmModels(running);
    running.companions.set("models", worker);
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
export function begin(): void {
  models().begin();
}

/** Makes an object. */
export async function create(name: Handle["name"], request: Request): Promise<Handle> {
  for (const { handle } of request.objects) live(handle);
  return models().create(name, request);
}

/** Asks or changes an object: one number. */
export async function query(request: Request): Promise<number> {
  for (const { handle } of request.objects) live(handle);
  return models().query(request);
}

/** Gives up an object; one of a backend that ended is gone already. */
export function drop(handle: Handle): void {
  try {
    live(handle);
  } catch {
    return;
  }
  models().drop(handle);
}

type Options = { [K in keyof CallOptions]: CallOptions[K] | null };

/** Runs a job. */
export async function run(request: Request, options: Options = {}): Promise<Output[]> {
  checkSignal(options.signal);
  for (const { handle } of request.objects) live(handle);
  return follow(options, (control) => models().callAsync(request, control));
}
