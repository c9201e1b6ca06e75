// The side of the WASM backend on the caller's own thread: one instance, for the sync forms, the
// objects and tensors in the backend's memory.

import type { Backend, BackendMemory, Handle, Local, Output, Outs, Request } from "../backend.js";
import { instantiate } from "../instantiate.js";
import { compileSync } from "../module.js";
import * as Op from "../ops.generated.js";
import type { LocalSide } from "./call-message.js";
import type { Instance, Resolved } from "./instance.js";
import { WasmBackend } from "./wasm.js";
import { PlacedObject } from "./wasm-object.js";
import { notReady } from "./wasm-steering.js";
import { gone } from "./worker-client.js";

const placed = (handle: Handle): PlacedObject => (handle instanceof PlacedObject ? handle : gone(handle.name));

export class WasmLocal implements LocalSide {
  readonly #backend: WasmBackend;
  #instance: Instance | undefined;

  constructor(backend: WasmBackend) {
    this.#backend = backend;
  }

  /** The instance, where there is one. */
  get instance(): Instance | undefined {
    return this.#instance;
  }

  /** The instance, started where there is none that lives. */
  private live(): Instance {
    if (this.#instance && !this.#instance.dead) return this.#instance;
    const { localBuild, modules, platform, files } = this.#backend;
    let module = modules.get(localBuild);
    if (!module) {
      if (!platform.blocking || this.#backend.givenTo(localBuild)) notReady();
      module = compileSync(files.module(localBuild), (file) => platform.read(file));
      modules.set(localBuild, module);
    }
    return (this.#instance = instantiate(module));
  }

  /** A request with the ids that objects have here. */
  resolve({ op, params, operands, objects }: Request): Resolved {
    const here = this.live();
    if (objects.length === 0) return { op, params, operands };
    const resolved = [...params];
    for (const { slot, handle } of objects) resolved[slot] = placed(handle).idIn(here);
    return { op, params: resolved, operands };
  }

  call(request: Request, outs: Outs): Output[] {
    return this.live().call(this.resolve(request), outs);
  }

  query(request: Request): number {
    const object = request.objects[0]?.handle as PlacedObject | undefined;
    if (object?.isAway) return object.queryAway(request);
    const answer = this.live().query(this.resolve(request));
    if (request.op === Op.setWeights) object?.changed(request);
    return answer;
  }

  createObject(name: Handle["name"], request: Request, empty?: Request): Handle {
    const instance = this.live();
    const id = instance.query(this.resolve(request));
    return new PlacedObject(name, this.#backend, { local: this, instance, id }, request, empty);
  }

  dropObject(handle: Handle): void {
    placed(handle).drop();
  }

  createMemory(bytes: number): BackendMemory {
    const instance = this.live();
    const length = Math.max(bytes, 1);
    const address = instance.allocate(length, true);
    return { bytes: () => instance.view(address, bytes), release: () => instance.release(address, length), leaks: true };
  }
}

/** A backend's side on the caller's own thread. */
export function localOf(backend: Backend): Local {
  if (backend instanceof WasmBackend) backend.local ??= new WasmLocal(backend);
  return backend.local as Local;
}
