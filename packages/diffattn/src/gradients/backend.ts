// Where gradients are computed: native in the addon with everything else, on WASM by modules of
// their own, which only the functions of api.ts lead to. An async form has a worker of its own, as
// models have, a sync form an instance beside that of the operators.

import type { Backend, Handle, Local, Request } from "../backend.js";
import { messageOf, type WasmObject } from "../backend/call-message.js";
import { RemoteObject } from "../backend/remote-object.js";
import { WasmBackend } from "../backend/wasm.js";
import { localOf } from "../backend/wasm-local.js";
import { fail } from "../errors.js";
import { backend } from "../init.js";
import { withPart } from "../with-part.js";

// Literal, so that bundlers see the files and copy them.
const literal = {
  simd128: () => new URL("./diffattn-training-simd128.wasm", import.meta.url),
  "relaxed-simd": () => new URL("./diffattn-training-relaxed.wasm", import.meta.url),
  "relaxed-simd+threads": () => new URL("./diffattn-training-threads.wasm", import.meta.url),
};

/** The backend that has gradients, by the options of the one that runs. */
export function training(): Backend {
  const running = backend();
  if (!(running instanceof WasmBackend)) return running;
  const known = running.companions.get("training");
  if (known) return known;
  const { platform, folder, isa, threads } = running;
  const files = () => platform.filesOf("training", literal);
  const made = new WasmBackend(withPart(platform, "training", files), folder, isa, threads, []);
  made.owner = running;
  running.companions.set("training", made);
  return made;
}

/** Its side of the sync forms. */
export function trainingNow(): Local {
  const running = training();
  // A page must not wait for a file, and init() knows of none that no call has asked for.
  if (running instanceof WasmBackend && !running.platform.blocking && !running.modules.has(running.localBuild))
    fail("UNAVAILABLE", "init", "an async form of gradients, and an init() after it, before sync forms on a browser's main thread", "none");
  return localOf(running);
}

/** An object of the async forms. Its failure is told by the call that uses it. */
export function createObject(name: Handle["name"], request: Request): Handle {
  const running = training();
  if (!(running instanceof WasmBackend)) return localOf(running).createObject(name, request);
  const client = running.clientSide();
  const object = new RemoteObject(name, running.owner ?? running, client);
  client.call(messageOf(client, request, { kind: "create", key: object.keyIn(client) }), null, () => {}).outputs.catch(() => {});
  return object;
}

/** Gives up an object of either form. */
export function dropObject(handle: Handle): void {
  const { backend } = handle;
  if (backend instanceof WasmBackend) (handle as WasmObject).drop();
  else localOf(backend).dropObject(handle);
}
