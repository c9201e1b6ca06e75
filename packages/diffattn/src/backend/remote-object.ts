// An object that a worker alone has: of models, and of gradients in their async forms.

import type { Backend, Handle } from "../backend.js";
import type { WasmObject } from "./call-message.js";
import { gone, type WorkerClient } from "./worker-client.js";

export class RemoteObject implements WasmObject {
  readonly #client: WorkerClient;
  readonly #key: number;

  /** To users it belongs to the backend that they know. */
  constructor(
    readonly name: Handle["name"],
    readonly backend: Backend,
    client: WorkerClient,
  ) {
    this.#client = client;
    this.#key = client.newKey();
  }

  keyIn(client: WorkerClient): number {
    return client === this.#client ? this.#key : gone(this.name);
  }

  /** Its length is asked for (models/cache.ts). */
  changing(): () => void {
    return () => {};
  }

  drop(): void {
    this.#client.send({ type: "drop", key: this.#key });
  }
}
